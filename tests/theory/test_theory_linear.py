import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.features import Features
from superpose.theory import expected_loss, linear_minimum, linear_optimal_bias
from superpose.theory.moments import covariance

SEEDS = st.integers(0, 2**32 - 1)


def _loss(W, world):
    return expected_loss(W, linear_optimal_bias(W, world), world, output="linear")


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 8), m=st.integers(1, 5), p=st.floats(0.01, 1.0), seed=SEEDS)
def test_no_weights_beat_the_minimum(n, m, p, seed):
    rng = np.random.default_rng(seed)
    world = Features(
        n=n, p=(rng.uniform(0.1, 1, n) * p).tolist(), importance=rng.uniform(0, 2, n).tolist()
    )
    W = torch.from_numpy(rng.normal(size=(50, n, m)) * rng.uniform(0, 1, (50, 1, 1)))
    b = torch.from_numpy(rng.normal(size=(50, n)) * 0.1)
    least = linear_minimum(world, m) - 1e-12
    assert expected_loss(W, b, world, output="linear").min() >= least
    assert _loss(W, world).min() >= least


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 8), m=st.integers(1, 9), seed=SEEDS)
def test_the_minimum_is_attained_by_the_most_valuable_features(n, m, seed):
    rng = np.random.default_rng(seed)
    world = Features(
        n=n, p=rng.uniform(0.01, 1, n).tolist(), importance=rng.uniform(0, 2, n).tolist()
    )
    value = world.importances * np.diag(covariance(world))
    W = torch.eye(n)[:, torch.from_numpy(np.argsort(-value)[:m].copy())].double()
    assert _loss(W, world).item() == pytest.approx(linear_minimum(world, m), abs=1e-14)


def test_equal_p_leaves_out_the_least_important():
    p, importance = 0.3, [1.0, 0.2, 0.5, 0.1]
    world = Features(n=4, p=p, importance=importance)
    assert linear_minimum(world, m=2) == pytest.approx((p / 3 - p**2 / 4) * 0.3)


@pytest.mark.parametrize("law", [Features.correlated, Features.anticorrelated])
def test_principal_components_attain_the_minimum_of_a_correlated_world(law):
    world = law(sets=3, size=2, p=[0.2, 0.5, 0.9], importance=[1.0, 1.0, 0.4, 0.4, 2.0, 2.0])
    scale = np.sqrt(world.importances)
    _, vectors = np.linalg.eigh(scale[:, None] * covariance(world) * scale)
    for m in (1, 2, 3, 5):
        W = torch.from_numpy(vectors[:, -m:].copy())
        assert _loss(W, world).item() == pytest.approx(linear_minimum(world, m), abs=1e-14)


def test_the_optimal_bias_is_a_stationary_minimum():
    rng = np.random.default_rng(0)
    world = Features.correlated(sets=2, size=2, p=0.4, importance=0.7)
    W = torch.from_numpy(rng.normal(size=(4, 2)))
    b = linear_optimal_bias(W, world)
    best = expected_loss(W, b, world, output="linear")
    for i in range(4):
        for step in (-1e-3, 1e-3):
            moved = b.clone()
            moved[i] += step
            rise = expected_loss(W, moved, world, output="linear") - best
            assert rise.item() == pytest.approx(world.importances[i] * 1e-6, rel=1e-6)


def test_correlated_features_of_unequal_importance_are_refused():
    world = Features.correlated(sets=1, size=2, p=0.5, importance=0.5)
    with pytest.raises(ValueError, match=r"features 0 and 1 .* share their importance"):
        linear_minimum(world, m=1)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match=r"linear_minimum\(m=-1\).*at least 0"):
        linear_minimum(Features(n=2), m=-1)
    with pytest.raises(ValueError, match=r"linear_optimal_bias.*n=3"):
        linear_optimal_bias(torch.zeros(2, 1), Features(n=3))
