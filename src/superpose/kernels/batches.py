"""What the kernels see and compute in one step, as arrays: for checks, and for the plain path."""

from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from superpose.features import Features, Finite
from superpose.kernels import cpu, dense, draws, hashing, mixed, small, sparse
from superpose.kernels.compiling import compiled
from superpose.kernels.lanes import LANES
from superpose.kernels.products import STEP
from superpose.kernels.streams import tables
from superpose.models import ToyModel


def draw_batch(world: Features, batch: int, key: int, step: int) -> np.ndarray:
    """The batch `[batch, n]` that the kernels train on at `step`, its empty samples last.

    A finite world's batch is all its points.
    """
    if isinstance(world.law, Finite):
        return world.law.points.matrix.toarray().astype(np.float32)
    return _draw(world.n, tables(world, batch), batch, np.uint64(key), step)


@compiled
def _draw(n, law, batch, key, step):
    keys = (np.empty(4, np.uint64), np.empty(len(law.on), np.uint64), np.empty(n, np.uint64))
    scratch = (np.empty(draws.TILE, np.uint32), np.empty(draws.TILE, np.float32))
    draws.step_keys(key, step, law, keys)
    filled = draws.count_filled(batch, law, keys[0][hashing.COUNT])
    tile = np.empty(n * draws.TILE, np.float32)
    out = np.zeros((batch, n), np.float32)
    for begin in range(0, filled, draws.TILE):
        count = min(draws.TILE, filled - begin)
        width = (count + LANES - 1) // LANES * LANES
        draws.draw_tile(tile, draws.TILE, (begin, count, width), law, keys, scratch)
        for t in range(count):
            for i in range(n):
                out[begin + t, i] = tile[i * draws.TILE + t]
    return out


def batch_gradient(
    model: ToyModel,
    x: np.ndarray,
    theta: np.ndarray,
    importance: np.ndarray,
    l1: float = 0.0,
    way: Literal["small", "dense", "mixed", "sparse", "gram"] = "small",
) -> tuple[float, np.ndarray]:
    """Loss of the batch x `[batch, n]` and its gradient by theta `[P]`, as a kernel has them."""
    filled = x[(x != 0).any(1)].astype(np.float32)
    slope, weight = np.zeros(len(theta), np.float32), np.float32(l1)
    given = (theta.astype(np.float32), slope, importance.astype(np.float32), weight)
    add = {"small": _add_small, "dense": _add_dense, "mixed": _add_mixed}.get(way, _add_sparse)
    loss, drawn = add(model, filled, given, way == "gram")
    loss += cpu.add_empty(given[0], slope, len(x) - drawn, given[2], model.output == "relu")
    return float(loss) / len(x), slope / np.float32(len(x))


def _tiles(x, length, step):
    """Feature-major tiles of the samples, and their width: as many as there are, in whole steps."""
    for start in range(0, len(x), length):
        part = x[start : start + length]
        tile = np.zeros((x.shape[1], -(-len(part) // step) * step), np.float32)
        tile[:, : len(part)] = part.T
        yield tile.ravel(), tile.shape[1]


def _add_small(model, x, given, _):
    shape, loss, drawn = (model.n, model.m), np.float32(0.0), 0
    variant = small.variant(model, given[-1] != 0, True)
    gradient = small.gradient(*shape, variant).address
    work = np.empty(small.work_size(*shape), np.float32)
    for tile, width in _tiles(x, small.length(model.n), LANES):
        loss += small.add_gradient(gradient, tile, width, work, *given, shape, model.tied)
        drawn += width
    return loss, drawn


def _add_dense(model, x, given, _):
    shape, loss, drawn = (model.n, model.m), np.float32(0.0), 0
    work = np.empty(dense.work_size(*shape), np.float32)
    for tile, width in _tiles(x, dense.TILE, STEP):
        loss += dense.add_gradient(tile, width, work, *given, shape, cpu.flags(model))
        drawn += width
    return loss, drawn


def _add_mixed(model, x, given, _):
    theta, slope, _, _ = given
    shape, loss, drawn = (model.n, model.m), np.float32(0.0), 0
    work = np.empty(mixed.work_size(*shape), np.float32)
    lists = (
        np.empty(dense.TILE + 1, np.int64),
        *(np.empty(model.n * dense.TILE, kind) for kind in (np.int32, np.float32)),
    )
    mixed.prepare(work, theta, shape)
    for part, width in _tiles(x, dense.TILE, STEP):
        tile = np.zeros((model.n, dense.TILE), np.float32)
        tile[:, :width] = part.reshape(model.n, width)
        sparse.gather(tile.ravel(), width, model.n, *lists)
        loss += mixed.add_gradient(
            tile.ravel(), width, lists, work, *given, shape, cpu.flags(model)
        )
        drawn += width
    mixed.finish(work, slope, shape)
    return loss, drawn


def _add_sparse(model, x, given, gram):
    theta, slope, _, _ = given
    shape, flags = (model.n, model.m), (*cpu.flags(model), gram)
    work = np.empty(sparse.work_size(*shape, gram), np.float32)
    points = csr_array(x)
    start, column = points.indptr.astype(np.int64), points.indices.astype(np.int32)
    sparse.prepare(work, theta, shape, flags)
    rows = (start, column, points.data, 0, len(x))
    loss = sparse.add_gradient_rows(rows, work, *given, shape, flags)
    sparse.finish(work, slope, shape, flags)
    return loss, len(x)
