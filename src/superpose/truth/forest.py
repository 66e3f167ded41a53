"""Hierarchies: features that fire only where their parent does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Forest:
    """Who is whose parent: a feature is on only where its parent is.

    `parent` holds the parent of each node, −1 for a root. Where a node is `exclusive`, at most one
    of its children is on: each is a candidate with its own probability, and of several candidates
    one is chosen uniformly. Where it is `scaled`, its children are multiplied by its value over its
    mean. Nodes are features by number, unless `feature` gives each its feature, or −1 to a group:
    a node that is always on where its parent is, and stands for no feature.
    Raises ValueError for parents that are no nodes or go round in circles, and for features that
    occur twice.

    >>> forest = Forest([-1, 0, 0, 1], exclusive=[True, False, False, False])
    >>> forest.order, forest.children(0)
    (array([0, 1, 2, 3], dtype=int32), array([1, 2], dtype=int32))
    """

    parent: Int[np.ndarray, " nodes"]
    exclusive: Bool[np.ndarray, " nodes"]
    scaled: Bool[np.ndarray, " nodes"]
    feature: Int[np.ndarray, " nodes"]
    depth: Int[np.ndarray, " nodes"]
    start: Int[np.ndarray, " ends"]
    child: Int[np.ndarray, " offspring"]

    def __init__(
        self,
        parent: Sequence[int] | NDArray,
        exclusive: bool | Sequence[bool] | NDArray = False,
        scaled: bool | Sequence[bool] | NDArray = False,
        feature: Sequence[int] | NDArray | None = None,
    ) -> None:
        parents = np.asarray(parent, np.int32)
        nodes = len(parents)
        features = np.arange(nodes) if feature is None else np.asarray(feature)
        _check(parents, features)
        offspring = np.argsort(parents, kind="stable")[np.count_nonzero(parents < 0) :]
        counts = np.bincount(parents[parents >= 0], minlength=nodes)
        values = {
            "parent": parents,
            "exclusive": np.broadcast_to(np.asarray(exclusive, bool), (nodes,)) & (counts > 0),
            "scaled": np.broadcast_to(np.asarray(scaled, bool), (nodes,)) & (counts > 0),
            "feature": features.astype(np.int32),
            "depth": _depth(parents),
            "start": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "child": offspring.astype(np.int32),
        }
        for name, value in values.items():
            value = value.copy()
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @classmethod
    def regular(
        cls,
        n: int,
        *,
        roots: int,
        branching: int,
        depth: int,
        exclusive: bool,
        scaled: bool = False,
    ) -> "Forest":
        """`roots` trees of equal shape: `branching` children each, down to `depth` levels below.

        Features are numbered level by level, so that with probabilities that fall children are
        rarer than their parents; those left over are roots without children, and where there are
        too few the last parents go without. Raises ValueError for sizes below 1.

        >>> Forest.regular(7, roots=2, branching=2, depth=1, exclusive=True).parent
        array([-1, -1,  0,  0,  1,  1, -1], dtype=int32)
        """
        if min(n, roots, branching, depth) < 1:
            raise ValueError(
                f"Forest.regular(n={n}, roots={roots}, branching={branching}, depth={depth}): all "
                "are at least 1"
            )
        level, parent = np.arange(min(roots, n)), np.full(n, -1)
        used = len(level)
        for _ in range(depth):
            below = np.arange(used, min(used + len(level) * branching, n))
            parent[below] = np.repeat(level, branching)[: len(below)]
            level, used = below, used + len(below)
        return cls(parent, exclusive, scaled)

    @property
    def order(self) -> Int[np.ndarray, " nodes"]:
        """The nodes level by level: parents come before their children."""
        return np.argsort(self.depth, kind="stable").astype(np.int32)

    def children(self, node: int | np.integer) -> Int[np.ndarray, " children"]:
        """The children of a node."""
        return self.child[self.start[node] : self.start[node + 1]].copy()

    def compensated(
        self, p: Sequence[float] | NDArray, exact: bool = True
    ) -> Float[np.ndarray, " n"]:
        r"""Own probabilities of the features that make them fire with the probabilities `p` in all.

        Exactly, where features fire independently but for the forest. With `exact=False` by the
        formula of SynthSAEBench, $p_i / p_P \cdot (1 + \sum_{j \ne i} p_j / p_P)$ with the parent P
        and, where it is exclusive, the siblings j, at most 1: the probabilities then are about `p`.
        Raises ValueError where children cannot be as frequent as `p` asks.

        >>> forest = Forest([-1, 0, 0], exclusive=True)
        >>> forest.compensated([0.5, 0.2, 0.1]).round(4)
        array([0.5   , 0.4597, 0.2597])
        """
        given = np.asarray(p, np.float64)
        chance = np.ones(len(self.parent))
        is_feature = self.feature >= 0
        chance[is_feature] = given[self.feature[is_feature]]
        own = given.copy()
        for node in self.order:
            if self.feature[node] < 0 and self.parent[node] >= 0:
                chance[node] = chance[self.parent[node]]
            children = self.children(node)
            children = children[self.feature[children] >= 0]
            if len(children):
                share = chance[children] / chance[node]
                if self.exclusive[node] and len(children) > 1:
                    share = candidacies(share, node) if exact else crowded(share)
                own[self.feature[children]] = _at_most_one(share, node) if exact else share
        return own if exact else np.minimum(own, 1.0)


def crowded(share: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Shares raised by the siblings expected beside each: the published compensation."""
    return share * (1.0 + np.maximum(share.sum() - share, 0.0))


def winning(own: Float[np.ndarray, "*groups k"]) -> Float[np.ndarray, "*groups k"]:
    r"""The chance that each of exclusive candidates is the one: $q_i \int_0^1 \prod_{j \ne i}
    (1 - q_j t) dt$, of which Gauss and Legendre's rule is exact.

    >>> winning(np.array([1.0, 1.0, 1.0, 1.0]))
    array([0.25, 0.25, 0.25, 0.25])
    """
    points, weights = np.polynomial.legendre.leggauss(own.shape[-1] // 2 + 1)
    others = 1.0 - own[..., None] * (points + 1.0) / 2.0
    return own * ((others.prod(-2, keepdims=True) / others) @ weights) / 2.0


def candidacies(share: Float[np.ndarray, " k"], node: int | np.integer) -> Float[np.ndarray, " k"]:
    """Own probabilities of exclusive children that make each the one with the chance of its share.

    Raises ValueError where there are none: the shares are too large.
    """
    own = share.copy()
    for _ in range(100_000):
        found = winning(own)
        if np.abs(found - share).max() < 1e-13:
            return own
        own = own * share / found
        if own.max() > 1.0 + 1e-9:
            break
    raise ValueError(
        f"Forest.compensated: the exclusive children of node {node} take the shares "
        f"{share.round(4).tolist()} of it, in all {share.sum():.4f}, which no own probabilities "
        "give; make them rarer, or pass exact=False for the compensation as published"
    )


def _at_most_one(share: NDArray, node: int | np.integer) -> NDArray:
    if share.max() > 1.0 + 1e-9:
        raise ValueError(
            f"Forest.compensated: a child of node {node} is {share.max():.4f} times as frequent as "
            "its parent, without which it is never on; make it rarer"
        )
    return np.minimum(share, 1.0)


def _check(parents: NDArray, features: NDArray) -> None:
    nodes = len(parents)
    if parents.ndim != 1 or not nodes or parents.min() < -1 or parents.max() >= nodes:
        raise ValueError(
            f"Forest: parents are the numbers of nodes, 0 to {nodes - 1}, or -1 for a root"
        )
    named = features[features >= 0]
    if features.shape != parents.shape or len(np.unique(named)) < len(named):
        raise ValueError("Forest: feature gives each node one of its own, or -1 for a group")


def _depth(parents: NDArray) -> NDArray:
    """How many nodes are above each; raises ValueError where some are under no root."""
    depth = np.where(parents < 0, 0, -1)
    level = 0
    while (below := (depth < 0) & (depth[parents] == level)).any():
        level += 1
        depth[below] = level
    if (depth < 0).any():
        raise ValueError(
            f"Forest: node {int(np.argmax(depth < 0))} is among its own ancestors; every line of "
            "parents ends at a root, -1"
        )
    return depth
