"""Sparse batches of features: which are active in which sample, and how large they are."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from superpose.features import Features, Finite
from superpose.kernels.hashing import model_key
from superpose.kernels.truth import factors, rows, trees
from superpose.truth.amplitudes import Folded
from superpose.truth.firing import Circles, Firing, Together
from superpose.truth.nodes import Nodes

World = Features | Firing | Circles | Together

MAGNITUDES, NOISE, SHARED, POINTS = range(4)
"""What the random numbers of a batch are for."""


class Active(NamedTuple):
    """The entries of a batch as CSR: columns ascend within a row."""

    indptr: NDArray
    index: NDArray
    value: NDArray


class Batch(NamedTuple):
    """Which batch it is: its size and number, the seed, and the part of the world."""

    size: int
    number: int
    seed: int
    part: int = 0

    @property
    def key(self) -> int:
        """The key of what fires."""
        return model_key(model_key(self.seed, self.number), self.part)

    def stream(self, purpose: int) -> np.random.Generator:
        """Random numbers for one purpose: Philox, keyed by the seed and the number."""
        key = np.array([self.seed, self.number], np.uint64)
        counter = np.array([0, 0, self.part, purpose], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


class Plan:
    """How a world is drawn: the tables of its parts, made once."""

    def __init__(self, world: World) -> None:
        self.parts = world.parts if isinstance(world, Together) else (world,)
        self.offsets = world.offsets if isinstance(world, Together) else (0,)
        self.n, self.nodes = world.n, [_nodes(part) for part in self.parts]
        self.entries = [0.0 if nodes is None else nodes.entries for nodes in self.nodes]

    def draw(self, size: int, number: int, seed: int) -> Active:
        """The active features of a batch: a function of the world and these numbers alone."""
        drawn = [self._draw(k, Batch(size, number, seed, k)) for k in range(len(self.parts))]
        if len(drawn) == 1:
            return drawn[0]
        row = np.concatenate([np.repeat(np.arange(size), np.diff(one.indptr)) for one in drawn])
        pairs = zip(drawn, self.offsets, strict=True)
        column = np.concatenate([one.index + offset for one, offset in pairs])
        value = np.concatenate([one.value for one in drawn])
        return Active(
            *rows.in_rows(row.astype(np.int32), column.astype(np.int32), value, size, self.n)
        )

    def _draw(self, k: int, batch: Batch) -> Active:
        part, nodes = self.parts[k], self.nodes[k]
        if nodes is None:
            return _points(part, batch)  # pyright: ignore
        row, node, above = _fire(nodes, self.entries[k], batch)
        feature = nodes.forest.feature[node]
        if isinstance(part, Circles):
            return _circles(part, row, feature, batch)
        value = _magnitudes(part, feature, batch)
        if nodes.forest.scaled.any() and isinstance(part, Firing):
            mean = part.mean.astype(np.float32)
            rows.scale(value, node, above, mean, nodes.forest.scaled, nodes.forest.feature)
        return Active(*rows.in_rows(row, feature, value, batch.size, part.n))


def _nodes(part: Features | Firing | Circles) -> Nodes | None:
    """The nodes of a part of a world; None for one of finitely many points."""
    if isinstance(part, Firing):
        return part.nodes
    if isinstance(part, Circles):
        return Firing(n=part.count, p=part.p).nodes
    if isinstance(part.law, Finite):
        return None
    if part.law.size == 1:
        return Firing(n=part.n, p=part.set_probability).nodes
    return Nodes.of_sets(part.set_probability, part.law.size, part.law.exclusive)


def _fire(nodes: Nodes, each: float, batch: Batch) -> tuple[NDArray, NDArray, NDArray]:
    """Row, node and parent's entry of everything that is on; parents come before children."""
    key, mean = np.uint64(batch.key), each * batch.size
    shared, capacity = None, int(mean + 6 * mean**0.5) + 64
    if nodes.factors is not None:
        rank = nodes.factors.rows.shape[1]
        shared = batch.stream(SHARED).standard_normal((batch.size, rank), np.float32)
        # What correlated features add up to varies more, and the kernel wants room for a sample.
        capacity = 2 * capacity + len(nodes.factors.keep)
    while True:
        if nodes.factors is None:
            found = trees.fire(batch.size, key, nodes.trees, capacity)
        else:
            found = factors.fire(key, nodes.trees, nodes.factors, shared, capacity)
        if found[0] >= 0:
            return found[1][: found[0]], found[2][: found[0]], found[3][: found[0]]
        capacity *= 2  # the same draws again, with room for all


def _magnitudes(part: Features | Firing, feature: NDArray, batch: Batch) -> NDArray:
    """Values of entries; those of groups are drawn as well, and mean nothing."""
    u = 1.0 - batch.stream(MAGNITUDES).random(len(feature))
    if isinstance(part, Features):
        return part.active_values(u).astype(np.float32)
    if isinstance(part.amplitude, Folded):
        return part.amplitude.magnitudes(u, feature).astype(np.float32)
    return part.amplitude.magnitudes(u).astype(np.float32)


def _circles(part: Circles, row: NDArray, circle: NDArray, batch: Batch) -> Active:
    """Both coordinates of every active circle."""
    stream = batch.stream(MAGNITUDES)
    size = part.amplitude.magnitudes(1.0 - stream.random(len(row)))
    angle = 2.0 * np.pi * stream.random(len(row))
    value = np.concatenate([size * np.cos(angle), size * np.sin(angle)]).astype(np.float32)
    column = np.concatenate([2 * circle, 2 * circle + 1]).astype(np.int32)
    return Active(*rows.in_rows(np.tile(row, 2), column, value, batch.size, part.n))


def _points(part: Features, batch: Batch) -> Active:
    """Points of a finite world, with replacement."""
    matrix: csr_array = part.law.points.matrix  # pyright: ignore
    drawn: csr_array = matrix[batch.stream(POINTS).integers(0, matrix.shape[0], batch.size)]  # pyright: ignore
    return Active(drawn.indptr.astype(np.int64), drawn.indices.astype(np.int32), drawn.data)
