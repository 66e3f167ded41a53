import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from superpose.features import Features
from superpose.measures import dimensionality
from superpose.theory import expected_loss
from superpose.theory.polygons import (
    crosstalk,
    k_gon,
    memorising_polygon,
    own_error,
    single_feature_loss,
)

# Chen et al. 2023: k, length, bias, potential. The eighth row is one of their two.
TABLE = [
    (4, 1.0, 0.0, 0.0),
    (5, 1.17046, -0.28230, 0.23738),
    (6, 1.32053, -0.61814, 0.86746),
    (7, 1.44839, -0.96691, 1.74870),
    (8, 1.55045, -1.29119, 2.7731),
    (12, 1.03322, -0.46654, 7.0527),
]


def _corners(k, length):
    angle = torch.arange(k, dtype=torch.float64) * (2 * math.pi / k)
    return length * torch.stack((angle.cos(), angle.sin()), -1)


def _relu_square(c, b):
    edges = [-b / c] if c and 0 < -b / c < 1 else None
    return quad(lambda x: max(c * x + b, 0) ** 2, 0, 1, points=edges, epsabs=1e-13)[0]


SLOPE = st.floats(-4, 4) | st.floats(-1e-6, 1e-6)


@settings(max_examples=200, deadline=None)
@given(c=SLOPE, b=SLOPE)
def test_crosstalk_is_its_integral(c, b):
    found = crosstalk(
        torch.tensor(c, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    ).item()
    assert found == pytest.approx(_relu_square(c, b), abs=1e-10)


@settings(max_examples=200, deadline=None)
@given(a=st.floats(0, 4) | st.floats(0, 1e-6), b=SLOPE)
def test_own_error_is_its_integral(a, b):
    edges = [-b / a] if a and 0 < -b / a < 1 else None
    expected = quad(lambda x: (x - max(a * x + b, 0)) ** 2, 0, 1, points=edges, epsabs=1e-13)[0]
    found = own_error(
        torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    ).item()
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 7), m=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_the_loss_is_the_exact_one_of_a_world_with_one_active_feature(n, m, seed):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.normal(size=(3, n, m)))
    b = torch.from_numpy(rng.normal(size=(3, n)) * 0.5)
    world = Features.exactly_one(n, importance=rng.uniform(0, 2, n).tolist())
    found = single_feature_loss(W, b, torch.from_numpy(world.importances))
    exact = expected_loss(W, b, world, tolerance=1e-8)
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("k", "length", "bias", "potential"), TABLE)
def test_the_table_of_polygons(k, length, bias, potential):
    found = k_gon(k)
    assert found.length == pytest.approx(length, abs=6e-6)
    assert found.bias == pytest.approx(bias, abs=6e-6)
    assert found.potential == pytest.approx(potential, abs=6e-6 if k < 8 else 6e-5)


@pytest.mark.parametrize("k", [5, 6, 7, 8, 9, 10, 12])
def test_a_polygon_is_stationary(k):
    best = k_gon(k)
    W = _corners(k, best.length).requires_grad_()
    b = torch.full((k,), best.bias, dtype=torch.float64, requires_grad=True)
    loss = single_feature_loss(W, b, torch.ones(k).double())
    assert loss.item() == pytest.approx(best.loss, abs=1e-14)
    for gradient in torch.autograd.grad(loss, (W, b)):
        assert 3 * k * gradient.abs().max() < 1e-12


@pytest.mark.parametrize("k", [5, 7, 9])
def test_nothing_near_a_minimum_is_lower(k):
    best = k_gon(k)
    rng = np.random.default_rng(k)
    W = _corners(k, best.length) + torch.from_numpy(rng.normal(size=(500, k, 2)) * 1e-2)
    b = best.bias + torch.from_numpy(rng.normal(size=(500, k)) * 1e-2)
    assert single_feature_loss(W, b, torch.ones(k).double()).min() >= best.loss


def test_the_decagon_is_golden_and_no_minimum():
    decagon, golden = k_gon(10), (1 + math.sqrt(5)) / 2
    assert decagon.length == pytest.approx(golden, abs=1e-9)
    assert decagon.bias == pytest.approx(-golden, abs=1e-9)
    assert decagon.potential == pytest.approx(5, abs=1e-12)
    assert math.isnan(decagon.learning_coefficient)


@pytest.mark.parametrize("k", [5, 6, 7, 8, 9])
def test_the_learning_coefficient_leaves_out_the_rotation(k):
    assert k_gon(k).learning_coefficient == (3 * k - 1) / 2
    assert k_gon(k, k + 2).learning_coefficient == (3 * k - 1) / 2
    assert k_gon(k, k + 1, dead_bias=True).learning_coefficient == (3 * k + 2) / 2


def test_a_square_has_no_second_derivative():
    assert math.isnan(k_gon(4).learning_coefficient)


@pytest.mark.parametrize("dead_bias", [False, True])
@pytest.mark.parametrize(("k", "c"), [(4, 5), (5, 6), (5, 9)])
def test_features_left_out_cost_what_the_loss_says(k, c, dead_bias):
    best = k_gon(k, c, dead_bias=dead_bias)
    W = torch.cat((_corners(k, best.length), torch.zeros(c - k, 2).double()))
    b = torch.full((c,), -1.0).double()
    b[:k] = best.bias
    if dead_bias:
        b[k] = best.dead_bias
    exact = expected_loss(W, b, Features.exactly_one(c), tolerance=1e-8)
    assert best.loss == pytest.approx(exact.item(), abs=1e-7)
    gain = k_gon(k, c).loss - best.loss
    assert gain == pytest.approx(dead_bias / (4 * c**2), abs=1e-15)


def test_impossible_polygons_are_refused():
    with pytest.raises(ValueError, match=r"k_gon\(k=3\).*at least 4 corners"):
        k_gon(3)
    with pytest.raises(ValueError, match=r"c=5, dead_bias=True.*at least 6"):
        k_gon(5, 5, dead_bias=True)
    with pytest.raises(ValueError, match=r"memorising_polygon\(points=2\).*at least 3"):
        memorising_polygon(2)


@pytest.mark.parametrize("points", [3, 4, 5, 30, 1000])
def test_examples_on_a_polygon_are_memorised_without_error(points):
    length, bias = memorising_polygon(points)
    H = _corners(points, length)
    x = torch.eye(points, dtype=torch.float64)
    torch.testing.assert_close((x @ H @ H.T + bias).relu(), x, atol=1e-9, rtol=0)
    shares = dimensionality(H)
    torch.testing.assert_close(shares, torch.full_like(shares, 2 / points))
