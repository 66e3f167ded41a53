# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""The largest numbers of a row or of a batch, exactly: ties go to the lowest place.

Numbers are compared as the unsigned integers that their bits are. Of numbers that are positive
or NaN that is their order, with NaN above all, so that a diverged model is seen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpose.kernels.autoencoder.compiling import inner
from superpose.kernels.autoencoder.masks import (
    WORD,
    largest_of_word,
    lowest_bit,
    mask_reached,
    maxima_of_words,
    number_reaching,
)

TINY = np.float32(1e-45)
"""The smallest positive number: what is at least this is positive."""

HALVINGS = 8
SLACK = 3  # maxima more than k that a bound may leave
FEW = 512  # comparisons up to which dropping the smallest one by one is faster than selection


def fold(k: int, d_sae: int) -> int:
    """How many groups the latents of a row form for `bound_of_row`; 0 where it would not pay."""
    groups = WORD
    while groups < 2 * k:
        groups *= 2
    return groups if 2 * groups <= d_sae else 0


def row_room(k: int, d_sae: int) -> tuple[NDArray[Any], ...]:
    """What `top_of_row` works with: maxima, bounds, places and their keys."""
    width = -(-d_sae // WORD) * WORD
    return (
        np.zeros(fold(k, d_sae), np.float32),
        np.zeros(WORD, np.float32),
        np.zeros(width + 1, np.int32),
        np.zeros(width + 1, np.uint32),
    )


@inner
def bound_of_row(pre, at, width, k, maxima):
    """A number that at least k of pre[at : at + width] reach, or `TINY` where none was found.

    The k-th largest of the maxima of groups of latents is one, and seldom much below the k-th
    largest of all; halving an interval a few times comes close to it without sorting.
    """
    groups = len(maxima)
    if groups == 0:
        return TINY
    words, step = width // WORD, groups // WORD
    low, high = TINY, TINY
    for w in range(step):
        source = (pre, at + w * WORD)
        maxima_of_words(maxima, w * WORD, source, (words - w + step - 1) // step, step)
        most = largest_of_word(maxima, w * WORD)
        high = most if most > high else high
    if _reaching(maxima, low) < k:
        return low
    for _ in range(HALVINGS):
        middle = np.float32(0.5) * (low + high)
        count = _reaching(maxima, middle)
        if count >= k:
            low = middle
            if count <= k + SLACK:
                break
        else:
            high = middle
    return low


@inner
def _reaching(maxima, bound):
    count = np.int64(0)
    for w in range(0, len(maxima), WORD):
        count += number_reaching(maxima, w, bound)
    return count


@inner
def list_reached(pre, at, width, bounds, step, place):
    """The places of a row whose numbers reach their bounds, in order; how many there are.

    Number j has bounds[j] where `step` is `WORD`, and bounds[j % WORD] where it is 0.
    """
    count = np.int64(0)
    for w in range(0, width, WORD):
        bits = mask_reached(pre, at + w, bounds, (w // WORD) * step)
        while bits != 0:
            place[count] = w + np.int64(lowest_bit(bits))
            bits &= bits - np.uint64(1)
            count += 1
    return count


@inner
def nth_largest(keys, count, n):
    """The n-th largest of keys[:count], whose order is lost (Hoare's selection)."""
    left, right, target = np.int64(0), np.int64(count - 1), np.int64(n - 1)
    while left < right:
        pivot = keys[(left + right) >> 1]
        i, j = left, right
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if target <= j:
            right = j
        elif target >= i:
            left = i
        else:
            break
    return keys[target]


@inner
def keep_largest(keys, place, at, count, k, scratch):
    """Keep the k largest of place[:count] in their order, key i at keys[at + place[i]].

    `scratch` has room for `count` keys.
    """
    for i in range(count):
        scratch[i] = keys[at + place[i]]
    if (count - k) * count <= FEW:
        _drop_smallest(scratch, place, count, k)
        return
    least = nth_largest(scratch, count, k)
    equal = np.int64(k)
    for i in range(count):
        equal -= keys[at + place[i]] > least
    kept = np.int64(0)
    for i in range(count):
        key = keys[at + place[i]]
        if key > least or (key == least and equal > 0):
            equal -= key == least
            place[kept] = place[i]
            kept += 1


@inner
def _drop_smallest(keys, place, count, k):
    """One by one, the last of equal ones first."""
    while count > k:
        least, where = keys[0], np.int64(0)
        for i in range(1, count):
            smaller = keys[i] <= least
            least, where = (keys[i], i) if smaller else (least, where)
        count -= 1
        for i in range(where, count):
            keys[i], place[i] = keys[i + 1], place[i + 1]


@inner
def top_of_row(pre, keys, at, width, k, room):
    """Places of the k largest positive numbers of a row, in order; how many there are.

    keys are the bits of pre; room is that of `row_room`.
    """
    maxima, bounds, place, scratch = room
    bound = bound_of_row(pre, at, width, k, maxima)
    for j in range(WORD):
        bounds[j] = bound
    count = list_reached(pre, at, width, bounds, np.int64(0), place)
    if count > k:
        keep_largest(keys, place, at, count, k, scratch)
    return min(count, k)
