"""Adam on all parameters of a dictionary at once, whose decoder rows keep norm 1."""

import numpy as np

from superpose.kernels.autoencoder.compiling import compiled, inner
from superpose.kernels.compiling import FASTMATH

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's defaults
ZERO, ONE, SHORTEST = np.float32(0.0), np.float32(1.0), np.float32(1e-12)


@compiled(fastmath=FASTMATH)
def descend(theta, moments, slope, decoder, pace):
    """One step of Adam, in place.

    decoder = (at, rows, d): the rows of W_dec in theta. The slope along each of them is taken off
    first (there is nothing to gain: their length is put back to 1 after the step). moments are
    (first, second), pace = (rate / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ)) in step t.
    """
    at, rows, d = decoder
    first, second = moments
    _adam(theta[:at], first[:at], second[:at], slope[:at], pace)
    for k in range(at, at + rows * d, d):
        row, slopes = theta[k : k + d], slope[k : k + d]
        along = square = ZERO
        for c in range(d):
            along += slopes[c] * row[c]
        for c in range(d):
            slopes[c] -= along * row[c]
        _adam(row, first[k : k + d], second[k : k + d], slopes, pace)
        for c in range(d):
            square += row[c] * row[c]
        size = ONE / max(np.sqrt(square), SHORTEST)
        for c in range(d):
            row[c] *= size
    behind = at + rows * d
    _adam(theta[behind:], first[behind:], second[behind:], slope[behind:], pace)


@inner(fastmath=FASTMATH)
def _adam(theta, first, second, slope, pace):
    size, root = pace
    for j in range(len(theta)):
        g = slope[j]
        f = np.float32(BETA1) * first[j] + np.float32(1.0 - BETA1) * g
        s = np.float32(BETA2) * second[j] + np.float32(1.0 - BETA2) * g * g
        first[j] = f
        second[j] = s
        theta[j] -= size * f / (np.sqrt(s) * root + np.float32(EPSILON))
