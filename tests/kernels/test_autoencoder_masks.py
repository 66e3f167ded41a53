"""The vector instructions of selections against their plain twins."""

import numba
import numpy as np
import pytest

from superpose.kernels.autoencoder import masks
from superpose.kernels.autoencoder.masks import WORD

NUMBERS = np.random.default_rng(0).integers(-3, 4, 12 * WORD).astype(np.float32)


@numba.njit
def _all(numbers, at, bound, out, words, step):
    masks.maxima_of_words(out, 5, (numbers, at), words, step)
    return (
        masks.mask_reached(numbers, at, numbers, at + 1),
        masks.number_reaching(numbers, at, bound),
        masks.largest_of_word(numbers, at),
    )


@pytest.mark.parametrize("at", [0, 3, 17])
@pytest.mark.parametrize(("words", "step"), [(1, 1), (5, 1), (4, 2)])
def test_they_agree(at, words, step):
    out, expected = np.zeros(WORD + 9, np.float32), np.zeros(WORD + 9, np.float32)
    bits, number, largest = _all(NUMBERS, at, np.float32(1.0), out, words, step)
    masks.plain_maxima_of_words(expected, 5, (NUMBERS, at), words, step)
    assert np.array_equal(out, expected)
    assert bits == masks.plain_mask_reached(NUMBERS, at, NUMBERS, at + 1)
    assert number == masks.plain_number_reaching(NUMBERS, at, 1.0)
    assert largest == masks.plain_largest_of_word(NUMBERS, at)


def test_what_is_not_a_number_reaches_every_bound_but_is_not_counted():
    numbers = np.zeros(3 * WORD, np.float32)
    numbers[[2, WORD - 1]] = np.nan, -np.nan
    bounds = np.ones(WORD + 1, np.float32)
    mask = _mask(numbers, bounds)
    assert mask == (1 << 2) + (1 << (WORD - 1)) == masks.plain_mask_reached(numbers, 0, bounds, 0)
    assert _all(numbers, 0, np.float32(0.0), np.zeros(WORD + 9, np.float32), 1, 1)[1] == WORD - 2


@numba.njit
def _mask(numbers, bounds):
    return masks.mask_reached(numbers, 0, bounds, 0)
