import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.measures import coherence, frame_potential
from superpose.theory.bounds import (
    almost_orthogonal,
    interference_bound,
    linear_readout_floor,
    random_coherence,
    welch_bound,
)

SEEDS = st.integers(0, 2**32 - 1)


def _directions(rng, n, m):
    W = rng.normal(size=(n, m))
    return W / np.linalg.norm(W, axis=1, keepdims=True)


def _simplex(d):
    corners = np.eye(d + 1) - 1 / (d + 1)
    axes = np.linalg.svd(corners)[2][:d]
    W = corners @ axes.T
    return torch.from_numpy(W / np.linalg.norm(W, axis=1, keepdims=True))


def _harmonic_frame(n, m):
    """A tight frame of unit rows: m columns of the real Fourier basis of n points."""
    turn = 2 * np.pi * np.outer(np.arange(n), np.arange(1, m // 2 + 1)) / n
    return torch.from_numpy(np.hstack((np.cos(turn), np.sin(turn))) / math.sqrt(m / 2))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 6), order=st.integers(1, 4), seed=SEEDS)
def test_no_directions_are_below_the_bounds(n, m, order, seed):
    W = torch.from_numpy(_directions(np.random.default_rng(seed), n, m))
    assert coherence(W).item() >= welch_bound(n, m, order=order) - 1e-7
    assert frame_potential(W).item() >= interference_bound(n, m) + n - 1e-9


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 10), m=st.integers(1, 5), seed=SEEDS)
def test_no_readout_is_below_the_bounds(n, m, seed):
    rng = np.random.default_rng(seed)
    W, R = rng.normal(size=(2, n, m))
    R = R / (R * W).sum(1, keepdims=True)
    cross = R @ W.T - np.eye(n)
    assert (cross**2).sum() >= interference_bound(n, m) - 1e-9
    assert np.abs(cross).max() >= welch_bound(n, m) - 1e-9


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_simplices_reach_the_welch_bound(d):
    W = _simplex(d)
    assert coherence(W).item() == pytest.approx(welch_bound(d + 1, d)) == pytest.approx(1 / d)


def test_the_diagonals_of_an_icosahedron_reach_the_first_two_orders():
    golden = (1 + math.sqrt(5)) / 2
    axes = [np.roll((0, s, golden), turn) for s in (-1, 1) for turn in range(3)]
    W = torch.from_numpy(np.array(axes) / math.hypot(1, golden))
    for order in (1, 2):
        assert coherence(W).item() == pytest.approx(welch_bound(6, 3, order=order))


@pytest.mark.parametrize(("n", "m"), [(5, 2), (7, 4), (9, 6)])
def test_tight_frames_reach_the_total_interference(n, m):
    W = _harmonic_frame(n, m)
    assert frame_potential(W).item() == pytest.approx(interference_bound(n, m) + n)


def test_higher_orders_are_stronger_for_many_directions():
    assert welch_bound(6, 2, order=3) > welch_bound(6, 2, order=2) > welch_bound(6, 2)
    assert welch_bound(4, 3) > welch_bound(4, 3, order=2)


def test_room_for_all_needs_no_overlap():
    assert welch_bound(3, 3) == welch_bound(1, 5) == interference_bound(3, 5) == 0


def test_a_tight_frame_reads_out_at_the_floor():
    n, m, k = 9, 6, 2.0
    W = _harmonic_frame(n, m).numpy()
    rng = np.random.default_rng(0)
    x = (rng.random((100_000, n)) < k / n) * rng.choice([-1.0, 1.0], (100_000, n))
    noise = ((x @ W @ W.T - x) ** 2).mean(1)
    error = 4 * noise.std() / len(noise) ** 0.5
    assert noise.mean() == pytest.approx(linear_readout_floor(n, m, k), abs=error)


@pytest.mark.parametrize(("n", "m"), [(300, 100), (100, 10), (50, 3), (2, 2)])
def test_random_directions_have_their_coherence(n, m):
    rng = np.random.default_rng(n)
    found = [coherence(torch.from_numpy(_directions(rng, n, m))).item() for _ in range(60)]
    error = 4 * np.std(found) / len(found) ** 0.5
    assert random_coherence(n, m) == pytest.approx(np.mean(found), abs=error + 0.01 * (1 - 1 / m))


def test_random_coherence_of_a_pair_is_exact():
    # Of two directions in the plane, E |cos| = 2 / pi.
    assert random_coherence(2, 2) == pytest.approx(2 / math.pi, abs=1e-7)


def test_the_largest_overlap_is_below_the_rule_of_thumb_and_above_welch():
    for n, m in [(1000, 100), (5000, 50), (10**6, 1000)]:
        assert welch_bound(n, m) < random_coherence(n, m) < math.sqrt(4 * math.log(n) / m)


@pytest.mark.parametrize(("m", "epsilon"), [(40, 0.6), (20, 0.8), (100, 0.4)])
def test_almost_orthogonal_directions_are_found_by_chance(m, epsilon):
    n = int(almost_orthogonal(m, epsilon))
    rng = np.random.default_rng(m)
    good = sum(
        coherence(torch.from_numpy(_directions(rng, n, m))).item() <= epsilon for _ in range(40)
    )
    # At least half are promised; four deviations below it would be 7.
    assert good >= 8


@settings(max_examples=60, deadline=None)
@given(m=st.integers(2, 3000), epsilon=st.floats(0.02, 0.98), failure=st.floats(0.01, 0.99))
def test_the_number_grows_exponentially_with_the_dimension(m, epsilon, failure):
    n = almost_orthogonal(m, epsilon, failure=failure)
    assert n + 1 >= math.sqrt(failure) * math.exp(m * epsilon**2 / 4)
    assert n >= almost_orthogonal(m, epsilon * 0.9, failure=failure)


def test_the_union_bound_is_used_up():
    m, epsilon = 30, 0.5
    rng = np.random.default_rng(1)
    W = _directions(rng, 2000, m)
    tail = np.mean([abs(W[i] @ W[j]) > epsilon for i, j in combinations(range(600), 2)])
    n = almost_orthogonal(m, epsilon)
    assert math.comb(int(n), 2) * tail == pytest.approx(0.5, rel=0.15)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"welch_bound\(n=5, m=0, order=1\): m must be"):
        welch_bound(5, 0)
    with pytest.raises(ValueError, match="n and m must be a whole number of at least 2"):
        random_coherence(1, 1)
    with pytest.raises(ValueError, match=r"almost_orthogonal\(epsilon=1, failure=0.5\)"):
        almost_orthogonal(10, 1.0)
    with pytest.raises(ValueError, match=r"lies in \[0, 10\]"):
        linear_readout_floor(10, 5, 11)


def test_more_directions_than_a_float_holds_are_infinitely_many():
    # From m = 850 on the tail passes through the subnormal numbers to 0.
    for m in range(840, 900):
        assert almost_orthogonal(m, 0.9) > 1e148
