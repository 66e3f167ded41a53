"""The dense step against autograd in float64.

Values are multiples of small powers of two, so that pre-activations are exact in float32 as well:
both sides see the same sign of each, and many are exactly zero.
"""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superpose.kernels import dense

TILE = dense.TILE
FLAGS = list(product([False, True], repeat=4))
NAMES = ("relu", "output", "tied", "absolute")
FLAG_IDS = [
    "-".join(n for n, f in zip(NAMES, flags, strict=True) if f) or "none" for flags in FLAGS
]
SHAPES = [(1, 1), (5, 1), (1, 3), (4, 4), (3, 7), (20, 5), (49, 6), (97, 9), (100, 20)]


def _grid(rng, shape, unit, most=1.0):
    steps = round(most / unit)
    return (rng.integers(-steps, steps + 1, shape) * unit).astype(np.float32)


def _example(shape, flags, seed=0):
    """A tile `[n, TILE]` with zeros and negative values in it, parameters and importances."""
    n, m = shape
    rng = np.random.default_rng([seed, n, m])
    tile = np.where(rng.random((n, TILE)) < 0.5, _grid(rng, (n, TILE), 1 / 16), 0)
    matrices = [_grid(rng, (n, m), 1 / 16) for _ in range(1 if flags[2] else 2)]
    b = _grid(rng, n, 1 / 8)
    importance = rng.integers(1, 9, n) / 8
    return tile.astype(np.float32), [*matrices, b], importance.astype(np.float32)


def _plain(tile, parameters, importance, l1, flags):
    """The loss summed over the tile and its gradients, in float64."""
    hidden_relu, output_relu, _, absolute = flags
    theta = [torch.from_numpy(each).double().requires_grad_() for each in parameters]
    x = torch.from_numpy(tile).double().T
    h = x @ theta[0]
    h = h.relu() if hidden_relu else h
    out = h @ theta[-2].T + theta[-1]
    out = out.relu() if output_relu else out
    y = x.abs() if absolute else x
    loss = (torch.from_numpy(importance).double() * (y - out) ** 2).sum() + l1 * h.abs().sum()
    loss.backward()
    return loss.item(), [each.grad.numpy() for each in theta]


def _fused(tile, parameters, importance, l1, flags):
    n, m = parameters[0].shape
    theta = np.concatenate([each.ravel() for each in parameters])
    slope = np.ones_like(theta)
    work = np.full(dense.work_size(n, m), np.nan, np.float32)
    loss = dense.add_gradient(
        tile.ravel(), tile.shape[1], work, theta, slope, importance, np.float32(l1), (n, m), flags
    )
    ends = np.cumsum([each.size for each in parameters])[:-1]
    gradients = np.split(slope - 1, ends)
    return loss, [g.reshape(p.shape) for g, p in zip(gradients, parameters, strict=True)]


def _agree(tile, parameters, importance, l1, flags):
    loss, gradients = _fused(tile, parameters, importance, l1, flags)
    expected_loss, expected = _plain(tile, parameters, importance, np.float32(l1), flags)
    assert loss == pytest.approx(expected_loss, rel=2e-6)
    for gradient, right in zip(gradients, expected, strict=True):
        assert np.abs(gradient - right).max() <= 2e-6 * (1 + np.abs(right).max())


@pytest.mark.parametrize("l1", [0.0, 0.1])
@pytest.mark.parametrize("flags", FLAGS, ids=FLAG_IDS)
def test_loss_and_gradients_are_those_of_autograd(flags, l1):
    for shape in SHAPES:
        _agree(*_example(shape, flags), l1, flags)


@pytest.mark.parametrize("l1", [0.0, 0.1])
@pytest.mark.parametrize("flags", FLAGS, ids=FLAG_IDS)
def test_edges_are_those_of_autograd(flags, l1):
    for shape in [(1, 1), (7, 3), (2, 6)]:
        tile, (*matrices, b), importance = _example(shape, flags)
        nothing = [np.zeros_like(each) for each in matrices]
        _agree(np.zeros_like(tile), [*matrices, b], importance, l1, flags)
        _agree(tile, [*matrices, np.zeros_like(b)], importance, l1, flags)
        _agree(tile, [*matrices, b - 100], importance, l1, flags)
        _agree(tile, [*nothing, b], importance, l1, flags)
        _agree(tile, [*nothing, np.zeros_like(b)], importance, l1, flags)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 14)),
    flags=st.sampled_from(FLAGS),
    seed=st.integers(0, 999),
)
def test_any_shape_agrees(shape, flags, seed):
    _agree(*_example(shape, flags, seed), 0.1, flags)


@pytest.mark.parametrize("flags", FLAGS, ids=FLAG_IDS)
def test_nan_reaches_the_loss_and_the_slopes(flags):
    tile, parameters, importance = _example((6, 3), flags)
    parameters[0][2, 1] = np.nan
    loss, gradients = _fused(tile, parameters, importance, 0.0, flags)
    assert np.isnan(loss)
    assert all(np.isnan(each).any() for each in gradients)


def test_a_tile_weighs_nothing_in_another_tiles_gradient():
    flags = (True, True, True, False)
    first, parameters, importance = _example((9, 4), flags)
    second = _example((9, 4), flags, seed=1)[0]
    theta = np.concatenate([each.ravel() for each in parameters])
    slope, work = np.zeros_like(theta), np.zeros(dense.work_size(9, 4), np.float32)
    for tile in (first, second):
        dense.add_gradient(
            tile.ravel(),
            tile.shape[1],
            work,
            theta,
            slope,
            importance,
            np.float32(0.1),
            (9, 4),
            flags,
        )
    apart = [_fused(tile, parameters, importance, 0.1, flags)[1] for tile in (first, second)]
    together = np.concatenate([(a + b).ravel() for a, b in zip(*apart, strict=True)])
    assert slope == pytest.approx(together, rel=1e-5, abs=1e-4)
