"""The loss of one output split by how many features are active at once.

The law of the features with weight z for each active one is a polynomial in z, and so is
everything the series asks of it: the part of k active features is the coefficient of $z^k$.
"""

import numpy as np

from superpose.theory.relu.amplitudes import BLOCK, compiled, phases, rotate, transforms
from superpose.theory.relu.levels import affordable, half_period, support, terms, without_large
from superpose.theory.relu.series import workspace


@compiled
def rows_by_active(models, worlds, rows, linear, out):
    """Fill `out` `[models, n, n + 1]` with the parts of the losses of some rows of a stack.

    As `row_losses`; the parts are those of 0 to n active features, and the absolute errors of
    a row's parts together keep to its budget. `linear` outputs have no ReLU and no series.
    """
    W, b = models
    p, budget, (size, exclusive, amplitude, signed, scale, mean, square) = worlds
    count, n, m = W.shape
    work, c = workspace(n, p.shape[1]), np.empty(n)
    power, jets = np.empty((n + 1, 2, BLOCK)), np.empty((3, n + 1))
    for number in range(rows[0], rows[1]):
        model, i = number // n, number % n
        world = model * p.shape[0] // count
        offset = b[model, i] / scale
        reach = abs(offset)
        for j in range(n):
            c[j] = 0.0
            for k in range(m):
                c[j] += W[model, i, k] * W[model, j, k]
            reach += abs(c[j])
        parts = out[model, i]
        for k in range(n + 1):
            parts[k] = 0.0 if np.isfinite(reach * reach * scale * scale) else np.nan
        if np.isfinite(reach * reach * scale * scale):
            law = (p[world], size, exclusive, (amplitude, signed), mean, square)
            target = budget[world, i] / (scale * scale)
            _row((i, c, offset), law, (target, linear), (work, power, jets), parts)
            for k in range(n + 1):
                parts[k] *= scale * scale


@compiled
def _row(row, law, target, memory, parts):
    """As `row_loss`, coefficient by coefficient."""
    i, c, _ = row
    size = law[1]
    budget, linear = target
    work, power, jets = memory
    allowed, kept = work[1]
    for j in range(c.size):
        allowed[j] = True
    _moments(row, law, allowed, jets)
    own = law[0][i // size] / (size if law[2] else 1) * law[5]
    step = 1 if law[2] else size
    for k in range(step, c.size + 1):
        parts[k] += own * jets[0, k - step]
    while True:
        low, high = support(row, law, allowed)
        if linear or low >= 0.0:
            _polynomial(row, law, allowed, (0.0, 2.0), jets, parts)
            return
        if high <= 0.0:
            return
        budget /= 2
        H = half_period(row, law, allowed, (low, high), budget / 8)
        _polynomial(row, law, allowed, (H, 1.0), jets, parts)
        without_large(c, law, allowed, kept)
        _polynomial(row, law, kept, (H, -1.0), jets, parts)
        budget = affordable(budget, H, law[3])
        _series(row, law, (budget * 7 / 8, H), (work, power), parts)
        for j in range(c.size):
            allowed[j] = kept[j]


@compiled
def _set(s, c, law, allowed):
    """Of the sum Σ c_j x_j over a set: mass, mean and second moment over its active events."""
    p, size, exclusive, _, mean, square = law
    count, total, squares = 0, 0.0, 0.0
    for j in range(s * size, (s + 1) * size):
        if allowed[j]:
            count += 1
            total += c[j]
            squares += c[j] * c[j]
    if exclusive:
        each = p[s] / size
        return each * count, each * mean * total, each * square * squares
    on = p[s] if count else 0.0
    second = square * squares + mean * mean * (total * total - squares)
    return on, on * mean * total, on * second


@compiled
def _moments(row, law, allowed, jets):
    """Coefficients of the mass, E y and E y², without the set of i."""
    i, c, b = row
    p, size, exclusive = law[0], law[1], law[2]
    step = 1 if exclusive else size
    for k in range(c.size + 1):
        jets[0, k], jets[1, k], jets[2, k] = 0.0, 0.0, 0.0
    jets[0, 0], jets[1, 0], jets[2, 0] = 1.0, b, b * b
    for s in range(p.size):
        if s != i // size:
            _multiply_moments(_set(s, c, law, allowed), 1 - p[s], step, jets)


@compiled
def _multiply_moments(factor, off, step, jets):
    mass, first, second = factor
    for k in range(jets.shape[1] - 1, -1, -1):
        for order in range(3):
            jets[order, k] *= off
        if k >= step:
            one, y, yy = jets[0, k - step], jets[1, k - step], jets[2, k - step]
            jets[0, k] += mass * one
            jets[1, k] += mass * y + first * one
            jets[2, k] += mass * yy + 2 * first * y + second * one


@compiled
def _polynomial(row, law, allowed, part, jets, parts):
    """As `levels.polynomial`: scale · E[y²/2 + Hy/2 − x_i y − H x_i/2], by coefficient."""
    i, c, _ = row
    p, size, exclusive, _, mean, square = law
    H, scale = part
    _moments(row, law, allowed, jets)
    s, step = i // size, 1 if exclusive else size
    if allowed[i]:
        each = p[s] / size if exclusive else p[s]
        others = 0.0
        if not exclusive:
            for j in range(s * size, (s + 1) * size):
                others += c[j] if j != i else 0.0
        x, xx = each * mean, each * (square * c[i] + mean * mean * others)
        for k in range(step, c.size + 1):
            one, y = jets[0, k - step], jets[1, k - step]
            parts[k] -= scale * (x * y + xx * one + H / 2 * x * one)
    _multiply_moments(_set(s, c, law, allowed), 1 - p[s], step, jets)
    for k in range(c.size + 1):
        parts[k] += scale * (jets[2, k] + H * jets[1, k]) / 2


@compiled
def _series(row, law, target, memory, parts):
    """As `series._series`, by coefficient."""
    i, c, b = row
    amplitude, H = law[3], target[1]
    work, power = memory
    _, levels, (first, u, w, _, _), scratch, inverse = work
    for j in range(c.size):
        if levels[0][j]:
            phases(c[j] / H, first[j])
    phases(b / H, first[c.size])
    for start in range(0, terms(row, law, levels, target), BLOCK):
        for k in range(BLOCK):
            inverse[k] = 1 / ((2 * (start + k) + 1) * np.pi)
        for j in range(c.size):
            if levels[0][j]:
                block = (start, inverse, first[j])
                transforms(amplitude, c[j] / H, block, 1, (u[j], w[j], scratch[0]))
        for level in range(2):
            rotate(b / H, start, first[c.size], power[0])
            for k in range(1, c.size + 1):
                _clear(power[k])
            for s in range(law[0].size):
                if s != i // law[1]:
                    _on(s, -1, law, levels[level], (u, w), scratch[1])
                    _multiply_power(scratch[1], 1 - law[0][s], 1 if law[2] else law[1], power)
            _on(i // law[1], -1, law, levels[level], (u, w), scratch[1])
            _on(i // law[1], i, law, levels[level], (u, w), scratch[2])
            _add_parts(i, law, (1.0 - 2.0 * level, H), (inverse, scratch, power), parts)


@compiled
def _add_parts(i, law, which, memory, parts):
    sign, H = which
    inverse, scratch, power = memory
    step, off = 1 if law[2] else law[1], 1 - law[0][i // law[1]]
    phi, psi = scratch[1], scratch[2]
    for k in range(parts.size):
        value = 0.0
        for q in range(BLOCK):
            t = inverse[q]
            value -= H * t * t * t * off * power[k, 1, q]
        if k >= step:
            below = power[k - step]
            for q in range(BLOCK):
                t = inverse[q]
                imag = below[0, q] * phi[1, q] + below[1, q] * phi[0, q]
                real = below[0, q] * psi[0, q] - below[1, q] * psi[1, q]
                value += t * t * (real - H * t * imag)
        parts[k] += sign * 4 * H * value


@compiled
def _on(s, weighted, law, allowed, transformed, out):
    """The transform of set s over its active events, with x_i inside for `weighted` = i."""
    p, size, exclusive = law[0], law[1], law[2]
    u, w = transformed
    _clear(out)
    if exclusive:
        for j in range(s * size, (s + 1) * size):
            if allowed[j] and (weighted < 0 or j == weighted):
                a = u[j] if weighted < 0 else w[j]
                for k in range(BLOCK):
                    out[0, k] += p[s] / size * a[0, k]
                    out[1, k] += p[s] / size * a[1, k]
    elif allowed[s * size]:
        for k in range(BLOCK):
            out[0, k] = p[s]
        for j in range(s * size, (s + 1) * size):
            a = w[j] if j == weighted else u[j]
            for k in range(BLOCK):
                re = out[0, k]
                out[0, k] = re * a[0, k] - out[1, k] * a[1, k]
                out[1, k] = re * a[1, k] + out[1, k] * a[0, k]


@compiled
def _multiply_power(factor, off, step, power):
    for k in range(power.shape[0] - 1, -1, -1):
        out = power[k]
        for q in range(BLOCK):
            out[0, q] *= off
            out[1, q] *= off
        if k >= step:
            a = power[k - step]
            for q in range(BLOCK):
                out[0, q] += a[0, q] * factor[0, q] - a[1, q] * factor[1, q]
                out[1, q] += a[0, q] * factor[1, q] + a[1, q] * factor[0, q]


@compiled
def _clear(out):
    for k in range(BLOCK):
        out[0, k], out[1, k] = 0.0, 0.0
