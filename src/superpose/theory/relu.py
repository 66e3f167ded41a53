r"""The two expectations behind a ReLU output, for any number of features.

Output i sees one number, $y = b_i + \sum_j c_j x_j$ with c row i of $W W^\top$, and
$E (x_i - \mathrm{ReLU}(y))^2 = E x_i^2 - 2 E[x_i \mathrm{ReLU}(y)] + E[\mathrm{ReLU}(y)^2]$.
The characteristic function of y is a product over sets of features, in closed form, so both
expectations follow from the Fourier series of ReLU. With $|y| \le H$ and $t_k = (2k-1) \pi / H$:

$2\,\mathrm{ReLU}(y) = y + |y|$, and $|y| = H/2 - \sum_k 4 \cos(t_k y) / (H t_k^2)$;

$2\,\mathrm{ReLU}(y)^2 = y^2 + y |y|$, and $y |y| = H y - \sum_k 8 \sin(t_k y) / (H t_k^3)$,

a triangle and a parabola wave, whose only kink inside the support is the one at 0. What is
polynomial in y comes from the moments.

The series converges slowly where much of the mass of y lies within $1 / t_K$ of the kink, as it
does when all features with a large $c_j$ are off and b is near 0 (trained models, whose
interferences are often 1e-5, do this). So the law is peeled by size: a level has the
features whose $|c_j|$ reach a share `_LARGE` of the largest, its series sums over the
events in which at least one of them is active, and the event that none is goes to the next
level with a support, and so a resolution, of its own. The last level is the atom y = b.

Source: F. Fang and C. W. Oosterlee, A novel pricing method for European options based on
Fourier-cosine series expansions (2008), for the expansion of a payoff against a
characteristic function; the waves, the levels and the bound are this module's own.
"""

import numpy as np
from numba import njit

_BLOCK = 256
_LARGE = 1 / 16
_TAYLOR = 0.25
_ROUNDING = 1e-15


def _compiled(function):
    return njit(cache=True, nogil=True, error_model="numpy")(function)


@_compiled
def losses(c, b, law, budget, out):
    """Fill `out[r]` with E (x_i − ReLU(y))² for the rows c `[rows, n]` of W Wᵀ.

    `law` is (i of the first row, p of each set, size, exclusive). The error of row r is at most
    `budget[r]`; a row that is not finite, or whose square is not, gets NaN.
    """
    first, p, size, exclusive = law
    members = size if exclusive else 1
    for r in range(c.shape[0]):
        i = first + r
        reach = abs(b[r])
        for j in range(c.shape[1]):
            reach += abs(c[r, j])
        if np.isfinite(reach * reach):
            row = (i, c[r], b[r])
            square, product = expectations(row, (p, size, exclusive), budget[r])
            out[r] = p[i // size] / members / 3 - 2 * product + square
        else:
            out[r] = np.nan


@_compiled
def expectations(row, law, budget):
    """E[ReLU(y)²] and E[x_i ReLU(y)] for `row` = (i, c, b).

    The first's error plus twice the second's is at most `budget`, or rounding (1e-15 of H²).
    """
    i, c, b = row
    square, product = 0.0, 0.0
    allowed = np.ones(c.size, np.bool_)
    while True:
        mass, y, yy, x, xy = _moments(row, law, allowed)
        low, high = _support(row, law, allowed)
        if mass == 0.0 or high <= 0.0:
            return square, product
        if low >= 0.0:
            return square + yy, product + xy
        kept = _without_large(c, law, allowed)
        _, y_kept, yy_kept, x_kept, xy_kept = _moments(row, law, kept)
        H = max(-low, high)
        budget = max(budget / 2, _ROUNDING * H * H)
        sine, cosine = _series((i, c / H, b / H), law, (allowed, kept), (budget, H))
        square += (yy - yy_kept + H * (y - y_kept)) / 2 - H * H * sine
        product += (xy - xy_kept + H / 2 * (x - x_kept)) / 2 - H * cosine
        allowed = kept


@_compiled
def _moments(row, law, allowed):
    """Mass, E y, E y², E x_i and E x_i y over the event that only `allowed` features are active."""
    i, c, b = row
    p, size, exclusive = law
    mass, mean, variance, x, xy = 1.0, b, 0.0, 0.0, 0.0
    for s in range(p.size):
        count, total, squares = 0, 0.0, 0.0
        for j in range(s * size, (s + 1) * size):
            if allowed[j]:
                count += 1
                total += c[j]
                squares += c[j] * c[j]
        if exclusive:
            each = p[s] / size
            share = 1 - p[s] + each * count
            second = each * squares / 3
        else:
            each = p[s]
            share = 1.0 if count else 1 - p[s]
            second = each * (squares / 3 + (total * total - squares) / 4)
        if share <= 0.0:
            return 0.0, 0.0, 0.0, 0.0, 0.0
        first = each * total / 2 / share
        mass *= share
        mean += first
        variance += second / share - first * first
        if s == i // size and allowed[i]:
            others = 0.0 if exclusive else total - c[i]
            x = each / 2 / share
            xy = each * (c[i] / 3 + others / 4) / share - x * first
    return mass, mass * mean, mass * (variance + mean * mean), mass * x, mass * (xy + x * mean)


@_compiled
def _support(row, law, allowed):
    """The least interval that holds y while only `allowed` features can be active."""
    _, c, b = row
    p, size, exclusive = law
    low, high = b, b
    for s in range(p.size):
        least, most = 0.0, 0.0
        for j in range(s * size, (s + 1) * size):
            if allowed[j]:
                if exclusive:
                    least, most = min(least, c[j]), max(most, c[j])
                else:
                    least, most = least + min(c[j], 0.0), most + max(c[j], 0.0)
        low, high = low + least, high + most
    return low, high


@_compiled
def _without_large(c, law, allowed):
    """Drop what is on the scale of the largest |c_j|; a product set goes as a whole."""
    p, size, exclusive = law
    largest = 0.0
    for j in range(c.size):
        if allowed[j]:
            largest = max(largest, abs(c[j]))
    kept = np.zeros(c.size, np.bool_)
    for s in range(p.size):
        whole = True
        for j in range(s * size, (s + 1) * size):
            kept[j] = allowed[j] and abs(c[j]) < _LARGE * largest
            whole = whole and kept[j]
        if not exclusive and not whole:
            for j in range(s * size, (s + 1) * size):
                kept[j] = False
    return kept


@_compiled
def _series(row, law, levels, target):
    """Sums of 4 Im Δφ(t)/t³ and 2 Re Δψ(t)/t² with y in units of H.

    Δφ and Δψ are the transforms of y and of x_i y over the events in `levels[0]` that are not in
    `levels[1]`; terms are summed until the bound on the rest falls below the budget.
    """
    i, c, b = row
    p, size, _ = law
    own = i // size
    terms = _terms(row, law, levels, target)
    # The two rows are real and imaginary parts.
    product, factor, weighted = np.empty((2, _BLOCK)), np.empty((2, _BLOCK)), np.empty((2, _BLOCK))
    scratch, inverse = np.empty((2, _BLOCK)), np.empty(_BLOCK)
    sine, cosine = 0.0, 0.0
    for start in range(0, terms, _BLOCK):
        for k in range(_BLOCK):
            inverse[k] = 1 / ((2 * (start + k) + 1) * np.pi)
        for level in range(2):
            allowed, sign = levels[level], 1 - 2 * level
            _phases(b, start, product)
            for q in range(1, p.size):
                _factor((own + q) % p.size, c, law, allowed, (start, inverse, scratch, factor))
                _multiply(product, factor)
            _factor(own, c, law, allowed, (start, inverse, scratch, factor))
            _weighted(i, c, law, allowed, (start, inverse, scratch, weighted))
            for k in range(_BLOCK):
                t = inverse[k]
                sine += sign * 4 * t * t * t * _imag(product, factor, k)
                cosine += sign * 2 * t * t * _real(product, weighted, k)
    return sine, cosine


@_compiled
def _terms(row, law, levels, target):
    """How many terms bring the bound on the truncated tail under the budget.

    Past K terms, T = 2πK: Σ t⁻³ ≤ T⁻²/(4π) and Σ t⁻² ≤ 1/(2πT), and Δφ and Δψ are at most
    their envelopes at T, which fall with t.
    """
    budget, H = target
    terms = _BLOCK
    while True:
        T = 2 * np.pi * terms
        phi, psi = _envelopes(row, law, levels, T)
        if H * H * phi / (np.pi * T * T) + 2 * H * psi / (np.pi * T) <= budget:
            return terms
        terms += max(1, terms // _BLOCK // 4) * _BLOCK


@_compiled
def _envelopes(row, law, levels, T):
    """Bounds on |Δφ| and |Δψ| for t ≥ T, from |u(a)| ≤ 2/|a| and |w(a)| ≤ (1 + |u(a)|)/|a|.

    A factor is g (no large feature active) plus h (one is): |Δ| ≤ Π(g + h) − Π g.
    """
    i, c, _ = row
    p, size, exclusive = law
    rest, difference = 1.0, 0.0
    own, own_difference, weight = 1.0, 0.0, 0.0
    for s in range(p.size):
        g, h = 1 - p[s], 0.0
        if exclusive:
            for j in range(s * size, (s + 1) * size):
                if levels[1][j]:
                    g += p[s] / size * _decay(c[j], T)
                elif levels[0][j]:
                    h += p[s] / size * _decay(c[j], T)
        elif levels[0][s * size]:
            on = p[s]
            for j in range(s * size, (s + 1) * size):
                on *= _decay(c[j], T)
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


@_compiled
def _decay(c, T):
    return min(1.0, 2 / (abs(c) * T))


@_compiled
def _weight_bound(i, c, law, T):
    p, size, exclusive = law
    s = i // size
    bound = p[s] * min(0.5, (1 + _decay(c[i], T)) / (abs(c[i]) * T))
    if exclusive:
        return bound / size
    for j in range(s * size, (s + 1) * size):
        if j != i:
            bound *= _decay(c[j], T)
    return bound


@_compiled
def _factor(s, c, law, allowed, block):
    """The transform of set s: off, or one of / all of its members."""
    p, size, exclusive = law
    start, inverse, scratch, out = block
    _fill(out, 1 - p[s])
    if exclusive:
        for j in range(s * size, (s + 1) * size):
            if allowed[j]:
                _uniform(c[j], start, inverse, scratch)
                _add(out, scratch, p[s] / size)
    elif allowed[s * size]:
        _uniform(c[s * size], start, inverse, out)
        for j in range(s * size + 1, (s + 1) * size):
            _uniform(c[j], start, inverse, scratch)
            _multiply(out, scratch)
        for k in range(_BLOCK):
            out[0, k] = 1 - p[s] + p[s] * out[0, k]
            out[1, k] = p[s] * out[1, k]


@_compiled
def _weighted(i, c, law, allowed, block):
    """The transform of set i with x_i inside the expectation; 0 where i is not allowed."""
    p, size, exclusive = law
    start, inverse, scratch, out = block
    _fill(out, 0.0)
    if not allowed[i]:
        return
    s = i // size
    _uniform_weighted(c[i], start, inverse, scratch)
    _add(out, scratch, p[s] / size if exclusive else p[s])
    if not exclusive:
        for j in range(s * size, (s + 1) * size):
            if j != i:
                _uniform(c[j], start, inverse, scratch)
                _multiply(out, scratch)


@_compiled
def _uniform(c, start, inverse, out):
    """u(a) = E e^{iax} = (e^{ia} − 1)/(ia) at a = c t, x uniform on (0, 1]."""
    split = _split(c, start)
    _phases(c, start, out)
    scale = 1 / c if split < _BLOCK else 0.0
    for k in range(split, _BLOCK):
        re = out[0, k]
        out[0, k] = out[1, k] * inverse[k] * scale
        out[1, k] = (1 - re) * inverse[k] * scale
    for k in range(split):
        a = c / inverse[k]
        z = a * a
        out[0, k] = 1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72 * (1 - z / 110))))
        out[1, k] = a / 2 * (1 - z / 12 * (1 - z / 30 * (1 - z / 56 * (1 - z / 90))))


@_compiled
def _uniform_weighted(c, start, inverse, out):
    """w(a) = E x e^{iax} = (e^{ia}(1 − ia) − 1)/a² at a = c t."""
    split = _split(c, start)
    _phases(c, start, out)
    for k in range(split, _BLOCK):
        a = c / inverse[k]
        re, im = out[0, k], out[1, k]
        out[0, k] = (re + a * im - 1) / (a * a)
        out[1, k] = (im - a * re) / (a * a)
    for k in range(split):
        a = c / inverse[k]
        z = a * a
        out[0, k] = 1 / 2 - z * (1 / 8 - z * (1 / 144 - z * (1 / 5760 - z * (1 / 403200))))
        out[1, k] = a * (1 / 3 - z * (1 / 30 - z * (1 / 840 - z * (1 / 45360 - z / 3991680))))


@_compiled
def _split(c, start):
    """How many of the block's terms have |c| t below `_TAYLOR`, where the formulas cancel."""
    a = abs(c) * np.pi
    if a * (2 * (start + _BLOCK) + 1) < _TAYLOR:
        return _BLOCK
    return min(max(0, int(np.ceil((_TAYLOR / a - 1) / 2)) - start), _BLOCK)


@_compiled
def _phases(c, start, out):
    """e^{i c t} over the block: doubled in place, since a sine a term would cost most of all."""
    angle = c * (2 * start + 1) * np.pi
    out[0, 0], out[1, 0] = np.cos(angle), np.sin(angle)
    half = 1
    while half < _BLOCK:
        angle = c * 2 * half * np.pi
        re, im = np.cos(angle), np.sin(angle)
        for k in range(half):
            out[0, half + k] = out[0, k] * re - out[1, k] * im
            out[1, half + k] = out[0, k] * im + out[1, k] * re
        half *= 2


@_compiled
def _fill(out, real):
    # Not a slice assignment, which would double the time to compile the module.
    for k in range(_BLOCK):
        out[0, k] = real
        out[1, k] = 0.0


@_compiled
def _multiply(out, factor):
    for k in range(_BLOCK):
        re = out[0, k]
        out[0, k] = re * factor[0, k] - out[1, k] * factor[1, k]
        out[1, k] = re * factor[1, k] + out[1, k] * factor[0, k]


@_compiled
def _add(out, term, scale):
    for k in range(_BLOCK):
        out[0, k] += scale * term[0, k]
        out[1, k] += scale * term[1, k]


@_compiled
def _real(a, b, k):
    return a[0, k] * b[0, k] - a[1, k] * b[1, k]


@_compiled
def _imag(a, b, k):
    return a[0, k] * b[1, k] + a[1, k] * b[0, k]
