"""Hierarchies of SAELens: grown from a configuration, read from JSON and written to it."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from superpose.truth.forest import Forest


def grown(n: int, configuration: Mapping[str, Any], seed: int) -> Forest:
    """The forest of a `hierarchy` section, level by level, with its choices from this seed."""
    rng = random.Random(seed)
    branching, deepest = configuration["branching_factor"], configuration["max_depth"]
    parent, depth = np.full(n, -1), np.zeros(n, int)
    level = np.arange(min(configuration["total_root_nodes"], n))
    used, parents = len(level), []
    for below in range(1, deepest + 1):
        parents += level.tolist()
        begin = used
        for node in level:
            width = branching if isinstance(branching, int) else rng.randint(*branching)
            end = min(used + width, n)
            parent[used:end], depth[used:end], used = node, below, end
        level = np.arange(begin, used)
    counts = np.bincount(parent[parent >= 0], minlength=n)
    first, last = (configuration.get(f"mutually_exclusive_{end}_depth") for end in ("min", "max"))
    last = deepest if last is None else last
    eligible = [p for p in parents if (first or 0) <= depth[p] <= last and counts[p] >= 2]
    portion = configuration.get("mutually_exclusive_portion", 0.0)
    exclusive = np.zeros(n, bool)
    for place in rng.sample(range(len(eligible)), int(len(eligible) * portion)):
        exclusive[eligible[place]] = True
    return Forest(parent, exclusive, bool(configuration.get("scale_children_by_parent", False)))


def parsed(n: int, roots: Any) -> Forest:
    """The forest in a hierarchy.json; raises ValueError for what is none.

    Features keep their numbers as nodes, groups come after them. Where exclusive children are
    beside groups, which do not compete, the former get a group of their own.
    """
    parent, exclusive, scaled = [-1] * n, [False] * n, [False] * n
    seen, todo = set(), [(root, -1) for root in _list(roots)]
    while todo:
        node, above = todo.pop()
        number = node.get("feature_index") if isinstance(node, Mapping) else "none"
        if number is None:
            number = len(parent)
            parent, exclusive, scaled = [*parent, -1], [*exclusive, False], [*scaled, False]
        elif not isinstance(number, int) or not 0 <= number < n or number in seen:
            raise ValueError(f"feature_index {number!r} is no feature of {n}, or is there twice")
        seen.add(number)
        parent[number] = above
        scaled[number] = bool(node.get("scale_children_by_parent", False))
        children = _list(node.get("children", []))
        competing = [child for child in children if _is_feature(child)]
        if node.get("mutually_exclusive_children", False) and len(competing) >= 2:
            if len(competing) == len(children):
                exclusive[number] = True
            else:
                group = {"children": competing, "mutually_exclusive_children": True}
                group["scale_children_by_parent"] = scaled[number]
                children = [child for child in children if not _is_feature(child)] + [group]
        todo += [(child, number) for child in children]
    feature = np.where(np.arange(len(parent)) < n, np.arange(len(parent)), -1)
    return Forest(parent, exclusive, scaled, feature)


def formatted(forest: Forest) -> list[dict[str, Any]]:
    """The trees of a forest that have more than a root, as hierarchy.json has them.

    Raises ValueError for exclusive groups, which cannot be said there.
    """
    groups = forest.feature[forest.child] < 0
    if (groups & forest.exclusive[forest.parent[forest.child]]).any():
        raise ValueError(
            "write_saelens: exclusive children that are groups cannot be written: there, groups do "
            "not compete"
        )
    nodes: list[dict[str, Any]] = [
        {
            "feature_index": int(feature) if feature >= 0 else None,
            "mutually_exclusive_children": bool(exclusive and count >= 2),
            "scale_children_by_parent": bool(scaled),
            "feature_id": None,
            "children": [],
        }
        for feature, exclusive, scaled, count in zip(
            forest.feature, forest.exclusive, forest.scaled, np.diff(forest.start), strict=True
        )
    ]
    for child in forest.child:
        nodes[forest.parent[child]]["children"].append(nodes[child])
    return [nodes[root] for root in np.flatnonzero(forest.parent < 0) if nodes[root]["children"]]


def _is_feature(node: Any) -> bool:
    return isinstance(node, Mapping) and node.get("feature_index") is not None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a list of nodes is {value!r}")
    return value
