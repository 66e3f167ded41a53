"""Features that fire together: thresholds of Gaussian numbers that share a few factors.

Given the factors u of a sample, a node is on with the probability
q = keep * Phi((F u - threshold) / spread), regardless of the others. A uniform number below q
decides. Where the score F u is at most `high`, q is at most `cutoff`: most nodes are settled by
these two comparisons, which run along vectors, and q is computed for the few that are left.
"""

import math
from typing import NamedTuple

import numpy as np

from superpose.kernels.cells import halves
from superpose.kernels.hashing import CELL, MEMBER, hash32, lane_key, step_key
from superpose.kernels.truth.compiling import compiled, inner

EIGHT = 8
"""Marks are one byte each, looked at so many at a time."""

TO_ERFC = -(0.5**0.5)


class Factors(NamedTuple):
    """What the nodes of a forest share, as `fire` reads it."""

    top: np.ndarray  # [tops] int32, the nodes without a parent, and -1 up to a multiple of EIGHT
    rows: np.ndarray  # [nodes, rank] float32
    columns: np.ndarray  # [rank, tops] float32, of those without a parent
    high: np.ndarray  # [tops] float32
    cutoff: np.ndarray  # [tops] uint32
    threshold: np.ndarray  # [nodes]
    spread: np.ndarray  # [nodes]
    keep: np.ndarray  # [nodes]


@inner
def _score(score, factors, columns):
    """F u of the nodes without a parent."""
    score[:] = np.float32(0.0)
    for k in range(len(factors)):
        u = factors[k]
        for i in range(len(score)):
            score[i] += u * columns[k, i]


@inner
def _mark(marks, counter, score, lanes, bounds):
    """Mark the nodes that may be on."""
    low, high = lanes
    limit, cutoff = bounds
    for i in range(len(marks)):
        marks[i] = (score[i] > limit[i]) | (hash32(counter, low[i], high[i]) <= cutoff[i])


@inner
def _is_on(counter, score, node, lanes, factors):
    """Whether a node is on, given its score: exact to the 32 bits of a draw."""
    z = (score - factors.threshold[node]) / factors.spread[node]
    q = factors.keep[node] * 0.5 * math.erfc(z * TO_ERFC)
    u = hash32(counter, lanes[0][node], lanes[1][node])
    return (np.float64(u) + 0.5) * 2.0**-32 < q


@inner
def _score_of(row, factors):
    total = np.float32(0.0)
    for k in range(len(row)):
        total += factors[k] * row[k]
    return total


@inner
def _fill_lanes(low, high, key, nodes):
    for i in range(len(nodes)):
        low[i], high[i] = halves(lane_key(key, max(nodes[i], 0)))


@compiled
def fire(key, trees, factors, shared, capacity):
    """The entries of a batch, sample by sample, as `trees.fire` gives them.

    `shared` `[batch, rank]` are the factors of the samples, float32.
    """
    row, node_of = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    above = np.empty(capacity, np.int32)
    tops, nodes = len(factors.top), len(trees.order)
    every = np.arange(nodes).astype(np.int32)
    lanes = np.empty(nodes, np.uint32), np.empty(nodes, np.uint32)
    of_top = np.empty(tops, np.uint32), np.empty(tops, np.uint32)
    tie = np.empty(nodes, np.uint32), np.empty(nodes, np.uint32)
    _fill_lanes(lanes[0], lanes[1], step_key(key, 0, CELL), every)
    _fill_lanes(of_top[0], of_top[1], step_key(key, 0, CELL), factors.top)
    _fill_lanes(tie[0], tie[1], step_key(key, 0, MEMBER), every)
    marks = np.zeros(tops, np.uint8)
    scratch = (np.empty(tops, np.float32), marks, marks.view(np.uint64))
    entries = (row, node_of, above)
    at = _fill(entries, shared, (trees, factors), (lanes, of_top, tie), scratch)
    return at, row, node_of, above


@inner
def _fill(entries, shared, tables, draws, scratch):
    """Write the entries of all samples; how many there are, or -1 where they have no room."""
    row, node_of, above = entries
    trees, factors = tables
    lanes, of_top, tie = draws
    score, marks, words = scratch
    bounds, at = (factors.high, factors.cutoff), 0
    for t in range(len(shared)):
        # A sample has no more entries than there are nodes.
        if at + len(trees.order) > len(row):
            return -1
        _score(score, shared[t], factors.columns)
        _mark(marks, t, score, of_top, bounds)
        done = at
        for word in range(len(words)):
            if words[word] != 0:
                for i in range(word * EIGHT, word * EIGHT + EIGHT):
                    node = factors.top[i]
                    if marks[i] and node >= 0 and _is_on(t, score[i], node, lanes, factors):
                        row[at], node_of[at], above[at] = t, node, -1
                        at += 1
        while done < at:
            at = _descend(at, done, entries, shared[t], (lanes, tie), tables)
            done += 1
    return at


@inner
def _descend(at, done, entries, shared, draws, tables):
    """Write the children that are on of an entry; of exclusive ones a single one, uniformly."""
    row, node_of, above = entries
    lanes, tie = draws
    trees, factors = tables
    t, node = row[done], node_of[done]
    first, count = at, 0
    for k in range(trees.start[node], trees.start[node + 1]):
        child = trees.child[k]
        if _is_on(t, _score_of(factors.rows[child], shared), child, lanes, factors):
            count += 1
            where = first if trees.exclusive[node] else at
            ticket = np.uint64(hash32(t, tie[0][child], tie[1][child])) * np.uint64(count)
            if where == at or (ticket >> np.uint64(32)) == np.uint64(0):
                row[where], node_of[where], above[where] = t, child, done
            at = max(at, where + 1)
    return at
