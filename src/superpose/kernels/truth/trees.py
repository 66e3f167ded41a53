"""Features that fire independently, or given that their parent in a forest is on.

A node is drawn for the samples its parent is on in (all of them, for a root): the gaps from one
sample in which it is on to the next are geometric, so nothing is drawn for what stays off.
"""

import math
from typing import NamedTuple

import numpy as np

from superpose.kernels.hashing import CELL, MEMBER, STRIDE, lane_key, mix, step_key
from superpose.kernels.truth.compiling import compiled, inner


class Trees(NamedTuple):
    """A forest of nodes: what `fire` reads. A node is a feature, or a mere group of nodes."""

    order: np.ndarray  # [nodes] int32, parents before their children
    parent: np.ndarray  # [nodes] int32, -1 for a root
    feature: np.ndarray  # [nodes] int32, -1 for a group
    own: np.ndarray  # [nodes] the chance that it is on, given that its parent is
    start: np.ndarray  # [nodes + 1] int64, where the children of each begin
    child: np.ndarray  # the children, in one array
    exclusive: np.ndarray  # [nodes] bool, at most one of its children is on
    wins: np.ndarray  # like `child`: running sums of the chances to be the one, where exclusive


@inner
def _uniform(key, count):
    """Number `count` of a lane's stream, in (0, 1)."""
    bits = mix(key + STRIDE * np.uint64(count + 1))
    return (np.float64(bits >> np.uint64(11)) + 0.5) * 2.0**-53


@inner
def _jump(u, slope, left):
    """How many places to pass over: geometric, at most `left`; `slope` is 1 / ln(1 - p)."""
    gap = math.log(u) * slope
    return np.int64(gap) if gap < left else left


@inner
def _slope(p):
    return 1.0 / math.log1p(-p) if p < 1.0 else 0.0


@compiled
def fire(batch, key, trees, capacity):
    """The entries of a batch, node by node: how many, and the row, node and parent's entry of each.

    Where there are more than `capacity`, as many as fit and -1.
    """
    row, node_of = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    above = np.empty(capacity, np.int32)
    nodes = len(trees.order)
    places = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    chosen = np.empty(batch, np.int32), np.empty(batch, np.int32)
    lanes = step_key(key, 0, CELL), step_key(key, 0, MEMBER)
    entries = (row, node_of, above)
    return _walk(batch, lanes, trees, entries, places, chosen), row, node_of, above


@inner
def _walk(batch, lanes, trees, entries, places, chosen):
    """Write the entries of all nodes; how many there are, or -1 where they have no room."""
    begin, end = places
    at = 0
    for node in trees.order:
        parent = trees.parent[node]
        if parent < 0 or not trees.exclusive[parent]:
            window = (0, batch) if parent < 0 else (begin[parent], end[parent])
            lane = lane_key(lanes[0], node)
            begin[node] = at
            at = _draw(at, entries, (node, parent < 0), window, (trees.own[node], lane))
            end[node] = at
        if trees.exclusive[node] and at >= 0:
            of_node = slice(trees.start[node], trees.start[node + 1])
            window, lane = (begin[node], end[node]), lane_key(lanes[1], node)
            found = _choose(chosen, window, trees.wins[of_node], lane)
            if at + found > len(entries[0]):
                return -1
            hit = (chosen[0][:found], chosen[1][:found])
            at = _fill(at, entries, hit, window[0], trees.child[of_node], places)
        if at < 0:
            return -1
    return at


@inner
def _draw(at, entries, who, window, law):
    """Write the entries of a node that is on by itself: in samples, or in its parent's entries."""
    row, node_of, above = entries
    node, is_root = who
    p, lane = law
    count, draws = window[1] - window[0], 0
    slope, place = _slope(p), np.int64(0) if p > 0.0 else np.int64(count)
    while place < count:
        place += _jump(_uniform(lane, draws), slope, count - place)
        draws += 1
        if place < count:
            if at == len(row):
                return -1
            row[at] = place if is_root else row[window[0] + place]
            node_of[at], above[at] = node, -1 if is_root else window[0] + place
            at, place = at + 1, place + 1
    return at


@inner
def _choose(chosen, window, wins, lane):
    """Those of a node's entries in which a child is on, and the number of that child."""
    hits, whom = chosen
    total, count, draws = wins[-1], 0, 0
    places = window[1] - window[0]
    slope, place = _slope(total), np.int64(0) if total > 0.0 else np.int64(places)
    while place < places:
        place += _jump(_uniform(lane, draws), slope, places - place)
        if place < places:
            u = _uniform(lane, draws + 1) * total
            low, high = 0, len(wins) - 1
            while low < high:
                middle = (low + high) // 2
                if wins[middle] <= u:
                    low = middle + 1
                else:
                    high = middle
            hits[count], whom[count] = place, low
            count, place = count + 1, place + 1
        draws += 2
    return count


@inner
def _fill(at, entries, chosen, first, children, places):
    """Write the entries of a node's children, one child after the other."""
    row, node_of, above = entries
    hits, whom = chosen
    begin, end = places
    for child in children:
        end[child] = 0
    for k in range(len(hits)):
        end[children[whom[k]]] += 1
    for child in children:
        begin[child], count = at, end[child]
        end[child], at = at, at + count
    for k in range(len(hits)):
        child, position = children[whom[k]], first + hits[k]
        e = end[child]
        row[e], node_of[e], above[e] = row[position], child, position
        end[child] = e + 1
    return at
