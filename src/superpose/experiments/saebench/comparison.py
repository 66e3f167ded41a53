"""Which codes differ, and which differences so few seeds could not have seen."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import inf

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from scipy import stats
from scipy.optimize import brentq

from superpose.experiments.packing import plain
from superpose.statistics import false_discovery_q, mean_interval

COMPARED = ("firing_f1", "mcc", "recall", "explained_variance")
"""The scores in which codes are compared."""

ALPHA = 0.05


def least_paired_difference(
    deviation: float, pairs: int, power: float = 0.8, level: float = 0.95
) -> float:
    r"""The smallest mean difference that a t test of so many pairs detects with this power.

    `deviation` is that of the differences; with $ν = n - 1$ degrees of freedom the
    δ at which $|T| > t_ν$ has probability `power`, T noncentral t with noncentrality
    $δ \sqrt n / s$. Infinite for one pair. Source: Cohen 1988, section 2.3.

    >>> round(least_paired_difference(1.0, 34), 2)
    0.5
    """
    if pairs < 2:
        return inf
    freedom = pairs - 1
    critical = float(stats.t.ppf((1 + level) / 2, freedom))

    def missing(shift: float) -> float:
        return float(stats.nct(freedom, shift).sf(critical)) - power

    shift = brentq(missing, 0.0, 4.0 * critical + 4.0)
    return float(shift) * deviation / pairs**0.5  # pyright: ignore[reportArgumentType]


def differences(results: pa.Table, codes: Sequence[str]) -> pa.Table:
    """Each pair of codes on each world at each wanted L0, compared seed by seed.

    A seed is a world, its samples and its first weights, all of them common to both codes.
    Columns: world, wanted, score, code, other; `estimate` (code minus other) with its 95 %
    interval, `least`, the least detectable difference, `p` of the paired t test, `q` with all
    comparisons counted (Benjamini and Hochberg), and `distinguishable`: q ≤ 0.05.
    """
    rows = list(_pairs(results, codes))
    q = false_discovery_q([row["p"] for row in rows])
    for row, each in zip(rows, q.tolist(), strict=True):
        row |= {"q": each, "distinguishable": each <= ALPHA}
    return pa.Table.from_pylist(rows)


def _pairs(results: pa.Table, codes: Sequence[str]) -> Iterator[dict]:
    values: dict[tuple, dict[int, dict]] = {}
    for row in results.to_pylist():
        key = (row["world"], row["wanted"], row["dictionary"])
        values.setdefault(key, {})[row["seed"]] = row
    places = dict.fromkeys((world, wanted) for world, wanted, name in values if name in codes)
    for world, wanted in places:
        for code, other in combinations(codes, 2):
            ours, theirs = (values.get((world, wanted, name), {}) for name in (code, other))
            seeds = sorted(ours.keys() & theirs.keys())
            for score in COMPARED if seeds else ():
                each = np.array([ours[s][score] - theirs[s][score] for s in seeds], np.float64)
                place = {"world": world, "wanted": wanted, "score": score}
                yield place | {"code": code, "other": other} | _tested(each)


def _tested(each: Float[np.ndarray, " seeds"]) -> dict[str, float]:
    each = each[np.isfinite(each)]
    spread = float(each.std(ddof=1)) if each.size > 1 else np.nan
    if each.size < 2:
        p = 1.0
    elif spread < 1e-12:  # rounding: all seeds say the same
        p = 1.0 if abs(each[0]) < 1e-12 else 0.0
    else:
        p = float(2.0 * stats.t.sf(abs(each.mean()) * each.size**0.5 / spread, each.size - 1))
    least = least_paired_difference(spread, each.size) if each.size > 1 else inf
    return plain(mean_interval(each)) | {"least": least, "p": p}


def sentences(compared: pa.Table, seeds: int) -> list[str]:
    """What can be told apart and what cannot, one sentence a world and score."""
    said = []
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in compared.to_pylist():
        groups.setdefault((row["world"], row["score"]), []).append(row)
    for (world, score), rows in groups.items():
        told = [row for row in rows if row["distinguishable"]]
        least = float(np.median([row["least"] for row in rows]))
        largest = max(told, key=lambda row: abs(row["estimate"]), default=None)
        example = ""
        if largest:
            # The better one first.
            ahead, behind = largest["code"], largest["other"]
            if largest["estimate"] < 0:
                ahead, behind = behind, ahead
            example = (
                f"; largest: {ahead} over {behind} at L0 {largest['wanted']:g} by "
                f"{abs(largest['estimate']):.3g}"
            )
        said.append(
            f"{world}, {score}: {len(told)} of {len(rows)} pairs of codes can be told apart with "
            f"{seeds} seeds{example}; least detectable difference {least:.2g} (median)"
        )
    return said
