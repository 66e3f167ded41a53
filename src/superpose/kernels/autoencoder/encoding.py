"""Pre-activations of a chunk of samples: the one dense product of a sparse autoencoder's step.

The encoder is packed once a step into panels of `STEP` latents, so that the product streams one
contiguous panel after another while a chunk of samples stays in the fast caches.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from superpose.kernels.autoencoder.compiling import compiled, inner, shared
from superpose.kernels.autoencoder.masks import WORD
from superpose.kernels.compiling import FASTMATH
from superpose.kernels.products import STEP, product

CHUNK = 48
"""Samples whose pre-activations are held at once: a multiple of the product's rows."""

DEPTH = np.int64(256)
"""Terms of a product that go through a panel at once, which then stays in the nearest cache."""

LINE = 64  # bytes of a cache line

UNIT, PANEL = np.int64(1), np.int64(STEP)
# NumPy's numbers are no literals, for each of which numba would compile what is called anew.


class Encoder(NamedTuple):
    """What `encode` works with."""

    panels: np.ndarray  # [d_sae / STEP, d_in + 1, STEP]
    rows: np.ndarray  # [CHUNK, d_in + 1] samples, a 1 behind each
    pre: np.ndarray  # [CHUNK, by_row] pre-activations
    keys: np.ndarray  # the bits of them
    by_row: int
    width: int  # the latents, filled up to whole words
    d_sae: int
    subtracted: int  # where b_dec is in theta, -1 where it is not taken off the samples


ZERO, OFF = np.float32(0.0), np.float32(-1.0)


def panels_size(rows: int, terms: int) -> int:
    """How many numbers the panels of a matrix take, with one more term for a bias.

    >>> panels_size(1, 3) == STEP * 4
    True
    """
    return -(-rows // STEP) * STEP * (terms + 1)


def encoder(d_in: int, d_sae: int, subtracted: int) -> Encoder:
    """Room to encode chunks of samples in."""
    width = -(-d_sae // WORD) * WORD
    by_row = width + WORD  # Rows a power of two apart would share the sets of a cache.
    pre = aligned(CHUNK * by_row)
    return Encoder(
        aligned(panels_size(d_sae, d_in)),
        aligned(CHUNK * (d_in + 1)),
        pre,
        pre.view(np.uint32),
        by_row,
        width,
        d_sae,
        subtracted,
    )


def aligned(length: int, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Zeros that begin on a cache line."""
    size = length * np.dtype(dtype).itemsize
    room = np.zeros(size + LINE, np.uint8)
    first = -room.ctypes.data % LINE
    return room[first : first + size].view(dtype)


@compiled(fastmath=FASTMATH)
def pack(panels, theta, matrix, bias, rows, terms):
    """panels[p, c, j] = M[p STEP + j, c], and behind the terms the bias: panels[p, terms, j].

    M `[rows, terms]` and the bias `[rows]` lie at `matrix` and `bias` in theta. Rows that fill up
    the last panel are 0.
    """
    length = (terms + 1) * STEP
    for first in range(0, rows, STEP):
        panel = panels[(first // STEP) * length : (first // STEP + 1) * length]
        if first + STEP > rows:
            for c in range(length):
                panel[c] = ZERO
        for j in range(min(STEP, rows - first)):
            row = theta[matrix + (first + j) * terms : matrix + (first + j + 1) * terms]
            for c in range(terms):
                panel[c * STEP + j] = row[c]
            panel[terms * STEP + j] = theta[bias + first + j]


@shared
def encode(x, first, theta, encoder):
    """Pre-activations of the chunk of samples that begins at `first`; how many samples it has."""
    count = min(CHUNK, len(x) - first)
    centre(encoder.rows, x, first, count, theta, encoder.subtracted)
    pre_activations(encoder, count, x.shape[1] + 1)
    return count


@inner(fastmath=FASTMATH)
def centre(rows, x, first, count, theta, subtracted):
    """Rows of x less b_dec, which is at `subtracted` in theta, a 1 behind each for the bias.

    Nothing is taken off where `subtracted` is negative.
    """
    d = x.shape[1]
    for t in range(count):
        row, given = rows[t * (d + 1) : (t + 1) * (d + 1)], x[first + t]
        if subtracted >= 0:
            shift = theta[subtracted : subtracted + d]
            for c in range(d):
                row[c] = given[c] - shift[c]
        else:
            for c in range(d):
                row[c] = given[c]
        row[d] = np.float32(1.0)


@compiled
def pre_activations(encoder, count, terms):
    """pre[t, k] = Σ_c rows[t, c] E[k, c] + b[k] for `count` rows of `terms` with that of the bias.

    Cells that fill up the last word of a row become negative, as of latents that are off.
    """
    pre, by_row = encoder.pre, encoder.by_row
    for first in range(0, encoder.d_sae, STEP):
        for k in range(0, terms, DEPTH):
            product(
                (pre, np.int64(first), by_row, k == 0),
                (encoder.rows, np.int64(k), terms, UNIT),
                (encoder.panels, first * terms + k * STEP, PANEL, min(DEPTH, terms - k)),
                count,
                PANEL,
            )
    for t in range(count):
        for k in range(t * by_row + encoder.d_sae, t * by_row + encoder.width):
            pre[k] = OFF
