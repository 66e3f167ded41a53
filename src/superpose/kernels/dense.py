"""The dense way through a step: every feature of every sample, for shapes known at run time.

A tile is feature-major, so that vectors run along its samples. Features go in bands that stay in
the fast caches: their pre-activations, the slopes of the loss by those, and what they send back
to the hidden layer, before the next band.
"""

import numpy as np

from superpose.kernels.compiling import FASTMATH, compiled, inner
from superpose.kernels.products import dots, product

TILE = 128
BAND = 48
ZERO = np.float32(0.0)


@compiled
def work_size(n, m):
    """The length of `work`: h and slopes by h, each `[m, TILE]`, and by outputs, `[n, TILE]`."""
    return (2 * m + n) * TILE


@compiled(fastmath=FASTMATH)
def add_gradient(tile, width, work, theta, slope, importance, l1, shape, flags):
    """Add the gradient of the loss, summed over a tile, to `slope`, and return that loss.

    tile `[n width]` is feature-major, its width a multiple of `STEP` and at most `TILE`; theta and
    slope are W, b or W_in, W_out, b one after the other, shape is (n, m) and flags are (hidden
    relu, output relu, tied, absolute target). All arrays are flat float32.
    """
    n, m = shape
    tied = flags[2]
    # Numbers rather than literals, each of which would have `product` and `dots` compiled again.
    zero, one, size = np.intp(0), np.intp(1), np.intp(width)
    decoder = zero if tied else n * m
    h, dh, g = zero, m * size, 2 * m * size
    for i in range(0, n, BAND):
        features = (tile, i * size, size, min(BAND, n - i))
        product((work, h, size, i == 0), (theta, i * m, one, m), features, m, size)
    loss = add_outputs((tile, size), size, work, theta, slope, importance, l1, shape, flags)
    if tied:
        both = one + one
        dots((slope, zero, m), (work, g, tile, zero, both), (work, h, work, dh, size), n, m)
    else:
        dots((slope, decoder, m), (work, g, work, g, one), (work, h, work, h, size), n, m)
        dots((slope, zero, m), (tile, zero, tile, zero, one), (work, dh, work, dh, size), n, m)
    return loss


@compiled(fastmath=FASTMATH)
def add_outputs(inputs, size, work, theta, slope, importance, l1, shape, flags):
    """From the hidden layer without its activation, in `work`, to all slopes by activations.

    inputs = (tile, samples from row to row of it). `work` has h, slopes by h and slopes by
    outputs behind one another, in rows of `size` samples. Adds the slopes of the bias; returns
    the loss.
    """
    n, m = shape
    tile, stride = inputs
    hidden_relu, output_relu, tied, absolute = flags
    zero, one = np.intp(0), np.intp(1)
    anew, onto = n > 0, n < 0
    decoder = zero if tied else n * m
    bias = decoder + n * m
    h, dh, g = zero, m * size, 2 * m * size
    loss = _activate(work, l1, m * size, hidden_relu)
    for i in range(0, n, BAND):
        at, rows, weights = g + i * size, min(BAND, n - i), decoder + i * m
        product((work, at, size, anew), (theta, weights, m, one), (work, h, size, m), rows, size)
        for r in range(rows):
            output = (tile, (i + r) * stride, theta[bias + i + r], importance[i + r])
            here = at + r * size
            error, total = _output_slope(work, here, output, size, (output_relu, absolute))
            loss += error
            slope[bias + i + r] += total
        product((work, dh, size, onto), (theta, weights, one, m), (work, at, size, rows), m, size)
    if hidden_relu:
        for j in range(m * size):
            work[dh + j] = ZERO if work[h + j] <= ZERO else work[dh + j]
    return loss


@inner(fastmath=FASTMATH)
def _activate(work, l1, size, hidden_relu):
    """Apply the hidden activation; start the slopes by h from those of l1 Σ|h|, which is returned.

    Comparisons, here and below, let NaN through, so that a diverged model is seen.
    """
    total = ZERO
    for j in range(size):
        h = work[j]
        h = ZERO if hidden_relu and h < ZERO else h
        sign = np.float32(1.0) if h > ZERO else (np.float32(-1.0) if h < ZERO else ZERO)
        work[j] = h
        work[size + j] = l1 * sign
        total += abs(h)
    return l1 * total


@inner(fastmath=FASTMATH)
def _output_slope(work, at, output, samples, flags):
    """Turn pre-activations of one output, yet without bias, into slopes of the loss.

    Gives the loss of this output and the sum of the slopes.
    """
    tile, x, b, importance = output
    output_relu, absolute = flags
    # Indices that could be negative would wrap, and of those the compiler vectorises nothing.
    at, x = max(at, 0), max(x, 0)
    floor = ZERO if output_relu else np.float32(-np.inf)
    double = np.float32(2.0) * importance
    loss = ZERO
    total = ZERO
    for t in range(samples):
        y = tile[x + t]
        y = abs(y) if absolute else y
        pre = work[at + t] + b
        error = (floor if pre < floor else pre) - y
        loss += error * error
        slope = ZERO if pre <= floor else double * error
        total += slope
        work[at + t] = slope
    return importance * loss, total
