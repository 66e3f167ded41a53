"""BatchTopK: a batch keeps its largest positive pre-activations, so many in all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpose.kernels.autoencoder.compiling import compiled
from superpose.kernels.autoencoder.encoding import CHUNK, encode
from superpose.kernels.autoencoder.masks import WORD
from superpose.kernels.autoencoder.selection import TINY, list_reached, nth_largest
from superpose.kernels.autoencoder.topk import keep_dead

CLOSENESS = np.float32(0.9)
"""A bound is set so far below the number that was the smallest to be kept in the last batch."""


def row_room(width: int, entries: int) -> tuple[NDArray[Any], ...]:
    """What `select` works with: bounds, the places of a row, and keys of all entries."""
    return np.zeros(WORD, np.float32), np.zeros(width, np.int32), np.empty(entries, np.uint32)


@compiled
def select(x, theta, encoder, kept, guess, dead):
    """Fill the lists with what the batch keeps; gives the smallest of it, 0 where there is none.

    kept = (entries, keys, number, room): entries have room for twice the `number` to be kept and
    a row more, keys are the bits of their values. room = (bounds, place, scratch). Only what
    reaches `guess` is listed at first; where that is too little all is listed, so that the guess
    bears on the time alone. dead is that of `topk.select`.
    """
    (start, _, value), _, number, _ = kept
    _list(x, theta, encoder, kept, guess, dead)
    if start[len(x)] < number and guess > TINY:
        _list(x, theta, encoder, kept, TINY, dead)
    if start[len(x)] > number:
        _keep_largest(kept, len(x))
    least = np.float32(0.0)
    for e in range(start[len(x)]):
        least = value[e] if e == 0 or not value[e] >= least else least
    return least


@compiled
def _list(x, theta, encoder, kept, bound, dead):
    """List what reaches the bound, which rises whenever the lists are full."""
    (start, column, value), _, _, (bounds, place, _) = kept
    start[0] = dead[2][0][0][0] = 0
    for j in range(WORD):
        bounds[j] = bound
    for first in range(0, len(x), CHUNK):
        count = encode(x, first, theta, encoder)
        for t in range(first, first + count):
            at = (t - first) * encoder.by_row
            if start[t] + encoder.width > len(value):
                least = _keep_largest(kept, t)
                for j in range(WORD):
                    bounds[j] = least
            begin = start[t]
            found = list_reached(encoder.pre, at, encoder.width, bounds, np.int64(0), place)
            for i in range(found):
                column[begin + i] = place[i]
                value[begin + i] = encoder.pre[at + place[i]]
            start[t + 1] = begin + found
            if len(dead[0]) > 0:
                keep_dead(encoder, at, t, dead)


@compiled
def _keep_largest(kept, samples):
    """Keep the `number` largest entries of the first samples in their order; the smallest kept."""
    (start, column, value), keys, number, (_, _, scratch) = kept
    count = start[samples]
    for e in range(count):
        scratch[e] = keys[e]
    least = nth_largest(scratch, count, number)
    equal = np.int64(number)
    for e in range(count):
        equal -= keys[e] > least
    to, first, smallest = np.int64(0), np.int64(0), TINY
    for t in range(samples):
        for e in range(first, start[t + 1]):
            key = keys[e]
            if key >= least:
                if key == least:
                    smallest = value[e]
                    equal -= 1
                if key > least or equal >= 0:
                    column[to], value[to] = column[e], value[e]
                    to += 1
        first = start[t + 1]
        start[t + 1] = to
    return smallest
