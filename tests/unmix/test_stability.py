"""Laws of stability: a share of latents that come back, and what chance alone would bring."""

import numpy as np
import pytest
import torch

from superpose.unmix import random_dictionary, stability
from superpose.unmix.baselines import Pursuit


def sphere(runs, rows, d, seed=0):
    W = torch.tensor(np.random.default_rng(seed).standard_normal((runs, rows, d))).float()
    return torch.nn.functional.normalize(W, dim=-1)


def test_copies_in_any_order_always_come_back_and_negatives_never():
    one = sphere(1, 10, 20)
    found = stability(Pursuit(torch.cat([one, one.flip(1), one])))
    assert (found.chance == 1).all()
    assert str(found.interval()) == "1 [1, 1]"
    flipped = stability(Pursuit(torch.cat([one, -one])))
    assert (flipped.chance == 0).all()


def test_a_core_that_all_runs_share_is_what_is_stable():
    core, rest = sphere(1, 4, 30), sphere(5, 6, 30, seed=1)
    found = stability(Pursuit(torch.cat([core.expand(5, 4, 30), rest], 1)))
    assert (found.chance[:, :4] == 1).all()
    assert (found.chance[:, 4:] == 0).all()
    assert found.interval().estimate == pytest.approx(0.4)
    summary = found.summary().to_pylist()
    for row in summary:
        assert (row["latents"], row["always"], row["never"]) == (10, 0.4, 0.6)
    table = found.table().to_pylist()
    assert len(table) == 50
    first = table[0]
    assert (first["chance"], first["chance_high"]) == (1.0, 1.0)
    assert first["chance_low"] == pytest.approx(0.025 ** (1 / 4))


def test_the_chance_is_the_share_of_the_other_runs():
    W = sphere(4, 1, 50)
    W[1] = W[0]
    found = stability(Pursuit(W))
    np.testing.assert_allclose(found.chance[:, 0], [1 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize(("d", "latents", "threshold"), [(3, 20, 0.9), (6, 40, 0.6)])
def test_the_null_is_that_of_random_dictionaries(d, latents, threshold):
    found = stability(Pursuit(sphere(60, latents, d)), threshold=threshold)
    interval = found.interval()
    assert interval.low - 0.02 < found.null < interval.high + 0.02
    assert found.null == pytest.approx(interval.estimate, abs=0.03)


def test_the_curve_falls_from_the_same_to_the_identical():
    table = stability(Pursuit(sphere(4, 30, 5))).curve((0.2, 0.5, 0.8, 0.95)).to_pydict()
    for name in ("chance", "null"):
        assert (np.diff(table[name]) <= 0).all()
    assert table["chance"][0] > 0.95 > 0.1 > table["chance"][-1]


def test_the_interval_over_runs_covers_what_many_runs_say():
    truth = stability(Pursuit(sphere(80, 20, 4, seed=9)), threshold=0.8).interval().estimate
    found = [
        stability(Pursuit(sphere(6, 20, 4, seed)), threshold=0.8).interval() for seed in range(40)
    ]
    covered = sum(each.low <= truth <= each.high for each in found)
    # Of 40 intervals of 95 %, 31 or fewer has a probability of a hundred-thousandth.
    assert covered > 31


def test_dead_latents_are_left_out_on_both_sides():
    one = sphere(1, 6, 20)
    W = torch.cat([one, one])
    alive = np.ones((2, 6), bool)
    alive[0, 0] = alive[1, 3] = False
    found = stability(Pursuit(W), alive)
    assert np.isnan(found.chance[0, 0])
    assert found.chance[1, 0] == found.chance[0, 3] == 0.0
    assert found.chance[0, 1] == 1.0
    assert found.summary()["latents"].to_pylist() == [5, 5]
    assert found.table().num_rows == 10


def test_two_runs_have_no_interval_and_one_has_no_stability():
    found = stability(Pursuit(sphere(2, 5, 4))).interval()
    assert (found.low, found.high) == (-np.inf, np.inf)
    with pytest.raises(ValueError, match="train with seeds=2 or more"):
        stability(random_dictionary(4, 5))
    with pytest.raises(ValueError, match="with a living latent in every run"):
        stability(Pursuit(sphere(2, 5, 4)), np.zeros((2, 5), bool))
