"""The loop that draws a set, in vector instructions and plainly."""

import numpy as np
import pytest
from numba import njit

from superpose.kernels import cells
from superpose.kernels.lanes import LANES


@njit
def _written(row, window, key, on, scale, signed):
    cells.draw_set(row, window, key, on, scale, signed)


@njit
def _plain(row, window, key, on, scale, signed):
    cells.plain_set(row, window, key, on, scale, signed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("on", [1, 2**28 + 1, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize("width", [LANES, 3 * LANES, 128, 1024])
def test_a_set_is_drawn_as_the_plain_loop_draws_it(width, on, signed):
    scale = np.float32(2.0 / (on + 1.0))
    for begin, key in [(0, 0), (128, 0x0123456789ABCDEF), (10**6, 2**64 - 1)]:
        drawn = np.full((2, width + LANES), 7.0, np.float32)
        for row, draw in zip(drawn, (_written, _plain), strict=True):
            draw(row, (begin, width), np.uint64(key), np.uint32(on), scale, signed)
        assert drawn[0].tobytes() == drawn[1].tobytes()
        assert (drawn[:, width:] == 7.0).all()
        if key == 0:
            # The hash of zeros is zero, so the first sample is on at any threshold.
            assert drawn[0, 0] == np.float32(0.5) * scale
        if on == 2**32 - 1:
            assert drawn[:, :width].all()
