# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""Training on a CPU, fused: draw, forward, backward and AdamW for one model at a time, in cache.

A batch is never materialised. A step counts the samples that are not empty (all features off),
draws only those, a tile at a time, and adds up gradients tile by tile; the empty ones all have
the same gradient, added in one go. The last tile is filled up with empty samples, which the bulk
then takes off again.

There are four ways through a tile (`small`, `dense`, `mixed`, `sparse`); `way` says which one is
taken.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import numpy as np

from superpose.features import Features, Finite
from superpose.kernels import dense, draws, hashing, mixed, small, sparse
from superpose.kernels.compiling import FASTMATH, compiled, inner
from superpose.kernels.lanes import LANES
from superpose.kernels.products import STEP
from superpose.kernels.streams import Tables
from superpose.models import ToyModel

VERSION = "cpu-3"
"""Changes whenever a result may change in any bit; recorded with every run."""

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.AdamW's defaults
ZERO = np.float32(0.0)
SMALL, DENSE, SPARSE, GRAM, POINTS, MIXED = range(6)
SMALL_AT_MOST = 128
"""Weights of a matrix whose shape is compiled in: at (20, 5) the dense way is as fast."""

Way = Literal["small", "dense", "mixed", "sparse"]


class Recipe(NamedTuple):
    """How to train, as the kernel sees it."""

    importance: np.ndarray  # [n] float32
    batch: int
    decay: float
    l1: float
    first: int  # steps done before


def way(model: ToyModel, world: Features) -> Way:
    """Which way through a step is taken: a function of n, m, the flags and p.

    Small models have their shape compiled in. Samples are lists of active features in finite
    worlds and where few of many are active; where many outputs are on all the same, or p is a
    little higher, only the inputs are lists.
    """
    if isinstance(world.law, Finite):
        return "sparse"
    if model.n * model.m <= SMALL_AT_MOST:
        return "small"
    active = float(world.probability.sum())
    # Of linear outputs all are on, and the sparse way follows those that are.
    pays = model.output == "relu" and sparse.pays(model.n, model.m, active)
    if pays:
        return "sparse"
    return "mixed" if mixed.pays(model.n, model.m, active) else "dense"


def _kind(model: ToyModel, world: Features) -> int:
    taken = way(model, world)
    if taken != "sparse":
        return {"small": SMALL, "dense": DENSE, "mixed": MIXED}[taken]
    if isinstance(world.law, Finite):
        return POINTS
    active = float(world.probability.sum())
    gram = model.hidden == "linear" and sparse.uses_gram(model.n, model.m, active)
    return GRAM if gram else SPARSE


def train(
    model: ToyModel,
    world: Features,
    law: Tables,
    recipe: Recipe,
    stack: tuple[np.ndarray, np.ndarray, np.ndarray],
    pace: tuple[np.ndarray, np.ndarray],
) -> None:
    """Train a stack of models of one world in place, `rates.shape[1]` steps from `recipe.first`.

    `stack` is theta `[R, P]`, the AdamW moments `[R, 2, P]` and the models' keys `[R]`; `pace`
    is the learning rates `[1 or R, steps]` and where to write the loss of every step's batch,
    before its update, with the l1 term: `[R, steps]`, or `[R, 0]` for not at all.
    """
    rates, losses = pace
    kind = _kind(model, world)
    variant = small.variant(model, recipe.l1 != 0.0, losses.shape[1] > 0)
    gradient = small.gradient(model.n, model.m, variant).address if kind == SMALL else 0
    about = ((model.n, model.m), flags(model), gradient, _room(kind, model.n, model.m))
    correction = corrections(recipe.first, rates.shape[1])
    _loop(kind)(stack, (rates, correction, losses), law, recipe, about)


def _room(kind: int, n: int, m: int) -> int:
    """How many numbers a step works with beside the tile."""
    if kind == SMALL:
        return small.work_size(n, m)
    if kind == MIXED:
        return mixed.work_size(n, m)
    return dense.work_size(n, m) if kind == DENSE else sparse.work_size(n, m, kind == GRAM)


def flags(model: ToyModel) -> tuple[bool, bool, bool, bool]:
    """A model's flags as the kernels see them: hidden ReLU, output ReLU, tied, target |x|."""
    return model.hidden == "relu", model.output == "relu", model.tied, model.target == "abs"


@lru_cache(maxsize=64)
def corrections(first: int, steps: int) -> np.ndarray:
    """What AdamW's moments are short of in each step, `[2, steps]`: 1/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ)."""
    t = np.arange(first + 1, first + steps + 1, dtype=np.float64)
    return np.stack([1.0 / (1.0 - BETA1**t), 1.0 / np.sqrt(1.0 - BETA2**t)]).astype(np.float32)


@cache
def _loop(kind: int) -> Callable[..., None]:
    """The training loop of one way."""
    # Only plain numbers may be captured: they are what the cache on disk tells functions apart by.

    def train(stack, pace, law, recipe, about):
        theta, moments, keys = stack
        rates, correction, losses = pace
        shape, flags, gradient, room = about
        length = small.length(shape[0]) if kind == SMALL else dense.TILE
        entries = shape[0] * length if kind in (SPARSE, GRAM, MIXED) else 0
        tile = np.zeros(shape[0] * length, np.float32)
        slope = np.zeros(theta.shape[1], np.float32)
        work = np.empty(room, np.float32)
        purposes, members = np.empty(4, np.uint64), np.empty(shape[0], np.uint64)
        step_keys = (purposes, np.empty(len(law.on), np.uint64), members)
        scratch = (np.empty(draws.TILE, np.uint32), np.empty(draws.TILE, np.float32))
        start = np.empty(length + 1, np.int64)
        lists = (start, np.empty(entries, np.int32), np.empty(entries, np.float32))
        samples = len(law.start) - 1 if kind == POINTS else recipe.batch
        mean, l1 = np.float32(1.0 / samples), np.float32(recipe.l1)
        # Made here, since every mention of an array in a loop costs as much as a short loop.
        drawing, means = (law, step_keys, scratch), (work, lists, kind == GRAM)
        for r in range(len(theta)):
            weights, memory = theta[r], (moments[r, 0], moments[r, 1])
            given = (weights, slope, recipe.importance, l1, shape, flags)
            for index in range(rates.shape[1]):
                if kind == POINTS:
                    loss, drawn = _points_step(work, law, given), samples
                else:
                    filled = _begin(samples, keys[r], recipe.first + index, drawing)
                    if kind == SMALL:
                        loss, drawn = _small_step(tile, work, filled, drawing, given, gradient)
                    elif kind == DENSE:
                        loss, drawn = _dense_step(tile, work, filled, drawing, given)
                    elif kind == MIXED:
                        loss, drawn = _mixed_step(tile, means, filled, drawing, given)
                    else:
                        loss, drawn = _sparse_step(tile, means, filled, drawing, given)
                loss += add_empty(weights, slope, samples - drawn, recipe.importance, flags[1])
                if losses.shape[1] > 0:
                    losses[r, index] = loss * mean
                rate = rates[min(r, len(rates) - 1), index]
                sizes = (rate, np.float32(rate * recipe.decay), mean)
                _adamw(weights, memory, slope, sizes, (correction[0, index], correction[1, index]))

    return compiled(train)


@inner
def _begin(samples, key, step, drawing):
    """Make the keys of a step; gives how many samples are drawn."""
    law, keys, _ = drawing
    draws.step_keys(key, step, law, keys)
    return draws.count_filled(samples, law, keys[0][hashing.COUNT])


@inner
def _small_step(tile, work, filled, drawing, given, gradient):
    """Loss of the samples that a step draws, and how many columns of tiles they took."""
    law, keys, scratch = drawing
    weights, slope, importance, l1, shape, flags = given
    drawn, loss, length = 0, ZERO, small.length(shape[0])
    while drawn < filled:
        count = min(length, filled - drawn)
        width = (count + LANES - 1) // LANES * LANES
        draws.draw_tile(tile, width, (drawn, count, width), law, keys, scratch)
        loss += small.add_gradient(
            gradient, tile, width, work, weights, slope, importance, l1, shape, flags[2]
        )
        drawn += width
    return loss, drawn


@inner
def _dense_step(tile, work, filled, drawing, given):
    law, keys, scratch = drawing
    weights, slope, importance, l1, shape, flags = given
    drawn, loss = 0, ZERO
    while drawn < filled:
        count = min(dense.TILE, filled - drawn)
        width = (count + STEP - 1) // STEP * STEP
        draws.draw_tile(tile, width, (drawn, count, width), law, keys, scratch)
        loss += dense.add_gradient(tile, width, work, weights, slope, importance, l1, shape, flags)
        drawn += width
    return loss, drawn


# These two call what makes arrays of its own, which `inner` functions may not.
@compiled
def _sparse_step(tile, means, filled, drawing, given):
    law, keys, scratch = drawing
    work, (start, column, value), gram = means
    weights, slope, importance, l1, shape, flags = given
    ways = (flags[0], flags[1], flags[2], flags[3], gram)
    sparse.prepare(work, weights, shape, ways)
    loss = ZERO
    for drawn in range(0, filled, sparse.TILE):
        count = min(sparse.TILE, filled - drawn)
        draws.draw_tile(tile, sparse.TILE, (drawn, count, sparse.TILE), law, keys, scratch)
        sparse.gather(tile, count, shape[0], start, column, value)
        rows = (start, column, value, 0, count)
        loss += sparse.add_gradient_rows(rows, work, weights, slope, importance, l1, shape, ways)
    sparse.finish(work, slope, shape, ways)
    return loss, filled


@compiled
def _mixed_step(tile, means, filled, drawing, given):
    law, keys, scratch = drawing
    work, lists, _ = means
    weights, slope, importance, l1, shape, flags = given
    mixed.prepare(work, weights, shape)
    drawn, loss = 0, ZERO
    while drawn < filled:
        count = min(dense.TILE, filled - drawn)
        width = (count + STEP - 1) // STEP * STEP
        draws.draw_tile(tile, dense.TILE, (drawn, count, dense.TILE), law, keys, scratch)
        sparse.gather(tile, count, shape[0], *lists)
        loss += mixed.add_gradient(
            tile, width, lists, work, weights, slope, importance, l1, shape, flags
        )
        drawn += width
    mixed.finish(work, slope, shape)
    return loss, drawn


@compiled
def _points_step(work, law, given):
    weights, slope, importance, l1, shape, flags = given
    ways = (flags[0], flags[1], flags[2], flags[3], False)
    sparse.prepare(work, weights, shape, ways)
    rows = (law.start, law.column, law.entry, 0, len(law.start) - 1)
    loss = sparse.add_gradient_rows(rows, work, weights, slope, importance, l1, shape, ways)
    sparse.finish(work, slope, shape, ways)
    return loss


@compiled(fastmath=FASTMATH, forceinline=True)
def add_empty(weights, slope, count, importance, output_relu):
    """The loss of empty samples, which have h = 0 and x̂ = g(b): only the bias feels it."""
    n = len(importance)
    bias = len(weights) - n
    loss = ZERO
    for i in range(n):
        b = weights[bias + i]
        if not output_relu or not b <= ZERO:
            slope[bias + i] += np.float32(2 * count) * importance[i] * b
            loss += importance[i] * b * b
    return np.float32(count) * loss


@inner(fastmath=FASTMATH)
def _adamw(weights, moments, slope, sizes, correction):
    """One step of torch.optim.AdamW (decay is decoupled, and applies to b as well).

    The slopes are cleared for the next.
    """
    first, second = moments
    rate, fading, mean = sizes
    fade = np.float32(1.0) - fading
    size, root = rate * correction[0], correction[1]
    for j in range(len(weights)):
        d = slope[j] * mean
        f = np.float32(BETA1) * first[j] + np.float32(1.0 - BETA1) * d
        s = np.float32(BETA2) * second[j] + np.float32(1.0 - BETA2) * d * d
        first[j] = f
        second[j] = s
        slope[j] = ZERO
        weights[j] = weights[j] * fade - size * f / (np.sqrt(s) * root + np.float32(EPSILON))
