import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch.autograd.functional import hessian

from superpose.features import Features
from superpose.theory.dynamics import (
    hessian_learning_coefficient,
    linear_flow,
    linear_learning_coefficient,
)
from superpose.theory.moments import covariance, mean

SEEDS = st.integers(0, 2**32 - 1)


def _loss(world, W, b):
    """The linear model's loss from the moments, written out apart from the library's."""
    R = torch.eye(world.n, dtype=torch.float64) - W @ W.T
    mu, sigma = torch.from_numpy(mean(world)), torch.from_numpy(covariance(world))
    errors = (R @ sigma @ R.T).diagonal() + (R @ mu - b) ** 2
    return (torch.from_numpy(world.importances) * errors).sum()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 2), (3, 5)])
def test_the_flow_is_the_numerically_integrated_one(n, m):
    world = Features(n=n, p=0.6, importance=[1.7] * n)
    W = torch.from_numpy(np.random.default_rng(n).normal(size=(n, m)) * 0.7)
    mu = torch.from_numpy(mean(world))

    def downhill(_, flat):
        at = torch.from_numpy(flat).reshape(n, m).requires_grad_()
        b = (mu - at @ (at.T @ mu)).detach()
        return -torch.autograd.grad(_loss(world, at, b), at)[0].numpy().ravel()

    times = np.array([0.0, 0.3, 1.0, 4.0, 10.0])
    path = solve_ivp(
        downhill, (0, 10), W.numpy().ravel(), t_eval=times, method="DOP853", rtol=1e-9, atol=1e-11
    )
    expected = path.y.T.reshape(-1, n, m)
    found = linear_flow(W, world, torch.from_numpy(times)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_missing_direction_is_never_learned_and_a_right_one_stays():
    W = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    late = linear_flow(W, Features(n=3, p=0.5), torch.tensor([0.0, 1e6]))
    torch.testing.assert_close(late, W.double().expand(2, 3, 2))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 5), m=st.integers(1, 5))
def test_every_start_of_full_rank_ends_in_the_global_minimum(seed, n, m):
    world = Features(n=n, p=0.4)
    W = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, m)))
    end = linear_flow(W, world, torch.tensor([1e6]))[0]
    squares = torch.linalg.svdvals(end) ** 2
    torch.testing.assert_close(squares, torch.ones_like(squares), atol=1e-6, rtol=0)


def test_the_flow_turns_with_the_model():
    rng = np.random.default_rng(3)
    W = torch.from_numpy(rng.normal(size=(4, 2)))
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(2, 2)))[0])
    world, times = Features(n=4, p=0.3), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(
        linear_flow(W @ turn, world, times), linear_flow(W, world, times) @ turn
    )


@pytest.mark.parametrize(
    "world",
    [
        Features(n=4, p=[0.1, 0.2, 0.2, 0.2]),
        Features(n=4, importance=0.5),
        Features.correlated(sets=2, size=2, p=0.3),
    ],
)
def test_a_world_whose_singular_vectors_turn_is_refused(world):
    with pytest.raises(ValueError, match=r"linear_flow.*one variance and one importance"):
        linear_flow(torch.ones(4, 2), world, torch.tensor([1.0]))


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"linear_flow: W has shape \[2, 1\].*n=3"):
        linear_flow(torch.ones(2, 1), Features(n=3), torch.tensor([1.0]))


WORLDS = {
    "equal": Features(n=5, p=0.3),
    "distinct": Features(n=5, p=0.3, importance=0.7),
    "tied in the middle": Features(n=5, p=[0.9, 0.4, 0.4, 0.4, 0.1]),
    "correlated": Features.correlated(sets=2, size=2, p=0.3),
    "anticorrelated": Features.anticorrelated(sets=1, size=4, p=0.8),
}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("m", [1, 2, 3, 6])
def test_the_learning_coefficient_is_half_the_rank_of_the_hessian(name, m):
    world = WORLDS[name]
    n, scale = world.n, np.sqrt(world.importances)
    _, vectors = np.linalg.eigh(scale[:, None] * covariance(world) * scale)
    kept = min(n, m)
    rng = np.random.default_rng(m)
    W = np.zeros((n, m))
    W[:, :kept] = vectors[:, n - kept :]
    W = torch.from_numpy(W @ np.linalg.qr(rng.normal(size=(m, m)))[0])
    mu = torch.from_numpy(mean(world))
    b = mu - W @ (W.T @ mu)

    def with_bias(at):
        return _loss(world, at[: n * m].reshape(n, m), at[n * m :])

    def with_best_bias(at):
        at = at.reshape(n, m)
        return _loss(world, at, mu - at @ (at.T @ mu))

    for bias, loss, at in [
        (True, with_bias, torch.cat((W.ravel(), b))),
        (False, with_best_bias, W.ravel()),
    ]:
        found = hessian_learning_coefficient(hessian(loss, at))
        assert found == linear_learning_coefficient(world, m, bias=bias)


@pytest.mark.parametrize(("n", "m"), [(6, 2), (10, 3), (7, 6)])
def test_equal_features_have_the_coefficient_of_the_stiefel_manifold(n, m):
    assert linear_learning_coefficient(Features(n=n), m, bias=False) == m * (m + 1) / 4


def test_without_dimensions_only_the_bias_counts():
    assert linear_learning_coefficient(Features(n=6), 0) == 3


def test_degenerate_minima_are_refused():
    with pytest.raises(ValueError, match="no importance"):
        linear_learning_coefficient(Features(n=3, importance=[1.0, 0.0, 1.0]), 1)
    p = 0.5
    least = (p / 3 - p**2 / 4) / (1 / 3 - 1 / 4)
    world = Features(n=2, p=[p, 1.0], importance=[1.0, least])
    with pytest.raises(ValueError, match="another importance"):
        linear_learning_coefficient(world, 1)


def test_a_saddle_has_no_learning_coefficient():
    assert math.isnan(hessian_learning_coefficient(torch.diag(torch.tensor([1.0, -0.1]))))


def test_times_before_the_start_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        linear_flow(torch.ones(2, 1), Features(n=2), torch.tensor([-1.0]))
