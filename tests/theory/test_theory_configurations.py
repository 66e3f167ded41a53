import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar

from superpose import phases
from superpose.features import Features
from superpose.measures import feature_norms, interference
from superpose.theory import (
    antipodal_without_bias,
    configurations,
    exact_boundary,
    expected_loss,
    optimum,
    phase_boundary,
    phase_plane,
    states,
)

GRID = [(p, r) for p in (0.02, 0.3, 0.7, 1.0) for r in (0.2, 1.0, 4.0)]
SIZES = [(2, 1), (3, 2)]


def _world(n, p, r):
    return Features(n=n, p=p, importance=(*[1.0] * (n - 1), r))


@pytest.mark.parametrize(("p", "r"), GRID)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_each_closed_form_is_the_exact_loss_of_its_weights(n, m, p, r):
    for each in configurations(n, m, p, r):
        exact = expected_loss(each.W, each.b, _world(n, p, r), tolerance=1e-9)
        assert exact.item() == pytest.approx(each.loss, abs=1e-9)
        assert states(each.W)[-1] == each.state


@pytest.mark.parametrize("r", [0.05, 0.3, 0.99, 1.0, 1.5, 10.0])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_lowest_configuration_changes_at_the_boundary_only(n, m, r):
    boundary = phase_boundary(n, m, r)
    best = [configurations(n, m, p, r)[0] for p in np.linspace(0.01, 0.999, 400) if p != boundary]
    names = [each.name for each in best]
    changes = [k for k in range(1, len(names)) if names[k] != names[k - 1]]
    if r == 1.0:  # ignoring either feature is then the same
        changes = [k for k in changes if "antipodal" in names[k - 1]]
    assert len(changes) == 1
    assert abs(np.linspace(0.01, 0.999, 400)[changes[0]] - boundary) < 0.003


def test_the_triple_point_and_the_slopes():
    for n, m in SIZES:
        assert phase_boundary(n, m, 1.0) == pytest.approx(4 / 7)
        low, high = (phase_boundary(n, m, r) for r in (1 - 1e-9, 1 + 1e-9))
        assert low == pytest.approx(high)
    # First order: the two losses cross with different slopes in p.
    for r in (0.2, 1.0, 5.0):
        p, by_name = phase_boundary(2, 1, r), {}
        for step in (-1e-6, 1e-6):
            for each in configurations(2, 1, p + step, r):
                by_name.setdefault(each.name, []).append(each.loss)
        slopes = {name: (b - a) / 2e-6 for name, (a, b) in by_name.items()}
        ignored = "extra ignored" if r <= 1 else "ordinary ignored"
        assert slopes["antipodal pair"] > slopes[ignored] + 0.01 * r


def test_two_features_in_one_dimension_exchange_their_roles():
    for r in (0.1, 0.5, 0.9):
        assert phase_boundary(2, 1, r) == pytest.approx(phase_boundary(2, 1, 1 / r))


def test_the_triangle_is_never_the_lowest_at_norm_one():
    for p in np.linspace(0.01, 1, 40):
        for r in np.geomspace(0.05, 20, 41):
            assert configurations(3, 2, float(p), float(r))[0].name != "triangle"


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_pairs_without_bias_are_least_where_they_say(p):
    world = Features(n=2, p=p)

    def loss(a, sign):
        W = math.sqrt(a) * torch.tensor([[1.0], [sign]], dtype=torch.float64)
        return expected_loss(W, torch.zeros(2), world, tolerance=1e-9).item()

    a, least = antipodal_without_bias(p)
    assert a == pytest.approx((8 - 5 * p) / (8 - 6 * p))
    assert loss(a, -1) == pytest.approx(least, abs=1e-9)
    found = minimize_scalar(loss, bounds=(0.8, 1.8), args=(-1,), options={"xatol": 1e-6})
    assert found.x == pytest.approx(a, abs=1e-4)
    same = minimize_scalar(loss, bounds=(0.2, 1.0), args=(1,), options={"xatol": 1e-6})
    assert same.x == pytest.approx(0.5, abs=1e-4)
    assert same.fun == pytest.approx(p / 3 - p * p / 4, abs=1e-8)


def test_without_bias_antipodes_give_way_to_confusion():
    found = brentq(lambda p: antipodal_without_bias(p)[1] - (p / 3 - p * p / 4), 0.1, 0.99)
    assert found == pytest.approx(0.58217, abs=1e-5)


def test_states_are_those_of_phases():
    rng = np.random.default_rng(0)
    assert phases.REPRESENTED == 0.5
    assert phases.SUPERPOSED == 0.1
    for scale in (0.3, 0.6, 1.0):
        W = torch.from_numpy(scale * rng.normal(size=(12, 5)))
        said = phases.state(feature_norms(W).numpy(), interference(W).numpy())
        assert states(W) == tuple(said)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 1), (4, 2)])
def test_unknown_sizes_say_what_is_known(n, m):
    with pytest.raises(ValueError, match="n=2, m=1 and n=3, m=2"):
        phase_boundary(n, m, 1.0)


@pytest.mark.parametrize("r", [0.0, -1.0, math.nan])
def test_a_ratio_is_positive(r):
    for call in (lambda: phase_boundary(2, 1, r), lambda: configurations(2, 1, 0.1, r)):
        with pytest.raises(ValueError, match="positive"):
            call()


@pytest.mark.parametrize("p", [0.0, 1.1, math.nan])
def test_a_density_is_a_probability(p):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        configurations(2, 1, p, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("r", [0.2, 0.6, 5.0])
def test_the_exact_boundary_parts_two_states_of_the_optimum(r):
    boundary = exact_boundary(r, precision=1e-3)
    below, above = (
        optimum(_world(2, boundary.p + step, r), 1, starts=16) for step in (-0.01, 0.01)
    )
    assert states(below.W)[1] == "superposed"
    assert states(above.W)[1] == ("ignored" if r < 1 else "dedicated")
    # Free norms and biases help the pair, so that it lives on beyond the fixed ones.
    assert boundary.p > phase_boundary(2, 1, r)
    assert boundary.jump > 0.5


def test_an_extra_feature_superposed_in_every_world_has_no_boundary():
    assert np.isnan(exact_boundary(1.001, precision=1e-2).p)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"r": 0.0}, r"exact_boundary\(r=0"), ({"r": 0.5, "precision": 0.0}, "absolute error of p")],
)
def test_a_boundary_that_cannot_be_found_says_why(arguments, says):
    with pytest.raises(ValueError, match=says):
        exact_boundary(**arguments)


@pytest.mark.slow
def test_the_exact_boundary_exchanges_its_roles_too():
    one, other = exact_boundary(0.25, precision=1e-3), exact_boundary(4.0, precision=1e-3)
    assert one.p == pytest.approx(other.p, abs=2e-3)


def test_a_plane_never_loses_to_the_configurations():
    r, p = [0.3, 2.0], [0.1, 0.9]
    plane = phase_plane(2, 1, r=r, p=p, starts=4)
    assert plane.state.shape == plane.loss.shape == (2, 2)
    for i, j in np.ndindex(2, 2):
        best = configurations(2, 1, p[j], r[i])[0]
        assert plane.loss[i, j] <= best.loss + 1e-7
        if p[j] < 0.2:
            assert plane.state[i, j] == best.state


def test_a_plane_needs_an_ordinary_feature():
    with pytest.raises(ValueError, match="n ≥ 2"):
        phase_plane(1, 1, r=[1.0], p=[0.1])
