"""Features as nodes of a forest: the tables that the kernels read, and how often each is on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from superpose.kernels.truth.factors import EIGHT, Factors
from superpose.kernels.truth.trees import Trees
from superpose.truth.correlations import LowRank
from superpose.truth.forest import Forest, winning

# Where a score lies beyond so many of its deviations, a node is looked at whatever its draw: 0.6 %
# of them, about as many as the draws leave open for features that fire in one of 2,000 samples.
_REACH = 2.5

# Points of the factors that probabilities are averaged over, so many at a time.
_POINTS, _AT_ONCE = 2048, 32


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """A forest whose nodes are on by themselves, or through factors that they share."""

    forest: Forest
    trees: Trees
    factors: Factors | None

    @classmethod
    def of(
        cls,
        forest: Forest,
        p: Float[np.ndarray, " n"],
        kept: Float[np.ndarray, " n"],
        correlation: LowRank | None = None,
    ) -> "Nodes":
        """Features that fire with p and are above 0 with `kept`; groups are always on."""
        trees = _trees(forest, _of_nodes(forest, p * kept, 1.0))
        if correlation is None:
            return cls(forest, trees, None)
        threshold = _of_nodes(forest, -ndtri(p), -np.inf)
        own = (threshold, _of_nodes(forest, correlation.spread, 1.0), _of_nodes(forest, kept, 1.0))
        return cls(forest, trees, _factors(forest, correlation.factor, own))

    @classmethod
    def of_sets(cls, p: Float[np.ndarray, " sets"], size: int, exclusive: bool) -> "Nodes":
        """Sets of features that are on together, or of which one is: groups with children."""
        sets = len(p)
        parent = np.concatenate([np.full(sets, -1), np.repeat(np.arange(sets), size)])
        feature = np.concatenate([np.full(sets, -1), np.arange(sets * size)])
        forest = Forest(parent, np.arange(len(parent)) < sets * exclusive, feature=feature)
        return cls(forest, _trees(forest, np.concatenate([p, np.ones(sets * size)])), None)

    @property
    def entries(self) -> float:
        """How many nodes are on in a sample, on average; near it where factors are shared."""
        return float(_down(self.forest, self.trees.own).sum())

    def probability(self, n: int) -> Float[np.ndarray, " n"]:
        """How often each of n features is on; a mean over points where factors and forest meet."""
        if self.factors is not None and self.forest.depth.any():
            chance = self._averaged(self.factors)
        else:
            chance = _down(self.forest, self.trees.own)
        found, named = np.empty(n), self.forest.feature >= 0
        found[self.forest.feature[named]] = chance[named]
        return found

    def _averaged(self, factors: Factors) -> Float[np.ndarray, " nodes"]:
        """The mean chance over points of the factors, given each of which nodes are independent."""
        rank, total = factors.rows.shape[1], np.zeros(len(factors.keep))
        # Half a step inside, since the sequence begins at 0, which is infinitely far out.
        points = ndtri(qmc.Sobol(rank, scramble=False).random(_POINTS) + 0.5 / _POINTS)
        for block in points.reshape(-1, _AT_ONCE, rank):
            z = factors.rows @ block.T - factors.threshold[:, None]
            own = factors.keep[:, None] * ndtr(z / factors.spread[:, None])
            total += _down(self.forest, own).sum(1)
        return total / _POINTS


def _of_nodes(forest: Forest, values: NDArray, of_groups: float) -> NDArray:
    found, named = np.full(len(forest.feature), of_groups), forest.feature >= 0
    found[named] = values[forest.feature[named]]
    return found


def _trees(forest: Forest, own: Float[np.ndarray, " nodes"]) -> Trees:
    return Trees(
        order=forest.order,
        parent=forest.parent,
        feature=forest.feature,
        own=own,
        start=forest.start,
        child=forest.child,
        exclusive=forest.exclusive,
        wins=_wins(forest, own),
    )


def _groups(forest: Forest) -> Iterator[NDArray]:
    """Where exclusive children are among all children: `[groups, size]`, one array a size."""
    sizes = np.diff(forest.start)
    for size in np.unique(sizes[forest.exclusive]):
        parents = np.flatnonzero(forest.exclusive & (sizes == size))
        yield forest.start[parents, None] + np.arange(size)


def _wins(forest: Forest, own: Float[np.ndarray, " nodes"]) -> Float[np.ndarray, " children"]:
    """Running sums of the chances of exclusive children to be the one."""
    wins = np.zeros(len(forest.child))
    for places in _groups(forest):
        wins[places] = np.cumsum(winning(own[forest.child[places]]), -1)
    return wins


def _down(forest: Forest, own: Float[np.ndarray, "nodes *points"]) -> NDArray:
    """The chance of every node: its own, or that to be the one, times that of its parent."""
    chance = own.copy()
    for places in _groups(forest):
        candidates = np.moveaxis(own[forest.child[places]], 1, -1)
        chance[forest.child[places]] = np.moveaxis(winning(candidates), -1, 1)
    for depth in range(1, forest.depth.max() + 1):
        (level,) = np.nonzero(forest.depth == depth)
        chance[level] *= chance[forest.parent[level]]
    return chance


def _factors(forest: Forest, factor: NDArray, own: tuple[NDArray, NDArray, NDArray]) -> Factors:
    threshold, spread, keep = own
    rows = np.zeros((len(threshold), factor.shape[1]), np.float32)
    rows[forest.feature >= 0] = factor[forest.feature[forest.feature >= 0]]
    top = np.flatnonzero(forest.parent < 0)
    high = (_REACH * np.linalg.norm(rows[top].astype(np.float64), axis=1)).astype(np.float32)
    most = keep[top] * ndtr((high.astype(np.float64) - threshold[top]) / spread[top])
    cutoff = np.minimum(np.ceil(most * 2.0**32), 2.0**32 - 1.0).astype(np.uint32)
    spare = -len(top) % EIGHT
    return Factors(
        top=np.concatenate([top, np.full(spare, -1)]).astype(np.int32),
        rows=rows,
        columns=np.pad(np.ascontiguousarray(rows[top].T), ((0, 0), (0, spare))),
        high=np.concatenate([high, np.full(spare, np.inf, np.float32)]),
        cutoff=np.concatenate([cutoff, np.zeros(spare, np.uint32)]),
        threshold=threshold,
        spread=spread,
        keep=keep,
    )
