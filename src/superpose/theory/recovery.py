"""How many sparse features can be told from m dimensions again."""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import fminbound
from scipy.special import log_ndtr, ndtri


def sparse_recovery_dimensions(n: int, k: float, *, constant: float = 1.0) -> float:
    r"""Dimensions that k active features of n need by compressed sensing: $C k \ln(n / k)$.

    With $k = pn$ it is $-C\, n p \ln p$. A law of scaling: any linear map from which all
    k-sparse vectors can be recovered stably (to within a constant times the best k-sparse error)
    has $m \ge C k \ln (n / k)$ for a `constant` C that depends on the stability asked for and
    is not known sharply; random maps do with a larger C. Use it for the shape of a curve.
    Raises ValueError for k outside (0, n].
    Source: Do Ba et al. 2010, Lower bounds for sparse recovery; Toy Models of Superposition,
    appendix on compressed sensing.

    >>> round(sparse_recovery_dimensions(1000, 10), 3)
    46.052
    """
    if not 0 < k <= n:
        raise ValueError(
            f"sparse_recovery_dimensions(n={n}, k={k:g}): k of the n features are active, so k "
            f"lies in (0, {n}]"
        )
    return constant * k * math.log(n / k)


def guaranteed_sparsity(coherence: float) -> float:
    r"""How many active features a threshold always recovers at a given coherence $\mu$.

    The largest whole k with $k < (1 + 1/\mu) / 2$: with unit directions and features that are 0
    or 1, an active read-out $W_i \cdot h$ is at least $1 - (k - 1) \mu$ and an inactive one at most
    $k \mu$, so that a threshold between them gives every support of that size exactly. The same
    k is guaranteed for magnitudes of any size by orthogonal matching pursuit and by basis
    pursuit. Infinite at $\mu = 0$. A worst case: with the coherence of random directions, about
    $\sqrt{4 \ln n / m}$, it asks for $m \approx 4 (2k - 1)^2 \ln n$, quadratic in k, while a random
    support is found with m in proportion to k (`recovery_probability`).
    Raises ValueError for a coherence outside [0, 1].
    Source: Tropp 2004, Greed is good; Donoho & Elad 2003 for basis pursuit.

    >>> guaranteed_sparsity(0.1)
    5.0
    """
    if not 0 <= coherence <= 1:
        raise ValueError(
            f"guaranteed_sparsity(coherence={coherence:g}): the largest |cosine| of two directions "
            "lies in [0, 1]"
        )
    if coherence == 0:
        return math.inf
    limit = (1 + 1 / coherence) / 2
    # Strictly below, where the quotient is a whole number up to rounding.
    return math.ceil(limit - 1e-9 * limit) - 1.0


def recovery_probability(n: float, m: int, k: int, *, threshold: float | None = None) -> float:
    r"""Chance that a threshold finds exactly which k of n features are active, in m dimensions.

    Random unit directions, features 0 or 1, $h = \sum_{i \in S} W_i$, and feature j is called
    active where $W_j \cdot h$ exceeds the `threshold`. The interference of the others is taken
    as normal and independent between features, of variance $(k - 1)/m$ at an active feature and
    $k/m$ at an inactive one:
    $P = \Phi((1 - \theta) \sqrt{m / (k - 1)})^k \, \Phi(\theta \sqrt{m / k})^{n - k}$.
    Without a `threshold` the best one is used, which needs n and k to be known. In [0, 1], high
    is good: the whole of S and nothing else must be called. Simulated chances lie at it or above:
    by at most 0.08 from k = 3 on, by up to 0.25 for k = 2, whose two active features share one
    overlap.
    Raises ValueError unless $1 \le k \le n$, $m \ge 1$ and the threshold lies in (0, 1).
    Source: a normal approximation with exact variances, worked out here.

    >>> round(recovery_probability(1000, 200, 5), 3)
    0.949
    """
    _check("recovery_probability", n, m, k)
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(
            f"recovery_probability(threshold={threshold:g}): between inactive (0) and active (1)"
        )

    def misses(theta: float) -> float:
        active, inactive = _margins(theta, m, k)
        return -float(k * log_ndtr(active) + (n - k) * log_ndtr(inactive))

    if threshold is None:
        # Convex, since each logarithm is concave in the threshold.
        threshold = _lowest(misses, 1.0)
    return math.exp(-misses(threshold))


def threshold_capacity(m: int, k: int, *, error: float = 0.01) -> float:
    r"""The largest n at which a threshold recovers k active features with chance 1 − `error`.

    That of `recovery_probability` at the best threshold, solved for n:
    $n = k + [\ln(1 - \mathrm{error}) - k \ln \Phi_1(\theta)] / \ln \Phi_0(\theta)$, maximised over
    $\theta$. At a fixed k it is exponential in m: to leading order
    $\ln n \approx \frac{m}{2k} \big(1 - \sqrt{2 k \ln k / m}\big)^2$, so $k \lesssim m / (2 \ln n)$
    for $k \ll n$; at the fixed threshold 1/2 it is $m / (8 \ln n)$. It assumes what
    `recovery_probability` does: random directions, features 0 or 1, normal interference. The
    overlap of two directions is bounded and has lighter tails than a normal number, so the
    result errs on the cautious side where m is not large beside $k \ln n$.

    A whole number as a float, since it soon passes any integer type: 0 where not even n = k is
    recovered, infinite beyond 1e308. At n = k all features are always active, so that a result
    near k says that m is too small to recover anything.
    Raises ValueError for m or k below 1 and an `error` outside (0, 1).
    Source: worked out here.

    >>> [f"{threshold_capacity(m, k=3):.3g}" for m in (100, 200, 300)]
    ['16', '1.33e+06', '4.16e+11']
    """
    _check("threshold_capacity", k, m, k)
    if not 0 < error < 1:
        raise ValueError(
            f"threshold_capacity(error={error:g}): the chance of any mistake lies in (0, 1)"
        )
    allowed = math.log1p(-error)
    # Up to here the active features alone stay within the error.
    highest = 1 + float(ndtri(-math.expm1(allowed / k))) * math.sqrt((k - 1) / m)
    if highest <= 0:
        return 0.0

    def negative_log_room(theta: float) -> float:
        active, inactive = _margins(theta, m, k)
        left = float(k * log_ndtr(active)) - allowed
        return _log_miss(inactive) - math.log(left) if left > 0 else math.inf

    log_room = -negative_log_room(_lowest(negative_log_room, min(highest, 1.0)))
    return math.inf if log_room > 709 else math.floor(k + math.exp(log_room)) + 0.0


def _margins(theta: float, m: int, k: int) -> tuple[float, float]:
    """Distances of an active and of an inactive read-out from the threshold, in deviations."""
    active = (1 - theta) / math.sqrt((k - 1) / m) if k > 1 else math.inf
    return active, theta / math.sqrt(k / m)


def _log_miss(margin: float) -> float:
    r"""$\ln(-\ln \Phi)$, for which $\ln(1 - \Phi)$ stands in the far tail, where $\Phi$ is 1."""
    return float(log_ndtr(-margin)) if margin > 8 else math.log(-float(log_ndtr(margin)))


def _lowest(function: Callable[[float], float], highest: float) -> float:
    """Where a function with one minimum in (0, highest) is least."""
    return np.asarray(fminbound(function, 0, highest, xtol=1e-10)).item()


def _check(call: str, n: float, m: int, k: int) -> None:
    if not (1 <= k <= n and m >= 1):
        raise ValueError(
            f"{call}(n={n:g}, m={m}, k={k}): k of n features are active in m dimensions, so k lies "
            "in [1, n] and m is at least 1"
        )
