# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""The gradient where few features are active: samples as lists of their active entries.

A sample costs what is on in it: its hidden layer is a sum over active inputs, and the backward
pass runs over those outputs alone whose rectifier lets a slope through. Only the
pre-activations of all outputs cost the same as ever; where a sample has fewer active entries
than hidden units, and the hidden layer is linear, they too are a sum over the entries, of rows
of the Gram matrix W_in W_outᵀ, built once a step.

Samples come as rows = (start, column, value, first, last): the entries of sample t are
start[t] … start[t + 1], with increasing columns, and the samples are first … last. Shapes and
flags are run-time values: everything here compiles once.
"""

import math
from typing import NamedTuple

import numpy as np

from superpose.kernels.compiling import FASTMATH, compiled, inner
from superpose.kernels.products import STEP, product
from superpose.kernels.rows import (
    LANES,
    WORD,
    add_to_rows,
    lowest_bit,
    mask_nonzero,
    mask_positive,
    number_of_bits,
    sum_rows,
    trade_rows,
)

SHIFT = 7
TILE = 2**SHIFT
LAST = TILE - 1

FEW = 4
"""Bits of a mask that are listed without asking."""

BLOCK = 12
"""Samples whose pre-activations are computed together."""

CHUNK = 8 * WORD
"""Outputs whose pre-activations are held at once."""

USUAL_BATCH = 1024
GRAM_AT_MOST = 1024
"""Features whose Gram matrix fits the slower caches."""

PRE_ROW = np.int64(CHUNK + STEP)
"""Rows of pre-activations lie this far apart: at a power of two they would share cache sets."""

NIL, UNIT = np.int64(0), np.int64(1)
# NumPy's numbers are no literals, for each of which numba would compile what is called anew.

ZERO, ONE, TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)


class Layout(NamedTuple):
    """Sizes and offsets in `work`.

    Rows of weights, of their slopes and of hidden layers have m numbers, a place for the bias
    (whose input is a hidden unit that is always 1), and zeros up to whole vectors.
    """

    width: int  # of a row
    columns: int  # n up to whole steps of the product
    by_row: int  # from row to row of `turned` and `gram`
    W_in: int  # [n, width]
    W_out: int  # [n, width]
    W_in_slope: int  # [n, width]
    W_out_slope: int  # [n, width]
    turned: int  # [m + 1, by_row] W_out, transposed, and b
    bias: int  # [by_row] the last row of it
    h: int  # [BLOCK, width]
    dh: int  # [BLOCK, width]
    pre: int  # [BLOCK, CHUNK] pre-activations of some outputs
    zeros: int  # [width]
    gram: int  # [n, by_row]
    size: int


@inner
def _layout(n, m, tied, gram):
    width = (m + LANES) // LANES * LANES
    columns = (n + STEP - 1) // STEP * STEP
    # An odd number of steps, so that the rows of a column spread over all sets of the caches.
    by_row = columns if columns % (2 * STEP) else columns + STEP
    matrix = n * width
    W_out = 0 if tied else matrix
    W_in_slope = W_out + matrix
    W_out_slope = W_in_slope if tied else W_in_slope + matrix
    turned = W_out_slope + matrix
    bias = turned + m * by_row
    h = bias + by_row
    dh = h + BLOCK * width
    pre = dh + BLOCK * width
    zeros = pre + BLOCK * PRE_ROW
    rows = zeros + width
    size = rows + n * by_row if gram else rows
    return Layout(
        width,
        columns,
        by_row,
        0,
        W_out,
        W_in_slope,
        W_out_slope,
        turned,
        bias,
        h,
        dh,
        pre,
        zeros,
        rows,
        size,
    )


def work_size(n: int, m: int, gram: bool = False) -> int:
    """Length of `work`, the float32 scratch of a step; more with a Gram matrix."""
    return _layout.py_func(n, m, False, gram).size


def pays(n: int, m: int, active: float) -> bool:
    """Whether lists beat the dense way, with `active` entries a sample and rectified outputs.

    A model that has trained for some hundred steps then has few outputs on for each active
    input, as long as the hidden layer has two or three units for each; beyond that, outputs stay
    on by the dozen. What an entry costs beside must be made up by the products saved, some n m a
    sample.

    >>> pays(200, 20, active=6), pays(200, 20, active=10), pays(40, 5, active=2)
    (True, False, False)
    """
    return active < 0.4 * m and 250 * active + 450 < n * (m - 1)


def uses_gram(n: int, m: int, active: float) -> bool:
    """Whether the Gram matrix pays, with a linear hidden layer and `active` entries a sample.

    It takes n² m multiplications a step, to be earned on a batch of `USUAL_BATCH`. A sample that
    is not empty then takes n for each entry, which cost two and a half times as much as those of a
    block, instead of n m.

    >>> uses_gram(400, 30, active=4), uses_gram(400, 30, active=12)
    (True, False)
    """
    filled = -USUAL_BATCH * math.expm1(-active)
    return n <= GRAM_AT_MOST and m * filled - 2.5 * active * USUAL_BATCH > n * m


@compiled(fastmath=FASTMATH)
def gather(tile, count, n, start, column, value):
    """The samples of a feature-major tile `[n, TILE]` as lists of active entries.

    Those from `count` on are zero. `start` is `[TILE + 1]`; `column` and `value` have room for
    n · TILE entries.
    """
    # Places in the tile of all entries, feature by feature.
    active = np.empty(n * TILE + FEW, np.int32)
    total = np.uint64(0)
    for at in range(0, n * TILE, WORD):
        total = _list_bits(mask_nonzero(tile, at), at, active, total)
    for t in range(TILE + 1):
        start[t] = 0
    for e in range(total):
        start[(active[e] & LAST) + 1] += 1
    free = np.empty(TILE, np.int64)
    for t in range(TILE):
        free[t] = start[t]
        start[t + 1] += start[t]
    for e in range(total):
        place = np.uint64(active[e])
        t = place & np.uint64(LAST)
        entry = np.uint64(free[t])
        column[entry] = place >> np.uint64(SHIFT)
        value[entry] = tile[place]
        free[t] += 1


@inner(fastmath=FASTMATH)
def _list_bits(bits, at, places, count):
    """List at + j for each bit j that is set, from place `count` on; the place behind them.

    The first few are written whether they are there or not: most words have no more, and a
    processor guesses wrong where a loop of few turns ends.
    """
    behind = count + number_of_bits(bits)
    for _ in range(FEW):
        places[count] = np.uint64(at) + lowest_bit(bits)
        bits &= bits - np.uint64(1)
        count += np.uint64(1)
    while bits != 0:
        places[count] = np.uint64(at) + lowest_bit(bits)
        bits &= bits - np.uint64(1)
        count += np.uint64(1)
    return behind


@compiled(fastmath=FASTMATH)
def prepare(work, theta, shape, flags):
    """Copy the parameters into `work` as the other functions need them; clear the slopes.

    flags = (hidden_relu, output_relu, tied, absolute, gram), the last only with a linear hidden
    layer.
    """
    n, m = shape
    _, _, tied, _, gram = flags
    at = _layout(n, m, tied, gram)
    bias = theta[-n:]
    weights = theta[-n - n * m : -n]
    cleared = work[at.W_in_slope : at.zeros + at.width]
    for j in range(cleared.size):
        cleared[j] = ZERO
    copy_rows(work[at.W_in : at.W_in + n * at.width], theta, n, m)
    if not tied:
        copy_rows(work[at.W_out : at.W_out + n * at.width], weights, n, m)
    turned = work[at.turned : at.bias]
    for i in range(0, n, STEP):
        for k in range(m):
            for j in range(i, min(i + STEP, n)):
                turned[k * at.by_row + j] = weights[j * m + k]
    row = work[at.bias : at.bias + n]
    for i in range(n):
        row[i] = bias[i]
    if gram:
        left, right = (work, at.W_in, at.width, UNIT), (work, at.turned, at.by_row, m)
        product((work, at.gram, at.by_row, n > 0), left, right, n, at.columns)


@inner(fastmath=FASTMATH)
def copy_rows(rows, weights, n, m):
    """Rows of m numbers, one after the other, to rows with zeros behind."""
    width = rows.size // n
    for i in range(n):
        row, given = rows[i * width : (i + 1) * width], weights[i * m : (i + 1) * m]
        for k in range(m):
            row[k] = given[k]
        for k in range(m, width):
            row[k] = ZERO


@compiled(fastmath=FASTMATH)
def add_gradient_rows(rows, work, theta, slope, importance, l1, shape, flags):
    """Add the gradient of the loss, summed over the rows, to what `finish` hands over; the loss.

    Between `prepare` and `finish`, which come once a step.
    """
    n, m = shape
    hidden_relu, _, tied, _, gram = flags
    start, column, value, first, last = rows
    at = _layout(n, m, tied, gram)
    room = BLOCK * min(n, CHUNK) + FEW
    on = (np.empty(BLOCK + 1, np.int64), np.empty(room, np.int32), np.empty(room, np.float32))
    cursor = np.empty(BLOCK, np.int64)
    hidden, reached = (at.h, at.width), (at.dh, at.width)
    loss = 0.0
    for begin in range(first, last, BLOCK):
        count = min(BLOCK, last - begin)
        block = (start, column, value, begin, begin + count)
        sum_rows(at.width, block, work, ((at.W_in, at.width), (at.zeros, NIL), hidden))
        loss += _activate(work, count, at, (hidden_relu, m, l1))
        for s in range(count):
            cursor[s] = start[begin + s]
        for c in range(0, n, CHUNK):
            stop = min(c + CHUNK, at.columns)
            if gram:
                places = ((at.gram + c, at.by_row), (at.bias + c, NIL), (at.pre, PRE_ROW))
                sum_rows(stop - c, block, work, places)
            else:
                left, right = (work, at.h, at.width, UNIT), (work, at.turned + c, at.by_row, m + 1)
                product((work, at.pre, PRE_ROW, n > 0), left, right, count, stop - c)
            window = (c, min(CHUNK, n - c))
            loss += _list_outputs(block, cursor, work, window, importance, (flags, on, at))
            listed = (*on, NIL, count)
            origin = reached if c > 0 else (at.zeros, NIL)
            sums = ((at.W_out, at.width), origin, reached)
            trade_rows(at.width, listed, work, (*sums, (at.W_out_slope, at.width), hidden))
        _reach_inputs(work, count, at, (hidden_relu, m, l1))
        add_to_rows(at.width, block, work, ((at.W_in_slope, at.width), reached))
    return np.float32(loss)


@inner(fastmath=FASTMATH)
def _activate(work, count, at, hidden):
    """From pre-activations of the hidden layer to its activations; their penalty."""
    hidden_relu, m, l1 = hidden
    penalty = ZERO
    for s in range(count):
        h = work[at.h + s * at.width : at.h + (s + 1) * at.width]
        if hidden_relu:
            for k in range(m):
                h[k] = ZERO if h[k] <= ZERO else h[k]
        if l1 != ZERO:
            for k in range(m):
                penalty += abs(h[k])
        h[m] = ONE
    return l1 * penalty


@inner(fastmath=FASTMATH)
def _reach_inputs(work, count, at, hidden):
    """From slopes by the hidden activations to slopes by their pre-activations."""
    hidden_relu, m, l1 = hidden
    for s in range(count):
        h = work[at.h + s * at.width : at.h + (s + 1) * at.width]
        dh = work[at.dh + s * at.width : at.dh + (s + 1) * at.width]
        if l1 != ZERO:
            for k in range(m):
                dh[k] += l1 * np.sign(h[k])
        if hidden_relu:
            for k in range(m):
                dh[k] = ZERO if h[k] <= ZERO else dh[k]
        # The bias has no input to hand a slope to.
        dh[m] = ZERO


@inner(fastmath=FASTMATH)
def _list_outputs(block, cursor, work, window, importance, given):
    """For each sample, list the outputs of a window that are on, with their slopes; the loss."""
    start, column, value, begin, end = block
    first, size = window
    flags, on, at = given
    _, output_relu, _, absolute, _ = flags
    on_start, places, slopes = on
    on_start[0] = 0
    loss = ZERO
    for t in range(begin, end):
        s = t - begin
        pre = at.pre + s * PRE_ROW
        on_start[s + 1] = _list_on(work, (pre, size), output_relu, places, on_start[s])
        e = cursor[s]
        while e < start[t + 1] and column[e] < first + size:
            i = np.uint64(column[e])
            here = np.uint64(pre - first) + i
            y = abs(value[e]) if absolute else value[e]
            off = output_relu and work[here] <= ZERO
            loss += importance[i] * y * y if off else ZERO
            work[here] -= y
            e += 1
        cursor[s] = e
        for e in range(on_start[s], on_start[s + 1]):
            place = np.uint64(places[e])
            error = work[np.uint64(pre) + place]
            weighted = importance[np.uint64(first) + place] * error
            loss += weighted * error
            slopes[e] = TWO * weighted
            places[e] = np.uint64(first) + place
    return loss


@inner(fastmath=FASTMATH)
def _list_on(work, row, output_relu, places, count):
    """List which numbers of a row are on, from place `count` of the list; the place behind them."""
    pre, size = row
    count = np.uint64(count)
    for at in range(0, size, WORD):
        bits = mask_positive(work, pre + at) if output_relu else ~np.uint64(0)
        if size - at < WORD:
            bits &= (np.uint64(1) << np.uint64(size - at)) - np.uint64(1)
        if bits != 0:
            count = _list_bits(bits, at, places, count)
    return np.int64(count)


@compiled(fastmath=FASTMATH)
def finish(work, slope, shape, flags):
    """Add the gradient of all rows since `prepare` to `slope` [P]."""
    n, m = shape
    _, _, tied, _, gram = flags
    at = _layout(n, m, tied, gram)
    matrix = n * at.width
    add_rows(slope, work[at.W_in_slope : at.W_in_slope + matrix], n, m)
    outputs = work[at.W_out_slope : at.W_out_slope + matrix]
    if not tied:
        add_rows(slope[n * m :], outputs, n, m)
    bias = slope[-n:]
    for i in range(n):
        bias[i] += outputs[i * at.width + m]


@inner(fastmath=FASTMATH)
def add_rows(slope, rows, n, m):
    """Add rows with zeros behind to rows of m numbers, one after the other."""
    width = rows.size // n
    for i in range(n):
        into, given = slope[i * m : (i + 1) * m], rows[i * width : (i + 1) * width]
        for k in range(m):
            into[k] += given[k]
