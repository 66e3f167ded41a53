"""The rows of a whole stack of models in one compiled call."""

import numpy as np

from superpose.theory.relu.amplitudes import compiled
from superpose.theory.relu.series import row_loss, workspace


@compiled
def row_losses(models, worlds, rows, out):
    """Fill the losses of some rows of a stack, counted through all its models, and their slopes.

    `models` are W_in and W_out `[models, n, m]` and b `[models, n]`; `worlds` = (p `[worlds,
    sets]`, budget `[worlds, n]`, (size, exclusive, amplitude, signed, scale, mean, square)), as
    many models to each world, of which the first have the first. `rows` is (first, last + 1).
    `out` are losses `[models, n]`, slopes in b, and slopes in the rows of W_out W_inᵀ
    `[models, n, n]`; where the last is empty, no slopes. A row that is not finite, or whose
    square is not, gets NaN.
    """
    W_in, W_out, b = models
    p, budget, (size, exclusive, amplitude, signed, scale, mean, square) = worlds
    losses, slopes_b, slopes = out
    count, n, m = W_in.shape
    sloped = slopes.shape[0] > 0
    work, c = workspace(n, p.shape[1]), np.empty(n)
    for number in range(rows[0], rows[1]):
        model, i = number // n, number % n
        world = model * p.shape[0] // count
        offset = b[model, i] / scale
        reach = abs(offset)
        for j in range(n):
            c[j] = 0.0
            for k in range(m):
                c[j] += W_out[model, i, k] * W_in[model, j, k]
            reach += abs(c[j])
        if not np.isfinite(reach * reach * scale * scale):
            _spoil(model, i, sloped, out)
            continue
        law = (p[world], size, exclusive, (amplitude, signed), mean, square)
        target = budget[world, i] / (scale * scale)
        value, slope_b = row_loss((i, c, offset), law, target, sloped, work)
        losses[model, i] = max(value * scale * scale, 0.0)
        if sloped:
            slopes_b[model, i] = slope_b * scale
            for j in range(n):
                slopes[model, i, j] = work[0][0, j] * scale * scale


@compiled
def _spoil(model, i, sloped, out):
    losses, slopes_b, slopes = out
    losses[model, i] = np.nan
    if sloped:
        slopes_b[model, i] = np.nan
        for j in range(slopes.shape[2]):
            slopes[model, i, j] = np.nan


@compiled
def weight_gradient(W, slopes, importance, out):
    """Fill (G + Gᵀ) W `[models, n, m]`, G being the slopes in W Wᵀ weighted by importance.

    Importance is `[worlds, n]`, with as many models to each world.
    """
    count, n, m = W.shape
    for model in range(count):
        world = model * importance.shape[0] // count
        for i in range(n):
            for k in range(m):
                out[model, i, k] = 0.0
            for j in range(n):
                g = importance[world, i] * slopes[model, i, j]
                g += importance[world, j] * slopes[model, j, i]
                for k in range(m):
                    out[model, i, k] += g * W[model, j, k]
