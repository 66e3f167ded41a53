"""The dense way with its inputs as lists: few features are active, but many outputs are on.

A sample's hidden layer is a sum over its active features, and only their rows of the encoder get
a slope from it. The outputs, of which training may turn off few, or slowly, are products as in
the dense way; so of its five products three remain.
"""

from typing import NamedTuple

import numpy as np

from superpose.kernels import dense
from superpose.kernels.compiling import FASTMATH, compiled, inner
from superpose.kernels.dense import TILE, ZERO, add_outputs
from superpose.kernels.products import dots
from superpose.kernels.rows import LANES, add_to_rows, sum_rows
from superpose.kernels.sparse import add_rows, copy_rows

NIL = np.int64(0)


class Layout(NamedTuple):
    """Where in `work`, behind what the dense way has there, rows of whole vectors lie."""

    width: int  # of a row
    W: int  # [n, width] the encoder
    slopes: int  # [n, width] its slopes
    h: int  # [TILE, width] hidden layers of samples
    dh: int  # [TILE, width] slopes by these
    zeros: int  # [width]
    size: int  # of it all


@inner
def _layout(n, m):
    width = (m + LANES - 1) // LANES * LANES
    W = dense.work_size(n, m)
    slopes = W + n * width
    h = slopes + n * width
    dh = h + TILE * width
    zeros = dh + TILE * width
    return Layout(width, W, slopes, h, dh, zeros, zeros + width)


@compiled
def work_size(n, m):
    """The length of `work`, the float32 scratch of a step."""
    return _layout(n, m).size


def pays(n: int, m: int, active: float) -> bool:
    """Whether lists of inputs beat products, with `active` entries a sample.

    What two products of n m each save must make up for listing the entries.

    >>> pays(400, 30, active=20), pays(80, 20, active=8), pays(400, 30, active=60)
    (True, False, False)
    """
    return active + 3 < 0.004 * n * m and active < 0.15 * n


@compiled(fastmath=FASTMATH)
def prepare(work, theta, shape):
    """Copy the encoder into `work` as whole vectors; clear its slopes."""
    n, m = shape
    at = _layout(n, m)
    copy_rows(work[at.W : at.slopes], theta, n, m)
    cleared = work[at.slopes : at.size]
    for j in range(cleared.size):
        cleared[j] = ZERO


@compiled(fastmath=FASTMATH)
def add_gradient(tile, size, lists, work, theta, slope, importance, l1, shape, flags):
    """Add the gradient of a tile's loss to `slope` and to what `finish` hands over; the loss.

    tile `[n TILE]` has its first `size` columns in use, a multiple of `STEP`, and lists = (start,
    column, value) are its entries, sample by sample.
    """
    n, m = shape
    # Numbers rather than literals, each of which would have `dots` compiled again.
    zero, one, size = np.intp(0), np.intp(1), np.intp(size)
    at = _layout(n, m)
    width, entries = at.width, (*lists, NIL, size)
    sum_rows(width, entries, work, ((at.W, width), (at.zeros, NIL), (at.h, width)))
    _turn(work, at.h, zero, (size, m, width, True))
    tiled = (tile, np.intp(TILE))
    loss = add_outputs(tiled, size, work, theta, slope, importance, l1, shape, flags)
    h, dh, g, decoder = zero, m * size, 2 * m * size, zero if flags[2] else n * m
    dots((slope, decoder, m), (work, g, work, g, one), (work, h, work, h, size), n, m)
    _turn(work, at.dh, dh, (size, m, width, False))
    add_to_rows(width, entries, work, ((at.slopes, width), (at.dh, width)))
    return loss


@inner(fastmath=FASTMATH)
def _turn(work, rows, columns, shape):
    """Samples' rows `[size, width]` to columns `[m, size]`, or back."""
    size, m, width, there = shape
    rows, columns = max(rows, 0), max(columns, 0)
    for k in range(m):
        row, column = rows + k, columns + k * size
        if there:
            for t in range(size):
                work[column + t] = work[row + t * width]
        else:
            for t in range(size):
                work[row + t * width] = work[column + t]


@compiled(fastmath=FASTMATH)
def finish(work, slope, shape):
    """Add the slopes of the encoder since `prepare` to `slope` [P]."""
    n, m = shape
    at = _layout(n, m)
    add_rows(slope, work[at.slopes : at.h], n, m)
