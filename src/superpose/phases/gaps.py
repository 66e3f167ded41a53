"""How far trained models stay above the optimum."""

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike
from scipy.stats import binom

from superpose.statistics import proportion_interval

LEVEL = 0.95


def gap(
    losses: ArrayLike, optimal: ArrayLike, tolerance: float = 0.01, slack: float = 1e-6
) -> pa.Table:
    r"""The relative gap $L / L^* - 1$ between trained losses and the optimum, world by world.

    `losses` is `[worlds, runs]`, `optimal` `[worlds]`; NaN marks a diverged run, whose gap is
    infinite. Columns, one row a world:

    - world, optimal, runs.
    - best: the gap of the best run, and best_high: what the best of as many other runs stays
      below with 97.5 % confidence (by resampling the runs; it is never below `best`).
    - median, median_low, median_high: over runs, with the distribution-free 95 % interval
      between two order statistics; from 0 to infinity below 6 runs, which bound nothing.
    - near, near_low, near_high: the share of runs with a gap of at most `tolerance`, with its
      exact binomial interval.
    - below: whether a loss lies below the optimum by more than the share `slack`. There is no
      such model: either the optimum or the loss is wrong.

    0 is the least gap there is; where the optimum is 0, any other loss has an infinite gap.
    Raises ValueError for shapes that do not fit, no runs, and negative or unfinished optima.

    >>> gap([[0.25, 0.25, 0.5]], [0.25]).select(["best", "median", "near_high"]).to_pylist()
    [{'best': 0.0, 'median': 0.0, 'near_high': 0.9915962413403874}]
    """
    loss, least = np.asarray(losses, np.float64), np.asarray(optimal, np.float64)
    if loss.ndim != 2 or loss.shape[1] == 0 or least.shape != loss.shape[:1]:
        raise ValueError(
            f"phases.gap: losses of shape {list(loss.shape)} and optima of {list(least.shape)}; "
            "losses are [worlds, runs] and optima [worlds]"
        )
    if not (np.isfinite(least) & (least >= 0)).all():
        raise ValueError("phases.gap: an optimal loss is finite and at least 0")
    runs = loss.shape[1]
    loss = np.sort(np.where(np.isnan(loss), np.inf, loss), axis=1)
    apart = loss - least[:, None]
    none = np.where(apart > 0, np.inf, 0.0)
    relative = np.divide(apart, least[:, None], out=none, where=least[:, None] > 0)
    near = (relative <= tolerance).sum(1)
    bounds = [proportion_interval(k, runs, LEVEL) for k in range(runs + 1)]
    low, high = _median_ranks(runs)
    unknown = np.full(len(loss), np.inf)
    return pa.table(
        {
            "world": np.arange(len(loss)),
            "optimal": least,
            "runs": np.full(len(loss), runs),
            "best": relative[:, 0],
            "best_high": relative[:, _best_rank(runs)] if runs > 1 else unknown,
            "median": np.median(relative, axis=1),
            "median_low": relative[:, low] if high < runs else np.zeros(len(loss)),
            "median_high": relative[:, high] if high < runs else unknown,
            "near": near / runs,
            "near_low": np.array([each.low for each in bounds])[near],
            "near_high": np.array([each.high for each in bounds])[near],
            "below": apart[:, 0] < -slack * least,
        }
    )


def _best_rank(runs: int) -> int:
    """The rank (from 0) that the best of a resample is at or below with 97.5 % probability."""
    beyond = ((runs - 1 - np.arange(runs)) / runs) ** runs
    return int(np.argmax(beyond <= (1 - LEVEL) / 2))


def _median_ranks(runs: int) -> tuple[int, int]:
    """The ranks (from 0) that enclose the median; the upper one is `runs` where none do."""
    outside = binom.cdf(np.arange(runs), runs, 0.5)
    low = int((outside <= (1 - LEVEL) / 2).sum()) - 1
    return (0, runs) if low < 0 else (low, runs - 1 - low)
