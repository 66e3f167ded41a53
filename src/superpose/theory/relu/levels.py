"""The law of y level by level: its moments, its support, what is peeled and how many terms."""

import math

import numpy as np

from superpose.theory.relu.amplitudes import (
    BLOCK,
    CONSTANT,
    EXPONENTIAL,
    bounded,
    compiled,
    envelope,
    exponential_moment,
    tilt,
)

_LARGE = 1 / 16
_TILTS = (1.0, 2.0, 4.0, 8.0, 16.0)
_EXPONENTIAL_TILTS = (0.3, 0.5, 0.65, 0.8, 0.9)
# Up to so many features the support is as good as any bound on the tail.
_FEW = 4
# The least error asked of a series, in units of H². Atoms make the number of terms grow as H over
# the error, so that for constant magnitudes a model that diverges would take for ever.
_ROUNDING, _ATOMS = 1e-15, 1e-10


@compiled
def polynomial(row, law, allowed, part, work):
    r"""Add what is polynomial in y over the event that only `allowed` features are active.

    With `part` = (H, scale) that is scale · E[y²/2 + Hy/2 − x_i y − H x_i/2]; its slopes in c go
    to `slope`. Returns the value, the slope in b and the mass of the event.
    """
    i, c, b = row
    p, size, exclusive, _, mean, square = law
    H, scale = part
    slope, rate, first, cross = work
    mass, y = 1.0, b
    for s in range(p.size):
        each = p[s] / size if exclusive else p[s]
        count, total = _sum(s, size, c, allowed)
        share = 1 - p[s] + each * count if exclusive else (1.0 if count else 1 - p[s])
        if share <= 0.0:
            return 0.0, 0.0, 0.0
        mass *= share
        y += each * mean * total / share
        for j in range(s * size, (s + 1) * size):
            rate[j] = each / share if allowed[j] else 0.0
            others = 0.0 if exclusive else total - c[j]
            cross[j] = rate[j] * (c[j] * square + mean * mean * others)
            # The mean of y without this set, less that of y itself.
            first[j] = -each * mean * total / share
    yy = b * y
    for j in range(c.size):
        cross[j] += rate[j] * mean * (y + first[j])
        first[j] = rate[j] * mean
        yy += c[j] * cross[j]
    scale *= mass
    for j in range(c.size):
        together = _together(i, j, law, allowed, rate)
        slope[j] += scale * (cross[j] + H / 2 * first[j] - together)
    value = (yy + H * y) / 2 - cross[i] - H / 2 * first[i]
    return scale * value, scale * (y + H / 2 - first[i]), mass


@compiled
def _together(i, j, law, allowed, rate):
    """E x_i x_j over the event, from the rates at which the features are active."""
    size, exclusive, mean, square = law[1], law[2], law[4], law[5]
    if j == i:
        return rate[i] * square
    if j // size == i // size:
        return 0.0 if exclusive or not allowed[j] else rate[i] * mean * mean
    return rate[i] * rate[j] * mean * mean


@compiled
def _sum(s, size, c, allowed):
    count, total = 0, 0.0
    for j in range(s * size, (s + 1) * size):
        if allowed[j]:
            count += 1
            total += c[j]
    return count, total


@compiled
def support(row, law, allowed):
    """The least interval that holds y while only `allowed` features can be active."""
    _, c, b = row
    p, size, exclusive, amplitude, _, _ = law
    _, signed = amplitude
    cap = 1.0 if bounded(amplitude) else np.inf
    low, high = b, b
    for s in range(p.size):
        least, most = 0.0, 0.0
        for j in range(s * size, (s + 1) * size):
            if allowed[j] and c[j] != 0.0:
                down = -abs(c[j]) * cap if signed or c[j] < 0 else 0.0
                up = abs(c[j]) * cap if signed or c[j] > 0 else 0.0
                if exclusive:
                    least, most = min(least, down), max(most, up)
                else:
                    least, most = least + down, most + up
        low, high = low + least, high + most
    return low, high


@compiled
def half_period(row, law, allowed, ends, budget):
    """H: at least |y|, or so large that what y does beyond it costs at most `budget`.

    Rounded up to a quarter of an octave, so that H does not move with the weights and the
    derivative of the truncated series is that of the loss.
    """
    low, high = ends
    H = max(-low, high)
    if row[1].size > _FEW or np.isinf(H):
        H = min(H, _reach(row, law, allowed, budget))
    return 2.0 ** (math.ceil(4 * math.log2(H)) / 4)


@compiled
def _reach(row, law, allowed, budget):
    """Where the tail of y falls below the budget, by Chernoff's bound at a few tilts θ.

    Beyond H the waves err by at most E[(|y| − H/2)²]/2 + E[|x_i y|] over |y| > H, which for
    θH ≥ 4 is at most (H²/8 + H E|x_i| e^{θy} / E e^{θy}) e^{−θH} (E e^{θy} + E e^{−θy}).
    """
    _, c, _ = row
    amplitude = law[3]
    largest, best = 0.0, np.inf
    for j in range(c.size):
        if allowed[j]:
            largest = max(largest, abs(c[j]))
    for k in range(len(_TILTS)):
        a = _EXPONENTIAL_TILTS[k] if amplitude[0] == EXPONENTIAL else _TILTS[k]
        theta, ratio = a / largest, tilt(amplitude, a)
        up, down = _log_moment(row, law, allowed, theta), _log_moment(row, law, allowed, -theta)
        both = max(up, down) + math.log1p(math.exp(-abs(up - down)))
        H = 4 / theta
        for _ in range(50):
            needed = (both + math.log((H * H / 8 + H * ratio) / budget)) / theta
            if needed <= H:
                break
            H = needed * (1 + 1e-3)
        if needed <= H < best:
            best = H
    return best


@compiled
def _log_moment(row, law, allowed, theta):
    """log E e^{θy}, over the event that only `allowed` features are active."""
    _, c, b = row
    p, size, exclusive, amplitude, _, _ = law
    total = theta * b
    for s in range(p.size):
        share = 1 - p[s]
        if exclusive:
            for j in range(s * size, (s + 1) * size):
                if allowed[j]:
                    share += p[s] / size * exponential_moment(amplitude, theta * c[j])
        elif allowed[s * size]:
            on = p[s]
            for j in range(s * size, (s + 1) * size):
                on *= exponential_moment(amplitude, theta * c[j])
            share += on
        total += math.log(share)
    return total


@compiled
def without_large(c, law, allowed, kept):
    """Drop what is on the scale of the largest |c_j|; a product set goes as a whole."""
    p, size, exclusive = law[0], law[1], law[2]
    largest = 0.0
    for j in range(c.size):
        if allowed[j]:
            largest = max(largest, abs(c[j]))
    for s in range(p.size):
        whole = True
        for j in range(s * size, (s + 1) * size):
            kept[j] = allowed[j] and abs(c[j]) < _LARGE * largest
            whole = whole and kept[j]
        if not exclusive and not whole:
            for j in range(s * size, (s + 1) * size):
                kept[j] = False


@compiled
def affordable(budget, H, amplitude):
    """The budget of a series of half-period H, no smaller than what terms can be spent on."""
    return max(budget, (_ATOMS if amplitude[0] == CONSTANT else _ROUNDING) * H * H)


@compiled
def terms(row, law, levels, target):
    """How many terms bring the bound on the truncated tail under the budget.

    Past K terms, T = 2πK: Σ t⁻³ ≤ T⁻²/(4π) and Σ t⁻² ≤ 1/(2πT), and Δφ and Δψ are at most
    their envelopes at T, which fall with t.
    """
    budget, H = target
    count = BLOCK
    while True:
        T = 2 * np.pi * count
        phi, psi = _envelopes(row, law, levels, T / H)
        if H * H * phi / (np.pi * T * T) + 2 * H * psi / (np.pi * T) <= budget:
            return count
        count += max(1, count // BLOCK // 4) * BLOCK


@compiled
def _envelopes(row, law, levels, T):
    """Bounds on |Δφ| and |Δψ| for t ≥ T, in the units of y, from those on u and w.

    A factor is g (no large feature active) plus h (one is): |Δ| ≤ Π(g + h) − Π g.
    """
    i, c, _ = row
    p, size, exclusive, amplitude, _, _ = law
    rest, difference = 1.0, 0.0
    own, own_difference, weight = 1.0, 0.0, 0.0
    for s in range(p.size):
        g, h = 1 - p[s], 0.0
        if exclusive:
            for j in range(s * size, (s + 1) * size):
                if levels[1][j]:
                    g += p[s] / size * envelope(amplitude, c[j] * T)[0]
                elif levels[0][j]:
                    h += p[s] / size * envelope(amplitude, c[j] * T)[0]
        elif levels[0][s * size]:
            on = p[s]
            for j in range(s * size, (s + 1) * size):
                on *= envelope(amplitude, c[j] * T)[0]
            if levels[1][s * size]:
                g += on
            else:
                h = on
        if s == i // size:
            own, own_difference = g, h
        else:
            difference = difference * (g + h) + rest * h
            rest *= g
    if levels[0][i]:
        weight = _weight_bound(i, c, law, T)
    phi = difference * (own + own_difference) + rest * own_difference
    return phi, weight * (difference if levels[1][i] else difference + rest)


@compiled
def _weight_bound(i, c, law, T):
    p, size, exclusive, amplitude, _, _ = law
    s = i // size
    bound = p[s] * envelope(amplitude, c[i] * T)[1]
    if exclusive:
        return bound / size
    for j in range(s * size, (s + 1) * size):
        if j != i:
            bound *= envelope(amplitude, c[j] * T)[0]
    return bound
