import numpy as np
import pytest
import torch
from scipy.special import dawsn

from superpose.features import Constant, Exponential, Features, HalfNormal, Uniform
from superpose.theory import expected_loss, loss_and_gradient
from superpose.theory.relu.amplitudes import dawson

LAWS = ("independent", "correlated", "anticorrelated", "exactly one")


def _world(k):
    """World k of a fixed list that goes through every amplitude, sign and law."""
    rng = np.random.default_rng([2022, k])
    n = round(np.exp(rng.uniform(np.log(2), np.log(100))))
    scale, p = rng.uniform(0.3, 2), np.exp(rng.uniform(np.log(0.02), 0))
    given = {
        "amplitude": (Uniform(), Exponential(scale), HalfNormal(scale), Constant(scale))[k % 4],
        "signed": bool(k // 4 % 2),
    }
    law, size = LAWS[k // 8 % 4], int(rng.integers(2, 5))
    if law == "exactly one":
        return Features.exactly_one(n, importance=rng.uniform(0.1, 1, n).tolist(), **given)
    if law == "independent":
        size = 1
    make = Features.anticorrelated if law == "anticorrelated" else Features.correlated
    sets = max(n // size, 1)
    given["importance"] = rng.uniform(0.1, 1, sets * size).tolist()
    return make(sets=sets, size=size, p=(p * rng.uniform(0.2, 1, sets)).tolist(), **given)


def _model(k, n):
    """A random model, or one of nearly orthogonal features, with and without bias."""
    rng = np.random.default_rng([2023, k])
    m = int(rng.integers(1, n + 1)) if n < 10 else int(rng.integers(2, n // 2))
    W = rng.normal(size=(n, m)) / np.sqrt(m)
    if rng.random() < 0.3:
        W = np.linalg.qr(W)[0] + 1e-5 * rng.normal(size=(n, m))
    b = rng.normal(size=n) * 0.2 * rng.integers(0, 2)
    return torch.from_numpy(W), torch.from_numpy(b)


def _deviation(k, samples):
    """How many standard errors the exact loss is from the mean over samples."""
    world = _world(k)
    W, b = _model(k, world.n)
    # Atoms make the series long, so that the tolerance is set by what the samples can see.
    exact = expected_loss(W, b, world, tolerance=1e-4).item()
    x = world.sample(samples // world.n, seed=k).double()
    error = (x - (x @ W @ W.T + b).relu()) ** 2 @ torch.from_numpy(world.importances)
    scale = expected_loss(torch.zeros(world.n, 1), torch.zeros(world.n), world).item()
    spread = error.std().item() / len(x) ** 0.5 + 1e-4 * scale / 4
    return (exact - error.mean().item()) / spread


def test_forty_worlds_of_every_kind_agree_with_samples():
    deviations = np.array([_deviation(k, 400_000) for k in range(40)])
    assert np.abs(deviations).max() <= 4


@pytest.mark.slow
def test_two_hundred_worlds_of_every_kind_agree_with_samples():
    deviations = np.array([_deviation(k, 4_000_000) for k in range(200)])
    assert np.abs(deviations).max() <= 4


@pytest.mark.parametrize("amplitude", [Uniform(), Exponential(), HalfNormal(), Constant()])
@pytest.mark.parametrize("make", [Features.correlated, Features.anticorrelated])
def test_sets_of_one_are_independent_features(make, amplitude):
    W, b = _model(5, 6)
    p = [0.1, 0.5, 0.9, 0.3, 0.2, 1.0]
    plain = expected_loss(W, b, Features(n=6, p=p, amplitude=amplitude), tolerance=1e-4)
    sets = expected_loss(W, b, make(sets=6, size=1, p=p, amplitude=amplitude), tolerance=1e-4)
    assert sets.item() == pytest.approx(plain.item(), rel=1e-9)


@pytest.mark.parametrize("law", [Exponential, HalfNormal, Constant])
def test_the_unit_of_magnitude_only_scales_the_loss(law):
    W, b = _model(3, 8)
    for signed in (False, True):
        one = Features(n=8, p=0.3, amplitude=law(1.0), signed=signed)
        two = Features(n=8, p=0.3, amplitude=law(2.5), signed=signed)
        plain = loss_and_gradient(W, b, one, tolerance=1e-4)
        scaled = loss_and_gradient(W, 2.5 * b, two, tolerance=1e-4)
        torch.testing.assert_close(scaled.loss, 2.5**2 * plain.loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(scaled.W, 2.5**2 * plain.W, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(scaled.b, 2.5 * plain.b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("amplitude", [Uniform(), Exponential(0.8), HalfNormal(1.2), Constant()])
def test_one_signed_feature_with_slope_and_no_bias(amplitude):
    # Half of the time x is negative and lost: E x² (1 + (1 − a)²) / 2.
    a, world = 0.7, Features(n=1, p=0.4, amplitude=amplitude, signed=True)
    found = expected_loss(torch.tensor([[a**0.5]]).double(), torch.zeros(1), world, tolerance=1e-5)
    square = 0.4 * amplitude.square
    assert found.item() == pytest.approx(square * (1 + (1 - a) ** 2) / 2, abs=1e-5 * square)


def test_a_binary_antipodal_pair_by_its_four_patterns():
    p, a, v = 0.3, 0.8, 1.5
    W = torch.tensor([[a**0.5], [-(a**0.5)]]).double()
    found = expected_loss(W, torch.zeros(2), Features(n=2, p=p, amplitude=Constant(v)))
    exact = 2 * p * (1 - p) * v**2 * (1 - a) ** 2 + 2 * p**2 * v**2
    assert found.item() == pytest.approx(exact, abs=1e-6 * 2 * p * v**2)


def test_an_exponential_pair_by_quadrature():
    p, s, W = 0.4, 0.6, torch.tensor([[0.9, 0.1], [-0.7, 0.4]]).double()
    b = torch.tensor([0.1, -0.2]).double()
    x, weight = np.polynomial.laguerre.laggauss(120)
    x, weight = torch.from_numpy(x * s), torch.from_numpy(weight)
    grid = torch.cartesian_prod(x, x)
    one = torch.stack([x, torch.zeros_like(x)], 1)
    cases = [
        (torch.zeros(1, 2).double(), torch.ones(1).double() * (1 - p) ** 2),
        (one, weight * p * (1 - p)),
        (one.flip(1), weight * p * (1 - p)),
        (grid, torch.outer(weight, weight).flatten() * p**2),
    ]
    total = sum((((x - (x @ W @ W.T + b).relu()) ** 2).sum(1) @ w).item() for x, w in cases)
    found = expected_loss(W, b, Features(n=2, p=p, amplitude=Exponential(s)), tolerance=1e-8)
    # The quadrature feels the kink.
    assert found.item() == pytest.approx(total, rel=2e-3)


def test_a_tolerance_out_of_reach_of_atoms_is_refused():
    world = Features(n=2, amplitude=Constant())
    with pytest.raises(ValueError, match=r"tolerance=1e-09.*1e-7 or more"):
        expected_loss(torch.zeros(2, 1), torch.zeros(2), world, tolerance=1e-9)


def test_dawsons_integral():
    x = np.concatenate([-np.geomspace(1e-8, 1e6, 200), np.linspace(0, 12, 400)])
    np.testing.assert_allclose([dawson(value) for value in x], dawsn(x), rtol=3e-14, atol=1e-300)


def test_large_weights_cost_constant_magnitudes_no_more():
    # So large that every output is on or off: y is linear, but for the sign.
    W, b = torch.tensor([[1e4], [-1e4]]), torch.zeros(2)
    found = expected_loss(W, b, Features(n=2, p=0.5, amplitude=Constant()))
    expected = 2 * (0.25 * (1 - 1e8) ** 2 + 0.25 * 1)
    assert found.item() == pytest.approx(expected, rel=1e-8)
