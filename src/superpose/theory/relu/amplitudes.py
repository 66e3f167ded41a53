"""The amplitude laws as the series sees them: transforms, envelopes and exponential moments.

All are of the unit law (scale or value 1). For the magnitude or, where signed, the value x of an
active feature, $u(a) = E e^{iax}$, $w(a) = E x e^{iax}$ and $v(a) = E x^2 e^{iax}$. A random sign
takes the real part of u and v and the imaginary part of w.
"""

import math
from pathlib import Path

import numpy as np

from superpose.compilation import Compiler

BLOCK = 128
UNIFORM, EXPONENTIAL, HALF_NORMAL, CONSTANT = range(4)

_TAYLOR = 0.3
_ROOT = math.sqrt(2 / math.pi)
_TERMS = 40
_FAR = 7.0


compiled = Compiler(Path(__file__).parent, error_model="numpy")


def _rational():
    """Coefficients of the rational approximation to w(z), highest power first."""
    theta = np.pi * np.arange(-2 * _TERMS + 1, 2 * _TERMS) / (2 * _TERMS)
    squares = (_LENGTH * np.tan(theta / 2)) ** 2
    values = np.append(0.0, np.exp(-squares) * (_LENGTH**2 + squares))
    return np.fft.fft(np.fft.fftshift(values)).real[_TERMS:0:-1] / (4 * _TERMS)


_LENGTH = math.sqrt(_TERMS / math.sqrt(2))
_COEFFICIENTS = _rational()


@compiled
def dawson(x):
    """Dawson's integral of a real x to about 1e-14 of itself, asymptotically for large x.

    Source: J. A. C. Weideman, Computation of the complex error function (1994).
    """
    if abs(x) > _FAR:
        series = 1.0
        for k in range(15, 0, -1):
            series = 1 + (2 * k - 1) / (2 * x * x) * series
        return series / (2 * x)
    below = _LENGTH * _LENGTH + x * x
    re, im = (_LENGTH * _LENGTH - x * x) / below, 2 * _LENGTH * x / below
    p, q = 0.0, 0.0
    for k in range(_TERMS):
        p, q = p * re - q * im + _COEFFICIENTS[k], p * im + q * re
    # w(x) = 2 P / (L − ix)² + 1 / (√π (L − ix)), and D = √π/2 Im w.
    square = q * (_LENGTH * _LENGTH - x * x) + p * 2 * _LENGTH * x
    return math.sqrt(math.pi) * square / (below * below) + x / (2 * below)


@compiled
def phases(c, out):
    """e^{ict} for the first block: doubled in place, since a sine a term would cost most of all."""
    out[0, 0], out[1, 0] = np.cos(c * np.pi), np.sin(c * np.pi)
    half = 1
    while half < BLOCK:
        re, im = np.cos(c * 2 * half * np.pi), np.sin(c * 2 * half * np.pi)
        for k in range(half):
            out[0, half + k] = out[0, k] * re - out[1, k] * im
            out[1, half + k] = out[0, k] * im + out[1, k] * re
        half *= 2


@compiled
def rotate(c, start, first, out):
    """e^{ict} for the block at `start` from that of the first."""
    re, im = np.cos(c * 2 * start * np.pi), np.sin(c * 2 * start * np.pi)
    for k in range(BLOCK):
        out[0, k] = first[0, k] * re - first[1, k] * im
        out[1, k] = first[0, k] * im + first[1, k] * re


@compiled
def transforms(amplitude, c, block, highest, out):
    """u, w and v at a = c t over a block, as far as `highest` (0, 1 or 2) asks."""
    kind, signed = amplitude
    start, inverse, first = block
    u, w, v = out
    if kind == UNIFORM:
        rotate(c, start, first, u)
        _uniform(c, start, inverse, highest, out)
    elif kind == EXPONENTIAL:
        _exponential(c, inverse, highest, out)
    elif kind == HALF_NORMAL:
        _half_normal(signed, c, inverse, highest, out)
    else:
        rotate(c, start, first, u)
        for k in range(BLOCK):
            w[0, k], w[1, k] = u[0, k], u[1, k]
            v[0, k], v[1, k] = u[0, k], u[1, k]
    if signed:
        for k in range(BLOCK):
            u[1, k], w[0, k], v[1, k] = 0.0, 0.0, 0.0


@compiled
def _uniform(c, start, inverse, highest, out):
    """u = (e^{ia} − 1)/(ia), w = (e^{ia} − u)/(ia) and v = (e^{ia} − 2w)/(ia); u holds e^{ia}."""
    u, w, v = out
    split = _split(c, start)
    scale = 1 / c if split < BLOCK else 0.0
    if highest > 0:
        for k in range(split, BLOCK):
            d = inverse[k] * scale
            re, im = u[0, k], u[1, k]
            w_re = (im - (1 - re) * d) * d
            w_im = (im * d - re) * d
            w[0, k], w[1, k] = w_re, w_im
            if highest > 1:
                v[0, k], v[1, k] = (im - 2 * w_im) * d, (2 * w_re - re) * d
    for k in range(split, BLOCK):
        d = inverse[k] * scale
        u[0, k], u[1, k] = u[1, k] * d, (1 - u[0, k]) * d
    for k in range(split):
        a = c / inverse[k]
        u[0, k], u[1, k] = _taylor(a, 1)
        if highest > 0:
            w[0, k], w[1, k] = _taylor(a, 2)
        if highest > 1:
            v[0, k], v[1, k] = _taylor(a, 3)


@compiled
def _taylor(a, q):
    """Σ (ia)^r / (r! (r + q)) for |a| ≤ `_TAYLOR`: u, w and v for q = 1, 2, 3."""
    z = a * a
    re = 1 / q - z * (
        1 / (2 * (q + 2))
        - z * (1 / (24 * (q + 4)) - z * (1 / (720 * (q + 6)) - z * (1 / (40320 * (q + 8)))))
    )
    im = 1 / (q + 1) - z * (
        1 / (6 * (q + 3))
        - z * (1 / (120 * (q + 5)) - z * (1 / (5040 * (q + 7)) - z / (362880 * (q + 9))))
    )
    return re - z * z * z * z * z / (3628800 * (q + 10)), a * im


@compiled
def _split(c, start):
    """How many of the block's terms have |c| t below `_TAYLOR`, where the formulas cancel."""
    a = abs(c) * np.pi
    if a * (2 * (start + BLOCK) + 1) < _TAYLOR:
        return BLOCK
    return min(max(0, int(np.ceil((_TAYLOR / a - 1) / 2)) - start), BLOCK)


@compiled
def _exponential(c, inverse, highest, out):
    """u = 1/(1 − ia), w = u² and v = 2u³."""
    u, w, v = out
    for k in range(BLOCK):
        a = c / inverse[k]
        re = 1 / (1 + a * a)
        u[0, k], u[1, k] = re, a * re
    if highest > 0:
        for k in range(BLOCK):
            re, im = u[0, k], u[1, k]
            w[0, k], w[1, k] = re * re - im * im, 2 * re * im
    if highest > 1:
        for k in range(BLOCK):
            v[0, k] = 2 * (w[0, k] * u[0, k] - w[1, k] * u[1, k])
            v[1, k] = 2 * (w[0, k] * u[1, k] + w[1, k] * u[0, k])


@compiled
def _half_normal(signed, c, inverse, highest, out):
    """u = e^{−a²/2} + (2i/√π) D(a/√2), w = √(2/π) + iau and v = u + iaw."""
    u, w, v = out
    for k in range(BLOCK):
        a = c / inverse[k]
        u[0, k] = math.exp(-a * a / 2)
        u[1, k] = 0.0 if signed else 2 / math.sqrt(math.pi) * dawson(a / math.sqrt(2))
        if highest > 0:
            w[0, k], w[1, k] = _ROOT - a * u[1, k], a * u[0, k]
            v[0, k], v[1, k] = u[0, k] - a * w[1, k], u[1, k] + a * w[0, k]


@compiled
def envelope(amplitude, a):
    """Bounds on |u| and |w| that hold from |a| on."""
    kind, signed = amplitude
    a = abs(a)
    if kind == UNIFORM:
        u = min(1.0, (1 if signed else 2) / a)
        return u, min(0.5, (1 + u) / a)
    if kind == EXPONENTIAL:
        # Of w a sign leaves the imaginary part, 2a/(1 + a²)².
        w = 1 / (1 + a * a)
        return w if signed else math.sqrt(w), w
    if kind == HALF_NORMAL:
        if signed:
            return math.exp(-a * a / 2), max(a, 1.0) * math.exp(-(max(a, 1.0) ** 2) / 2)
        # The greatest values of a |u| and a² |w| are 1.0591 and 1.4543.
        return min(1.0, 1.06 / a), min(_ROOT, 1.455 / (a * a))
    return 1.0, 1.0


@compiled
def bounded(amplitude):
    """Whether a magnitude is at most 1."""
    return amplitude[0] == UNIFORM or amplitude[0] == CONSTANT


@compiled
def exponential_moment(amplitude, a):
    """E e^{ax}, infinite for an exponential law from |a| = 1 on."""
    kind, signed = amplitude
    if signed:
        return (_exponential_moment(kind, a) + _exponential_moment(kind, -a)) / 2
    return _exponential_moment(kind, a)


@compiled
def _exponential_moment(kind, a):
    if kind == UNIFORM:
        return math.expm1(a) / a if abs(a) > 1e-8 else 1.0 + a / 2
    if kind == EXPONENTIAL:
        return 1 / (1 - a) if a < 1 else np.inf
    if kind == HALF_NORMAL:
        return math.exp(a * a / 2) * math.erfc(-a / math.sqrt(2))
    return math.exp(a)


@compiled
def tilt(amplitude, a):
    """A bound on E |x| e^{bx} / E e^{bx} for every |b| ≤ a."""
    kind, signed = amplitude
    ratio = 1.0
    if kind == EXPONENTIAL:
        ratio = 1 / (1 - a)
    elif kind == HALF_NORMAL:
        ratio = a + _ROOT
    return 2 * ratio if signed else ratio
