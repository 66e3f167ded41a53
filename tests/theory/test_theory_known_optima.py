import math

import numpy as np
import pytest

from superpose.theory import known_optima, linear_minimum, optimum, second_moments

TABLE = known_optima()


def zero(world):
    """The loss of a model that outputs 0."""
    return float(np.diag(second_moments(world)) @ world.importances)


def test_each_world_is_there_once():
    assert len({(each.world, each.m) for each in TABLE}) == len(TABLE) > 60


def test_no_known_optimum_is_worse_than_the_linear_one():
    for each in TABLE:
        assert 0 <= each.loss <= linear_minimum(each.world, each.m) + 1e-7 * zero(each.world)
        assert each.squared_norm > 0
        assert each.shape


def test_published_losses():
    polygons = {5: 0.015826, 6: 0.048192, 7: 0.083271}
    for each in TABLE:
        if each.world.law.exclusive and each.world.sets == 1 and each.world.n in polygons:
            assert each.loss == pytest.approx(polygons[each.world.n], abs=1e-6)
        if (each.world.n, each.m, each.world.p, each.world.importance) == (5, 2, 0.05, 1.0):
            assert each.loss == pytest.approx(8.9036e-3, abs=1e-7)
            assert each.squared_norm == pytest.approx(5 * 1.1345**2, abs=2e-3)
            assert each.shape == "pentagon"


@pytest.mark.parametrize("each", [row for row in TABLE if row.world.n == 2][:10:3])
def test_a_small_one_is_found_again(each):
    found = optimum(each.world, each.m, starts=8)
    assert math.isclose(found.loss, each.loss, rel_tol=0, abs_tol=1e-6 * zero(each.world))


@pytest.mark.slow
@pytest.mark.parametrize("each", TABLE, ids=lambda row: f"{row.world.law} {row.world.p} {row.m}")
def test_searching_again_finds_the_same_and_nothing_lower(each):
    # The heptagon is reached from about one start in a hundred.
    for starts in (64, 256, 1024):
        excess = optimum(each.world, each.m, starts=starts, seed=1).loss - each.loss
        assert excess >= -1e-6 * zero(each.world)
        if excess <= 1e-6 * zero(each.world):
            return
    pytest.fail(f"1,024 starts end {excess:.3g} above the known optimum")
