"""What the kernel sees and computes in one step, as arrays: for checks, and for the plain path."""

from functools import cache

import numpy as np
from numba import njit

from superpose.features import Features
from superpose.kernels.cpu import (
    COUNT,
    FASTMATH,
    TILE,
    Layout,
    add_empty,
    add_gradient,
    count_nonempty,
    draw_tile,
    step_key,
)
from superpose.kernels.streams import thresholds
from superpose.models import ToyModel


def draw_batch(world: Features, batch: int, key: int, step: int) -> np.ndarray:
    """The batch `[batch, n]` that the kernel trains on at `step`, its empty samples last.

    Worlds that are not uniform, which the kernel does not know, turn the same uniform numbers
    into values of their own law.
    """
    x = _batch_drawer(world.n, world.law)(batch, thresholds(world), np.uint64(key), step)
    on = x > 0
    x[on] = world.active_values(x[on])
    return x


@cache
def _batch_drawer(n, law):
    sizes = (law.size, law.exclusive)

    @njit
    def draw(batch, law, key, step):
        keys = np.empty(4, np.uint64)
        for purpose in range(4):
            keys[purpose] = step_key(key, step, purpose)
        filled = count_nonempty(batch, law.nonempty, keys[COUNT])
        tile = np.empty(n * TILE, np.float32)
        out = np.zeros((batch, n), np.float32)
        for start in range(0, filled, TILE):
            count = min(TILE, filled - start)
            draw_tile(tile, n, sizes, (start, count), law, keys)
            for t in range(count):
                for i in range(n):
                    out[start + t, i] = tile[i * TILE + t]
        return out

    return draw


def batch_gradient(
    model: ToyModel, x: np.ndarray, W: np.ndarray, b: np.ndarray, importance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (dW, db) of the batch loss of x `[batch, n]`, as the kernel computes them."""
    n, m = model.n, model.m
    at = Layout.of(n, m)
    tile_gradient = _tile_gradient(model)
    work = np.zeros(at.size, np.float32)
    work[at.W : at.b] = W.ravel()
    work[at.b : at.W_slope] = b
    work[at.importance :] = importance
    filled = x[(x != 0).any(1)]
    for start in range(0, len(filled), TILE):
        tile = filled[start : start + TILE]
        samples = work[: at.g].reshape(n, TILE)
        samples[:] = 0.0
        samples[:, : len(tile)] = tile.T
        tile_gradient(work, (n, m))
    add_empty(work, n, at, len(x) - -(-len(filled) // TILE) * TILE, model.output == "relu")
    mean = np.float32(1.0 / len(x))
    return work[at.W_slope : at.b_slope].reshape(n, m) * mean, work[
        at.b_slope : at.importance
    ] * mean


@cache
def _tile_gradient(model):
    shape, at = (model.n, model.m), Layout.of(model.n, model.m)
    relu = (model.hidden == "relu", model.output == "relu")

    @njit(fastmath=FASTMATH)
    def gradient(work, run_time_shape):
        add_gradient(work, at, shape, run_time_shape, relu)

    return gradient
