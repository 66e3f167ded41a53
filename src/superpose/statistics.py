"""How sure: intervals over seeds and samples, and control of false discoveries."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval that covers the truth with probability `level`.

    >>> print(Interval(0.5, 0.4, 0.6))
    0.5 [0.4, 0.6]
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent values (one per seed) with Student's t interval.

    NaN marks a value that could not be measured and is left out. One value alone says nothing
    of its spread: its interval is infinite, as is that of values of which one is.

    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2 [-0.484, 4.48]
    """
    x = _measured(values)
    if x.size == 0:
        return Interval(np.nan, np.nan, np.nan, level)
    mean = float(x.mean())
    if x.size == 1 or not np.isfinite(x).all():
        return Interval(mean, -np.inf, np.inf, level)
    half = stats.t.ppf((1 + level) / 2, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size)
    return Interval(mean, float(mean - half), float(mean + half), level)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., np.ndarray] = np.median,
    level: float = 0.95,
    resamples: int = 4_000,
    seed: int = 0,
) -> Interval:
    """`statistic(values, axis=-1)` with its percentile interval under resampling of the values.

    The values are the independent units (seeds), so resample whole seeds: one number each.

    >>> print(bootstrap_interval([1.0, 1.0, 1.0]))
    1 [1, 1]
    """
    x = _measured(values)
    if x.size == 0:
        return Interval(np.nan, np.nan, np.nan, level)
    draws = np.random.default_rng(seed).integers(0, x.size, (resamples, x.size))
    replicas = statistic(x[draws], axis=-1)
    low, high = np.quantile(replicas, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(x, axis=-1)), float(low), float(high), level)


def proportion_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Share of successes with the exact (Clopper–Pearson) binomial interval.

    >>> print(proportion_interval(8, 8))
    1 [0.631, 1]
    """
    if trials == 0:
        return Interval(np.nan, 0.0, 1.0, level)
    exact = stats.binomtest(int(successes), int(trials)).proportion_ci(level, method="exact")
    return Interval(successes / trials, float(exact.low), float(exact.high), level)


def least_detectable_difference(
    deviation: float, each: int, power: float = 0.8, level: float = 0.95
) -> float:
    r"""The difference of two means that `each` values a side find with probability `power`.

    For a two-sided two-sample t test of equal, normal groups of standard deviation `deviation`:
    the $\delta$ at which $T > t_{\nu}$ has probability `power`, T noncentral t with
    $\nu = 2 n - 2$ degrees of freedom and noncentrality $\delta / (s \sqrt{2 / n})$. What is
    smaller than this may well be missed. Infinite for one value a side.
    Source: Cohen 1988, section 2.4.

    >>> round(least_detectable_difference(1.0, 64), 2)
    0.5
    """
    if each < 2:
        return np.inf
    freedom = 2 * each - 2
    critical = stats.t.ppf((1 + level) / 2, freedom)

    def beyond(shift: float) -> float:
        return float(stats.nct(freedom, shift).sf(critical)) - power

    # Enough even where the numerator and the denominator each err with half of what may be missed.
    missed = (1 - power) / 2
    wide = np.sqrt(stats.chi2.isf(missed, freedom) / freedom)
    at_most = critical * wide + stats.norm.isf(missed)
    shift = float(brentq(beyond, 0.0, at_most))  # pyright: ignore[reportArgumentType]
    return float(deviation * shift * np.sqrt(2 / each))


def false_discovery_q(p_values: ArrayLike) -> np.ndarray:
    """q-values of Benjamini and Hochberg: calling q ≤ a keeps the false share below a.

    Source: Benjamini & Hochberg 1995; holds for independent or positively dependent tests.

    >>> false_discovery_q([0.01, 0.02, 0.5])
    array([0.03, 0.03, 0.5 ])
    """
    p = np.asarray(p_values, np.float64)
    return stats.false_discovery_control(p.ravel()).reshape(p.shape) if p.size else p


def _measured(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, np.float64).ravel()
    return x[~np.isnan(x)]
