import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from superpose.theory.recovery import (
    guaranteed_sparsity,
    recovery_probability,
    sparse_recovery_dimensions,
    threshold_capacity,
)


def _directions(rng, n, m):
    W = rng.normal(size=(n, m))
    return W / np.linalg.norm(W, axis=1, keepdims=True)


def _simulated(n, m, k, threshold, seed):
    """Share of random supports recovered whole, over dictionaries, and its standard error."""
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(30):
        W = _directions(rng, n, m)
        active = rng.random((60, n)).argsort(1) < k
        shares.append(((active @ W @ W.T > threshold) == active).all(1).mean())
    return np.mean(shares), np.std(shares) / len(shares) ** 0.5


@pytest.mark.parametrize(
    ("n", "m", "k"), [(100, 50, 2), (200, 100, 3), (300, 200, 5), (200, 200, 10)]
)
@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_the_normal_approximation_is_close_and_cautious(n, m, k, threshold):
    true, error = _simulated(n, m, k, threshold, seed=n + m)
    found = recovery_probability(n, m, k, threshold=threshold)
    assert true - 0.08 - 4 * error <= found <= true + 4 * error


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 10**6), m=st.integers(1, 2000), k=st.integers(1, 30))
def test_the_best_threshold_is_best(n, m, k):
    n = n + k
    best = recovery_probability(n, m, k)
    assert 0 <= best <= 1
    for threshold in (0.2, 0.4, 0.5, 0.6, 0.8):
        assert best >= recovery_probability(n, m, k, threshold=threshold) - 1e-9


def test_the_probability_is_its_formula():
    n, m, k, threshold = 50, 30, 3, 0.55
    active = ndtr((1 - threshold) * math.sqrt(m / (k - 1)))
    inactive = ndtr(threshold * math.sqrt(m / k))
    found = recovery_probability(n, m, k, threshold=threshold)
    assert found == pytest.approx(active**k * inactive ** (n - k))


@settings(max_examples=60, deadline=None)
@given(m=st.integers(10, 600), k=st.integers(1, 8), error=st.floats(0.001, 0.5))
def test_the_capacity_is_where_the_probability_falls_below_what_is_asked(m, k, error):
    n = threshold_capacity(m, k, error=error)
    if n == 0:
        assert recovery_probability(k, m, k, threshold=1e-9) < 1 - error
    elif n < 1e12:
        assert recovery_probability(n, m, k) >= (1 - error) * (1 - 1e-6)
        assert recovery_probability(n * 1.001 + 1, m, k) <= 1 - error


def test_capacity_grows_exponentially_in_the_dimension_at_the_rate_of_theory():
    k, sizes = 3, np.array([2000, 3000, 4000])
    logs = np.log([threshold_capacity(int(m), k) for m in sizes])
    slopes = np.diff(logs) / np.diff(sizes)
    # d/dm of m/2k (1 - sqrt(2 k L / m))², where L is the logarithm that the error allows.
    assert (slopes < 1 / (2 * k)).all()
    assert (slopes > 0.8 / (2 * k)).all()
    assert (np.diff(slopes) > 0).all()


def test_capacity_grows_with_room_and_tolerance_and_shrinks_with_activity():
    assert threshold_capacity(200, 3) > threshold_capacity(150, 3)
    assert threshold_capacity(200, 3, error=0.1) > threshold_capacity(200, 3)
    assert threshold_capacity(200, 3) > threshold_capacity(200, 4) > 0
    assert threshold_capacity(10, 8) == 0
    assert threshold_capacity(10_000, 1) == math.inf


@pytest.mark.parametrize(("m", "k", "error"), [(60, 3, 0.5), (40, 2, 0.5), (120, 5, 0.5)])
def test_at_capacity_supports_are_recovered_as_often_as_asked(m, k, error):
    n = int(threshold_capacity(m, k, error=error))
    grid = np.linspace(0.5, 0.95, 91)
    best = max(grid, key=lambda each: recovery_probability(n, m, k, threshold=each))
    true, deviation = _simulated(n, m, k, float(best), seed=m)
    assert 1 - error - 4 * deviation <= true <= 1 - error + 0.25


@settings(max_examples=60, deadline=None)
@given(mu=st.floats(0.001, 1))
def test_the_guarantee_is_the_largest_size_below_its_limit(mu):
    k = guaranteed_sparsity(mu)
    assert k < (1 + 1 / mu) / 2 or k == pytest.approx((1 + 1 / mu) / 2, rel=1e-8)
    assert k + 1 >= (1 + 1 / mu) / 2 * (1 - 1e-8)


def test_guaranteed_supports_are_all_recovered():
    rng = np.random.default_rng(0)
    W = np.vstack((np.eye(64), _hadamard(64) / 8))
    overlap = np.abs(W @ W.T - np.eye(128)).max()
    k = int(guaranteed_sparsity(overlap))
    assert (overlap, k) == (pytest.approx(1 / 8), 4)
    active = rng.random((3000, 128)).argsort(1) < k
    read = active @ W @ W.T
    assert (np.where(active, read, np.inf).min(1) > np.where(active, -np.inf, read).max(1)).all()


def _hadamard(size):
    H = np.ones((1, 1))
    while len(H) < size:
        H = np.block([[H, H], [H, -H]])
    return H


def test_edges_of_the_guarantee():
    assert guaranteed_sparsity(0) == math.inf
    assert guaranteed_sparsity(1) == 0
    assert guaranteed_sparsity(1 / 3) == 1
    assert guaranteed_sparsity(0.3) == 2


def test_compressed_sensing_in_terms_of_p():
    n, p = 400, 0.03
    found = sparse_recovery_dimensions(n, p * n)
    assert found == pytest.approx(-n * p * math.log(p))
    assert sparse_recovery_dimensions(n, n) == 0
    assert sparse_recovery_dimensions(n, 5, constant=2) == 2 * sparse_recovery_dimensions(n, 5)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"sparse_recovery_dimensions\(n=10, k=11\)"):
        sparse_recovery_dimensions(10, 11)
    with pytest.raises(ValueError, match=r"guaranteed_sparsity\(coherence=1.5\)"):
        guaranteed_sparsity(1.5)
    with pytest.raises(ValueError, match=r"recovery_probability\(n=3, m=5, k=4\)"):
        recovery_probability(3, 5, 4)
    with pytest.raises(ValueError, match=r"threshold=1\): between"):
        recovery_probability(9, 5, 4, threshold=1.0)
    with pytest.raises(ValueError, match=r"threshold_capacity\(error=0\)"):
        threshold_capacity(10, 2, error=0.0)
