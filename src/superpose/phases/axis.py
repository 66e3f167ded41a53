r"""Where it changes: from a sweep over density with seeds to states, change points and phases.

The axis is $1/p = 1/(1-S)$, from dense to sparse. Runs of the same number at different
densities start from the same seed, so the run is the independent unit: every change point is
found in each run on its own, and intervals come from resampling whole runs.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from superpose.phases.states import STATES, SUPERPOSED
from superpose.phases.states import codes as codes_of
from superpose.statistics import Interval, bootstrap_interval

THRESHOLDS = (0.05, 0.1, 0.2, 0.4)
COLUMNS = ("p", "run", "feature", "norm", "interference")


@dataclass(frozen=True, slots=True)
class Phases:
    """What a sweep shows, and how sure.

    `onset` is the sparsity 1/p from which on at least one feature is superposed: the median
    over runs, NaN when it lies outside the swept range (its bounds then say on which side).

    Tables, rows from dense to sparse:

    - `states`: p, sparsity, feature, the shares of runs in each state (ignored, dedicated,
      superposed), state (what most runs say) and agreement (their share).
    - `onsets`: run, onset, low, high (the grid points around it), misfit (share of the run's
      densities that contradict a single onset).
    - `changes`: feature, change, estimate, low, high (1/p, over runs), runs, shown (runs in
      which it happens inside the range), before (already so at the densest point) and never.
      A run in which it never happens counts as one where it happens beyond the range.
    - `ranges`: phases as contiguous ranges of density: p_from, p_to, sparsity_from,
      sparsity_to, worlds, the modal counts of features (dedicated, superposed, ignored),
      agreement (share of models with these counts) and variants (different counts seen).
    - `sensitivity`: threshold, onset, low, high: the onset by other thresholds on interference.

    `notes` says in words what a reader must know before quoting a number.
    """

    onset: Interval
    states: pa.Table
    onsets: pa.Table
    changes: pa.Table
    ranges: pa.Table
    sensitivity: pa.Table
    notes: tuple[str, ...]


def find(table: pa.Table, threshold: float = SUPERPOSED) -> Phases:
    """States, onset of superposition, further changes and phases of a sweep over density.

    `table` has one row for each density, run and feature, in any order: columns p, run,
    feature, norm, interference (others are ignored). An onset in one run is the split of its
    densities that contradicts the fewest of them; it lies between two grid points, and every
    interval runs to the outer ones, so the grid step is part of it. Among equally important
    features a dense model keeps an arbitrary subspace, in which they overlap: superposed by this
    rule from 1/p = 1 on.
    Raises ValueError for missing columns, an empty table, values that are not finite, and
    (p, run, feature) rows that are missing or double.

    >>> table = pa.table({
    ...     "p": [1.0, 0.5, 0.25], "run": [0, 0, 0], "feature": [0, 0, 0],
    ...     "norm": [1.0, 1.0, 1.0], "interference": [0.0, 0.0, 1.0],
    ... })
    >>> find(table).onset.estimate  # between 1/p = 2 and 4
    2.82842712474619
    """
    sweep = _read(table)
    codes = codes_of(sweep.norm, sweep.interference, threshold)
    onset = split((codes == 2).any(-1))
    ranges = _ranges(sweep, codes)
    return Phases(
        onset=_interval(sweep.sparsity, onset),
        states=_states(sweep, codes),
        onsets=_onsets(sweep, onset),
        changes=_changes(sweep, codes),
        ranges=ranges,
        sensitivity=_sensitivity(sweep),
        notes=_notes(sweep, onset, ranges),
    )


@dataclass(frozen=True, slots=True)
class _Sweep:
    p: Float[np.ndarray, " worlds"]  # from dense to sparse
    runs: Int[np.ndarray, " runs"]
    features: Int[np.ndarray, " n"]
    norm: Float[np.ndarray, "worlds runs n"]
    interference: Float[np.ndarray, "worlds runs n"]

    @property
    def sparsity(self) -> Float[np.ndarray, " worlds"]:
        return 1 / self.p


def _read(table: pa.Table) -> _Sweep:
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(
            f"phases.find: the table has no column {', '.join(missing)}; it needs "
            f"{', '.join(COLUMNS)} and has {', '.join(table.column_names)}"
        )
    if table.num_rows == 0:
        raise ValueError("phases.find: the table is empty; pass one row a density, run and feature")
    column = {name: np.asarray(table[name].to_numpy()) for name in COLUMNS}
    for name in ("p", "norm", "interference"):
        column[name] = column[name].astype(np.float64)
        if bad := int((~np.isfinite(column[name])).sum()):
            raise ValueError(
                f"phases.find: {bad} of {table.num_rows} rows have a {name} that is not finite "
                "(diverged models?); leave those runs out at all densities"
            )
    density, at_p = np.unique(-column["p"], return_inverse=True)
    runs, at_run = np.unique(column["run"], return_inverse=True)
    features, at_feature = np.unique(column["feature"], return_inverse=True)
    _check_density(-density)
    shape = (density.size, runs.size, features.size)
    place = np.ravel_multi_index((at_p, at_run, at_feature), shape)
    _check_complete(np.bincount(place, minlength=int(np.prod(shape))), shape)
    order = np.argsort(place)
    return _Sweep(
        -density,
        runs,
        features,
        column["norm"][order].reshape(shape),
        column["interference"][order].reshape(shape),
    )


def _check_density(p: np.ndarray) -> None:
    for wrong in p[(p <= 0) | (p > 1)]:
        raise ValueError(f"phases.find: p={wrong:g}; p is a probability and lies in (0, 1]")


def _check_complete(rows: np.ndarray, shape: tuple[int, ...]) -> None:
    worlds, runs, features = shape
    grid = f"{worlds} densities × {runs} runs × {features} features"
    if rows.max() > 1:
        raise ValueError(
            f"phases.find: {int((rows > 1).sum())} cells of {grid} have more than one row; "
            "where something other than density varies, pass one table for each value of it"
        )
    if rows.min() == 0:
        raise ValueError(
            f"phases.find: {int((rows == 0).sum())} cells of {grid} have no row; runs are "
            "compared along the whole axis, so leave incomplete runs or densities out"
        )


@dataclass(frozen=True, slots=True)
class Brackets:
    """Grid indices around each run's change: −1 before the first point, `worlds` past the last."""

    low: Int[np.ndarray, " runs"]
    high: Int[np.ndarray, " runs"]
    misfit: Float[np.ndarray, " runs"]

    @property
    def middle(self) -> Float[np.ndarray, " runs"]:
        return (self.low + self.high) / 2

    def never(self, worlds: int) -> Bool[np.ndarray, " runs"]:
        return self.high == worlds

    def shown(self, worlds: int) -> Bool[np.ndarray, " runs"]:
        return (self.low >= 0) & (self.high < worlds)


def split(after: Bool[np.ndarray, "worlds runs"]) -> Brackets:
    """For each run the split before which `after` is false and from which on it is true.

    The split contradicts as few grid points as possible. Where several are equally good the
    bracket holds them all.
    """
    worlds, runs = after.shape
    none = np.zeros((1, runs), np.int64)
    wrong_before = np.concatenate([none, np.cumsum(after, 0)])
    wrong_after = np.concatenate([none, np.cumsum(~after[::-1], 0)])[::-1]
    wrong = wrong_before + wrong_after
    best = wrong == wrong.min(0)
    first = best.argmax(0)
    last = worlds - best[::-1].argmax(0)
    return Brackets(first - 1, last, wrong.min(0) / worlds)


def _interval(sparsity: Float[np.ndarray, " worlds"], brackets: Brackets) -> Interval:
    """The median change over runs in units of 1/p, out to the grid points that enclose it."""
    # The interval is found on grid indices, where a change beyond the range has a finite place.
    inner = float(_lower_median(brackets.middle)), float(_upper_median(brackets.middle))
    inside = sparsity.size > 1 and inner[0] >= 0 and inner[1] <= sparsity.size - 1
    estimate = _sparsity_at(sum(inner) / 2, sparsity) if inside else np.nan
    if brackets.low.size == 1:  # one run says nothing of the spread over runs
        return Interval(estimate, 1.0, np.inf)
    low = np.floor(bootstrap_interval(brackets.low, _lower_median).low)
    high = np.ceil(bootstrap_interval(brackets.high, _upper_median).high)
    return Interval(
        estimate, _sparsity_at(float(low), sparsity), _sparsity_at(float(high), sparsity)
    )


def _lower_median(values: np.ndarray, axis: int = -1) -> np.ndarray:
    # Of an even number of runs each bound takes the outer middle one: the mean of one change
    # inside the range and one beyond it would lie inside.
    return np.sort(values, axis)[..., (values.shape[-1] - 1) // 2]


def _upper_median(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.sort(values, axis)[..., values.shape[-1] // 2]


def _sparsity_at(index: float, sparsity: Float[np.ndarray, " worlds"]) -> float:
    """1/p at a grid index, geometric between points; 1 before the first, infinite past the last."""
    if index > sparsity.size - 1:
        return np.inf
    grid = np.concatenate([[1.0], sparsity])
    if index == int(index):
        return float(grid[int(index) + 1])
    return float(np.exp(np.interp(index, np.arange(-1, sparsity.size), np.log(grid))))


def _states(sweep: _Sweep, codes: Int[np.ndarray, "worlds runs n"]) -> pa.Table:
    share = np.stack([(codes == code).mean(1) for code in range(len(STATES))])
    worlds, n = share.shape[1:]
    return pa.table(
        {
            "p": np.repeat(sweep.p, n),
            "sparsity": np.repeat(sweep.sparsity, n),
            "feature": np.tile(sweep.features, worlds),
            **{name: share[code].ravel() for code, name in enumerate(STATES)},
            "state": np.array(STATES)[share.argmax(0)].ravel(),
            "agreement": share.max(0).ravel(),
        }
    )


def _onsets(sweep: _Sweep, brackets: Brackets) -> pa.Table:
    shown = brackets.shown(sweep.p.size)
    middle = [_sparsity_at(at, sweep.sparsity) for at in brackets.middle.tolist()]
    return pa.table(
        {
            "run": sweep.runs,
            "onset": np.where(shown, middle, np.nan),
            "low": [_sparsity_at(at, sweep.sparsity) for at in brackets.low.tolist()],
            "high": [_sparsity_at(at, sweep.sparsity) for at in brackets.high.tolist()],
            "misfit": brackets.misfit,
        }
    )


def _changes(sweep: _Sweep, codes: Int[np.ndarray, "worlds runs n"]) -> pa.Table:
    rows = []
    for i, feature in enumerate(sweep.features.tolist()):
        for change, brackets in _feature_changes(codes[..., i]).items():
            shown = int(brackets.shown(sweep.p.size).sum())
            if shown == 0:
                continue
            found, never = _interval(sweep.sparsity, brackets), brackets.never(sweep.p.size)
            row = {
                "feature": feature,
                "change": change,
                "estimate": found.estimate,
                "low": found.low,
                "high": found.high,
                "runs": sweep.runs.size,
                "shown": shown,
                "before": sweep.runs.size - shown - int(never.sum()),
                "never": int(never.sum()),
            }
            rows.append((float(np.median(brackets.middle)), row))
    rows.sort(key=lambda pair: pair[0])
    return pa.Table.from_pylist([row for _, row in rows], schema=_CHANGES)


_CHANGES = pa.schema(
    [("feature", pa.int64()), ("change", pa.string())]
    + [(name, pa.float64()) for name in ("estimate", "low", "high")]
    + [(name, pa.int64()) for name in ("runs", "shown", "before", "never")]
)


def _feature_changes(codes: Int[np.ndarray, "worlds runs"]) -> dict[str, Brackets]:
    worlds, runs = codes.shape
    superposed = split(codes == 2)
    # Just before its split a feature is not superposed; where it is ignored there, it was
    # represented and superposed at once, and never went from dedicated to superposed.
    before = codes[np.maximum(superposed.high - 1, 0), np.arange(runs)]
    skipped = (superposed.high > 0) & (before == 0)
    return {
        "ignored → represented": split(codes > 0),
        "dedicated → superposed": Brackets(
            np.where(skipped, worlds - 1, superposed.low),
            np.where(skipped, worlds, superposed.high),
            superposed.misfit,
        ),
    }


def _ranges(sweep: _Sweep, codes: Int[np.ndarray, "worlds runs n"]) -> pa.Table:
    counts = np.stack([(codes == code).sum(-1) for code in (1, 2, 0)], -1)
    found: list[tuple[tuple[int, ...], list[int]]] = []
    for world, here in enumerate(counts):
        previous = found[-1][0] if found else None
        mode = _mode([tuple(row) for row in here.tolist()], previous)
        if mode != previous:
            found.append((mode, []))
        found[-1][1].append(world)
    rows = []
    for mode, worlds in found:
        models = counts[worlds].reshape(-1, 3)
        row = {
            "p_from": sweep.p[worlds[0]],
            "p_to": sweep.p[worlds[-1]],
            "sparsity_from": sweep.sparsity[worlds[0]],
            "sparsity_to": sweep.sparsity[worlds[-1]],
            "worlds": len(worlds),
            **dict(zip(("dedicated", "superposed", "ignored"), mode, strict=True)),
            "agreement": float((models == mode).all(1).mean()),
            "variants": len(np.unique(models, axis=0)),
        }
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _mode(counts: list[tuple[int, ...]], previous: tuple[int, ...] | None) -> tuple[int, ...]:
    """The commonest; among equals the previous phase's, then the one with the least superposed."""
    times = Counter(counts)
    tied = [count for count, often in times.items() if often == max(times.values())]
    return previous if previous in tied else min(tied, key=lambda count: (count[1], count))


def _sensitivity(sweep: _Sweep) -> pa.Table:
    found = []
    for threshold in THRESHOLDS:
        codes = codes_of(sweep.norm, sweep.interference, threshold)
        found.append(_interval(sweep.sparsity, split((codes == 2).any(-1))))
    return pa.table(
        {
            "threshold": list(THRESHOLDS),
            "onset": [interval.estimate for interval in found],
            "low": [interval.low for interval in found],
            "high": [interval.high for interval in found],
        }
    )


def _notes(sweep: _Sweep, onset: Brackets, ranges: pa.Table) -> tuple[str, ...]:
    runs, worlds = sweep.runs.size, sweep.p.size
    never = int(onset.never(worlds).sum())
    before = runs - never - int(onset.shown(worlds).sum())
    unclear = int((onset.misfit > 0).sum())
    mixed = sum(variants > 1 for variants in ranges["variants"].to_pylist())
    said = {
        "one density only: nothing can be seen to change": worlds == 1,
        "one run only: intervals are infinite": runs == 1,
        f"{runs} runs only: even their full range covers a median in "
        f"{1 - 2.0 ** (1 - runs):.0%} of sweeps": 1 < runs < 6,
        f"superposition has begun at the densest point (1/p = {sweep.sparsity[0]:.3g}) in "
        f"{before} of {runs} runs": before > 0,
        f"no superposition up to the sparsest point (1/p = {sweep.sparsity[-1]:.3g}) in "
        f"{never} of {runs} runs": never > 0,
        f"superposition comes and goes along the axis in {unclear} of {runs} runs": unclear > 0,
        f"runs disagree on the counts of features in {mixed} of {ranges.num_rows} phases: "
        "different packings coexist there": mixed > 0,
    }
    return tuple(note for note, holds in said.items() if holds)
