"""The Fourier series of one output's loss and of its slopes."""

import numpy as np

from superpose.theory.relu.amplitudes import BLOCK, compiled, phases, rotate, transforms
from superpose.theory.relu.levels import (
    affordable,
    half_period,
    polynomial,
    support,
    terms,
    without_large,
)


@compiled
def workspace(n, sets):
    """Memory for `row_loss`: vectors over features, flags, and blocks of transforms."""
    vectors, flags = np.zeros((4, n)), np.ones((2, n), np.bool_)
    # For each block, rows 0 and 1 are real and imaginary parts.
    first, u, w = np.empty((n + 1, 2, BLOCK)), np.empty((n, 2, BLOCK)), np.empty((n, 2, BLOCK))
    before, factor = np.empty((sets, 2, BLOCK)), np.empty((sets, 2, BLOCK))
    return vectors, flags, (first, u, w, before, factor), np.empty((8, 2, BLOCK)), np.empty(BLOCK)


@compiled
def row_loss(row, law, budget, sloped, work):
    """E (x_i − ReLU(y))² for `row` = (i, c, b) within `budget`, and its slope in b.

    Its slopes in c are left in `work[0][0]`, where `sloped`; without, nothing there holds. The
    error is at most `budget`, or 1e-15 of H² (1e-10 for constant magnitudes).
    """
    i, c, _ = row
    p, size, exclusive, _, _, square = law
    slope, rate, moment, cross = work[0]
    allowed, kept = work[1]
    vectors = (slope, rate, moment, cross)
    value, slope_b = p[i // size] * square / (size if exclusive else 1), 0.0
    for j in range(c.size):
        allowed[j] = True
        slope[j] = 0.0
    while True:
        low, high = support(row, law, allowed)
        if high <= 0.0:
            return value, slope_b
        if low >= 0.0:
            more, more_b, _ = polynomial(row, law, allowed, (0.0, 2.0), vectors)
            return value + more, slope_b + more_b
        budget /= 2
        H = half_period(row, law, allowed, (low, high), budget / 8)
        more, more_b, mass = polynomial(row, law, allowed, (H, 1.0), vectors)
        if mass == 0.0:
            return value, slope_b
        value, slope_b = value + more, slope_b + more_b
        without_large(c, law, allowed, kept)
        more, more_b, _ = polynomial(row, law, kept, (H, -1.0), vectors)
        value, slope_b = value + more, slope_b + more_b
        budget = affordable(budget, H, law[3])
        more, more_b = _series(row, law, (budget * 7 / 8, H), sloped, work)
        value, slope_b = value + more, slope_b + more_b
        for j in range(c.size):
            allowed[j] = kept[j]


@compiled
def _series(row, law, target, sloped, work):
    """Σ 4H Re Δψ(t)/t² − 4H² Im Δφ(t)/t³ with y in units of H, and its slope in b.

    Δφ and Δψ are the transforms of y and of x_i y over the events at the first level that are
    not at the second; terms are summed until the bound on the rest falls below the budget.
    """
    i, c, b = row
    amplitude, H = law[3], target[1]
    _, levels, (first, u, w, _, _), scratch, inverse = work
    v = scratch[0]
    for j in range(c.size):
        if levels[0][j]:
            phases(c[j] / H, first[j])
    phases(b / H, first[c.size])
    value, slope_b = 0.0, 0.0
    for start in range(0, terms(row, law, levels, target), BLOCK):
        for k in range(BLOCK):
            inverse[k] = 1 / ((2 * (start + k) + 1) * np.pi)
        for q in range(1, c.size + 1):
            # The own feature comes last and leaves its v.
            j = (i + q) % c.size
            if levels[0][j]:
                highest = 2 if j == i else 1 if sloped else 0
                block = (start, inverse, first[j])
                transforms(amplitude, c[j] / H, block, highest, (u[j], w[j], v))
        for level in range(2):
            rotate(b / H, start, first[c.size], scratch[1])
            more, more_b = _level(row, law, (level, H, sloped), work)
            value += more
            slope_b += more_b
    return value, slope_b


@compiled
def _level(row, law, which, work):
    """One block's part of the value, of the slope in b and, where `sloped`, of those in c."""
    i = row[0]
    p, size = law[0], law[1]
    level, H, sloped = which
    vectors, levels, (_, u, w, before, factor), scratch, inverse = work
    allowed, own = levels[level], i // size
    product, phi, psi = scratch[1], scratch[2], scratch[3]
    constant = 1.0 - 2.0 * level
    for s in range(p.size):
        if s != own and not _any(s, size, allowed):
            constant *= 1 - p[s]
    _scale(product, constant)
    for s in range(p.size):
        if s != own and _any(s, size, allowed):
            _copy(product, before[s])
            _factor(s, law, allowed, u, factor[s])
            _multiply(product, factor[s])
    _own(i, law, allowed, (u, w), scratch)
    value = 0.0
    for k in range(BLOCK):
        t = inverse[k]
        imag = product[0, k] * phi[1, k] + product[1, k] * phi[0, k]
        real = product[0, k] * psi[0, k] - product[1, k] * psi[1, k]
        value += 4 * H * t * t * (real - H * t * imag)
    if not sloped:
        return value, 0.0
    slope = vectors[0]
    slope_b = _own_slopes(i, law, (allowed, H, inverse), (u, w, slope), scratch)
    # `phi` turns into what multiplies e^{ibt} and the factors of the other sets.
    suffix, part = phi, scratch[5]
    for s in range(p.size - 1, -1, -1):
        if s != own and _any(s, size, allowed):
            _copy(before[s], part)
            _multiply(part, suffix)
            _add_slopes((s, -1), law, allowed, (part, u, w, slope), scratch[6])
            _multiply(suffix, factor[s])
    return value, slope_b


@compiled
def _own_slopes(i, law, part, transformed, scratch):
    """Slopes in b, c_i and the c_j of i's own set; leaves −4Hφ/t² + 4iψ/t where φ was."""
    size, exclusive = law[1], law[2]
    allowed, H, inverse = part
    u, w, slope = transformed
    product, phi, psi, chi, other = scratch[1], scratch[2], scratch[3], scratch[4], scratch[5]
    if size > 1 and (exclusive or allowed[i]):
        _combine(u[i], w[i], H, inverse, other)
        if exclusive:
            for k in range(BLOCK):
                other[0, k], other[1, k] = -4 * H * inverse[k] * inverse[k], 0.0
        _multiply(other, product)
        _add_slopes((i // size, i), law, allowed, (other, u, w, slope), scratch[6])
    if allowed[i]:
        _combine(psi, chi, H, inverse, other)
        slope[i] += _dot(other, product)
    _combine(phi, psi, H, inverse, phi)
    return _dot(phi, product)


@compiled
def _own(i, law, allowed, transformed, scratch):
    """The transforms of i's set: plain, with x_i and with x_i² inside the expectation."""
    p, size, exclusive = law[0], law[1], law[2]
    u, w = transformed
    v, phi, psi, chi, others = scratch[0], scratch[2], scratch[3], scratch[4], scratch[5]
    s = i // size
    _factor(s, law, allowed, u, phi)
    on = p[s] / size if exclusive else p[s]
    for k in range(BLOCK):
        others[0, k], others[1, k] = on if allowed[i] else 0.0, 0.0
    if allowed[i] and not exclusive:
        for j in range(s * size, (s + 1) * size):
            if j != i:
                _multiply(others, u[j])
    _copy(others, psi)
    _copy(others, chi)
    if allowed[i]:
        _multiply(psi, w[i])
        _multiply(chi, v)


@compiled
def _factor(s, law, allowed, u, out):
    """The transform of set s: off, or one of / all of its members."""
    p, size, exclusive = law[0], law[1], law[2]
    if not exclusive and allowed[s * size]:
        _copy(u[s * size], out)
        for j in range(s * size + 1, (s + 1) * size):
            _multiply(out, u[j])
        for k in range(BLOCK):
            out[0, k] = 1 - p[s] + p[s] * out[0, k]
            out[1, k] = p[s] * out[1, k]
        return
    for k in range(BLOCK):
        out[0, k], out[1, k] = 1 - p[s], 0.0
    if exclusive:
        for j in range(s * size, (s + 1) * size):
            if allowed[j]:
                for k in range(BLOCK):
                    out[0, k] += p[s] / size * u[j, 0, k]
                    out[1, k] += p[s] / size * u[j, 1, k]


@compiled
def _add_slopes(members, law, allowed, arrays, scratch):
    """Add Σ Re(part · ∂F/∂u_j · w_j) for the members j of a set, but for one to leave out."""
    p, size, exclusive = law[0], law[1], law[2]
    s, without = members
    part, u, w, slope = arrays
    on = p[s] / size if exclusive else p[s]
    for j in range(s * size, (s + 1) * size):
        if j == without or not allowed[j]:
            continue
        if exclusive or size == 1:
            slope[j] += on * _dot(part, w[j])
        else:
            _copy(part, scratch)
            for other in range(s * size, (s + 1) * size):
                if other != j and other != without:
                    _multiply(scratch, u[other])
            slope[j] += on * _dot(scratch, w[j])


@compiled
def _combine(phi, psi, H, inverse, out):
    """−4Hφ/t² + 4iψ/t: what a derivative of the loss's series has in place of its weights."""
    for k in range(BLOCK):
        t = inverse[k]
        re = -4 * H * t * t * phi[0, k] - 4 * t * psi[1, k]
        out[1, k] = -4 * H * t * t * phi[1, k] + 4 * t * psi[0, k]
        out[0, k] = re


@compiled
def _any(s, size, allowed):
    found = False
    for j in range(s * size, (s + 1) * size):
        found = found or allowed[j]
    return found


@compiled
def _copy(a, out):
    # Not a slice assignment, which would double the time to compile the module.
    for k in range(BLOCK):
        out[0, k], out[1, k] = a[0, k], a[1, k]


@compiled
def _scale(out, factor):
    for k in range(BLOCK):
        out[0, k] *= factor
        out[1, k] *= factor


@compiled
def _multiply(out, factor):
    for k in range(BLOCK):
        re = out[0, k]
        out[0, k] = re * factor[0, k] - out[1, k] * factor[1, k]
        out[1, k] = re * factor[1, k] + out[1, k] * factor[0, k]


@compiled
def _dot(a, b):
    """Σ Re ab; in four sums, which the machine keeps in one register."""
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    for k in range(0, BLOCK, 4):
        one += a[0, k] * b[0, k] - a[1, k] * b[1, k]
        two += a[0, k + 1] * b[0, k + 1] - a[1, k + 1] * b[1, k + 1]
        three += a[0, k + 2] * b[0, k + 2] - a[1, k + 2] * b[1, k + 2]
        four += a[0, k + 3] * b[0, k + 3] - a[1, k + 3] * b[1, k + 3]
    return one + two + three + four
