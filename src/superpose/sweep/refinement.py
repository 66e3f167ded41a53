r"""Adaptive refinement: coarse everywhere, fine where something changes.

The cells of a refined sweep form a fine grid, of which only some are trained: first the coarse
points, then, round by round, more of them where a boundary runs. A model's *state* is the value
of the measure (a whole number, or true and false), or with a level whether the measure is above
it; that of a model that diverged is unknown. A cell's state is what most of its models say, the
least of equals. A cell is *settled* when all its models agree or the exact binomial interval of
that share (95 %) lies above one half.

A box of the grid is *torn*, and halved along every refined axis, where among the trained points
in it or on its faces

1. the cells' states differ, or
2. a cell is not settled, and some run is in different states.

The second rule finds where the seeds disagree on the place of a boundary. Run r is model number
r at every point, so seeds that disagree in the same way all over a region draw no boundary
there, and cost nothing. Of up to eight seeds one that strays tears a box; of nine to eleven it
takes two.

What is trained in the end does not depend on the order of the rounds: more points never mend a
torn box. What lies between coarse points that agree is not seen: a state of width w appears on
a grid of step h with probability w / h, if it lies anywhere with equal chance.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int
from scipy import stats

from superpose.phases.axis import split
from superpose.statistics import Interval
from superpose.sweep.configuration import RefineSection
from superpose.sweep.plan import Plan

LEVEL = 0.95


@runtime_checkable
class Results(Protocol):
    """What refinement reads of a sweep: its plan, what is missing, and the table of its models."""

    @property
    def plan(self) -> Plan: ...

    def missing(self) -> Iterable[int]: ...

    def table(self, columns: Sequence[str] | None = None) -> pa.Table: ...


@dataclass(frozen=True, slots=True)
class Savings:
    """Models trained, and models that the full fine grid has.

    >>> print(Savings(trained=120, full=1032))
    120 of 1,032 models: 8.6 times fewer
    """

    trained: int
    full: int

    @property
    def ratio(self) -> float:
        """How many times fewer models were trained than the fine grid has."""
        return self.full / self.trained if self.trained else float("inf")

    def __str__(self) -> str:
        return f"{self.trained:,} of {self.full:,} models: {self.ratio:.1f} times fewer"


def next_round(sweep: Results) -> tuple[int, ...]:
    """The cells to train next, rising: first the coarse points, then halves of torn boxes.

    A pure function of the plan and the models trained so far. Empty when it is finished: every
    torn box is then as small as the fine grid.
    Raises ValueError for a sweep without `[refine]`, or with shards missing.
    """
    plan, refine = sweep.plan, _refinement("next_round", sweep.plan)
    for shard in sweep.missing():
        raise ValueError(
            f"next_round: shard {shard} is not there yet; a round is chosen from the complete "
            "results of those before: run the sweep to its end first"
        )
    wanted = [np.asarray(plan.coarse(), np.int64)]
    seen, sides, boxes = _read(sweep, refine), plan.steps, None
    while seen.cells.size and max(sides) > 1:
        halves = tuple(max(side // 2, min(side, 1)) for side in sides)
        parts = tuple(side // half if side else 0 for side, half in zip(sides, halves, strict=True))
        torn = _torn_boxes(seen, plan.shape, sides)
        torn = torn if boxes is None else np.intersect1d(torn, boxes)
        wanted.append(_spread(torn, plan.shape, halves, [part + 1 for part in parts]))
        boxes = _spread(torn, plan.shape, halves, [max(part, 1) for part in parts])
        sides = halves
    return tuple(np.setdiff1d(np.concatenate(wanted), seen.cells).tolist())


def boundaries(sweep: Results) -> pa.Table:
    """Where the state changes along each line of trained points, one row a change.

    A line runs along one refined axis, named by `axis`. Between its points `low` and `high` the
    state goes from `below` to `above` (those of the measure, or false and true of a level; null
    where all models diverged). All in between is torn: where seeds agree that is one step of the
    fine grid, and where they disagree on the place it is as wide as they do. `width` is in the
    axis' unit, decades on a logarithmic one. The columns of the sweep's axes say where that is:
    on the line's own axis half way.

    The `median` over the seeds' own places has an exact 95 % interval, from `median_low` to
    `median_high`, by order statistics: infinite below six seeds. A seed's own place is the
    split, between the changes before and after, that contradicts the fewest of its points; it is
    beyond the line where the seed does not change in between. `seeds` is their number, and
    `shown` that of those that change. All bounds run to the outer trained points, so that the
    step is part of them; `median` lies half way.
    Takes what is there of a sweep that is not finished. Raises ValueError for one without
    `[refine]`.
    """
    plan, rows = sweep.plan, []
    seen = _read(sweep, _refinement("boundaries", plan))
    for axis, step in enumerate(plan.steps):
        values = np.asarray(plan.values(axis), np.float64) if step else np.zeros(0)
        for line in _lines(seen, plan.shape, axis) if step else ():
            x = values[seen.at[line, axis]]
            line, x = (line, x) if x[0] <= x[-1] else (line[::-1], x[::-1])
            row = plan.row(int(seen.cells[line[0]]))
            for change in _changes(seen, line, axis):
                found = _bounds(seen, line, x, change, plan.logarithmic[axis])
                own = {"axis": plan.names[axis], plan.names[axis]: found.pop("middle")}
                rows.append(row | own | found)
    return pa.Table.from_pylist(rows, schema=_schema(plan, seen))


def savings(sweep: Results) -> Savings:
    """How many models were chosen so far, and how many the full fine grid has.

    Raises ValueError for a sweep without `[refine]`.
    """
    plan = sweep.plan
    _refinement("savings", plan)
    return Savings(plan.models, plan.grid * plan.configuration.seeds)


def _refinement(call: str, plan: Plan) -> RefineSection:
    if plan.configuration.refine is None:
        raise ValueError(
            f'{call}: the sweep "{plan.configuration.name}" has no [refine] section; all its '
            "cells are trained"
        )
    return plan.configuration.refine


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the trained cells showed; a state is a place in `values`, −1 where it is unknown."""

    cells: Int[np.ndarray, " cells"]  # rising
    at: Int[np.ndarray, "cells axes"]
    values: np.ndarray
    run_state: Int[np.ndarray, "cells runs"]
    state: Int[np.ndarray, " cells"]
    settled: Bool[np.ndarray, " cells"]


def _read(sweep: Results, refine: RefineSection) -> _Seen:
    plan = sweep.plan
    table = sweep.table(list(dict.fromkeys(["cell", "run", refine.measure, "diverged"])))
    measured, unknown = table[refine.measure].to_numpy(), table["diverged"].to_numpy()
    if refine.measure == "diverged":
        unknown = np.zeros_like(unknown)
    if measured.dtype.kind == "f":
        unknown = unknown | np.isnan(measured)
    if refine.level is not None:
        measured = measured > refine.level
    values, code = np.unique(measured, return_inverse=True)
    cells, place = np.unique(table["cell"].to_numpy(), return_inverse=True)
    run_state = np.full((cells.size, plan.configuration.seeds), -1)
    run_state[place, table["run"].to_numpy()] = np.where(unknown, -1, code)
    state, settled = _vote(run_state)
    at = np.stack(np.unravel_index(cells, plan.shape), -1) if cells.size else np.zeros((0, 0), int)
    return _Seen(cells, at, values, run_state, state, settled)


def _vote(
    run_state: Int[np.ndarray, "cells runs"],
) -> tuple[Int[np.ndarray, " cells"], Bool[np.ndarray, " cells"]]:
    """The state of most runs of each cell, and whether it is settled."""
    cells, kinds = run_state.shape[0], int(run_state.max(initial=-1)) + 1
    state, most = np.full(cells, -1), np.zeros(cells, int)
    known = run_state >= 0
    voted, times = np.unique(
        (np.arange(cells)[:, None] * kinds + run_state)[known], return_counts=True
    )
    cell = voted // max(kinds, 1)
    order = np.lexsort((voted, -times, cell))  # the commonest of a cell first, then the least
    cell, first = np.unique(cell[order], return_index=True)
    state[cell], most[cell] = voted[order][first] % max(kinds, 1), times[order][first]
    voters = known.sum(1)
    # The lower bound of Clopper and Pearson is above 1/2 where a fair coin does this too rarely.
    sure = stats.binom.sf(most - 1, voters, 0.5) < (1 - LEVEL) / 2
    return state, sure | (most == voters)


def _torn(
    seen: _Seen, members: Int[np.ndarray, " members"], starts: Int[np.ndarray, " groups"]
) -> Bool[np.ndarray, " groups"]:
    """Whether each group of trained points is torn; the members of a group lie in a row."""
    states = seen.state[members]
    differ = np.maximum.reduceat(states, starts) > np.minimum.reduceat(states, starts)
    run_state = seen.run_state[members]
    highest = np.maximum.reduceat(run_state, starts)
    lowest = np.minimum.reduceat(np.where(run_state < 0, len(seen.values), run_state), starts)
    doubt = ~np.logical_and.reduceat(seen.settled[members], starts)
    return differ | (doubt & (highest > lowest).any(1))


def _torn_boxes(
    seen: _Seen, shape: tuple[int, ...], sides: tuple[int, ...]
) -> Int[np.ndarray, " boxes"]:
    """The numbers of the lowest corners of the torn boxes with these sides.

    A box holds its faces, so that a point on a face belongs to the boxes on both sides of it.
    Along an axis that is not refined the side is 0.
    """
    corners, members = [], []
    for behind in product(*([0, 1] if side else [0] for side in sides)):
        corner, inside = seen.at.copy(), np.ones(seen.cells.size, bool)
        for i, (side, back) in enumerate(zip(sides, behind, strict=True)):
            if side:
                x = seen.at[:, i]
                corner[:, i] = (x // side - back) * side
                inside &= (x % side == 0) & (x > 0) if back else x < shape[i] - 1
        corners.append(np.ravel_multi_index(tuple(corner[inside].T), shape))
        members.append(np.flatnonzero(inside))
    corner, member = np.concatenate(corners), np.concatenate(members)
    order = np.argsort(corner, kind="stable")
    boxes, starts = np.unique(corner[order], return_index=True)
    return boxes[_torn(seen, member[order], starts)]


def _spread(
    corners: Int[np.ndarray, " boxes"],
    shape: tuple[int, ...],
    steps: Sequence[int],
    counts: Sequence[int],
) -> Int[np.ndarray, " points"]:
    """The numbers of the points of a lattice, from each corner on."""
    lattice = np.array(list(product(*map(range, counts)))) * np.array(steps)
    points = np.stack(np.unravel_index(corners, shape), -1)[:, None] + lattice
    return np.unique(np.ravel_multi_index(tuple(points.reshape(-1, len(shape)).T), shape))


def _lines(seen: _Seen, shape: tuple[int, ...], axis: int) -> Iterator[Int[np.ndarray, " points"]]:
    """The trained points along each line on which the state changes, in order."""
    if not seen.cells.size:
        return
    stride = int(np.prod(shape[axis + 1 :]))
    start = seen.cells - seen.at[:, axis] * stride
    order = np.lexsort((seen.at[:, axis], start))
    for line in np.split(order, np.flatnonzero(np.diff(start[order])) + 1):
        if (seen.state[line] != seen.state[line[0]]).any():
            yield line


@dataclass(frozen=True, slots=True)
class _Change:
    """Points of a line: torn from `low` to `high`, no other change from `first` to `last`."""

    low: int
    high: int
    first: int
    last: int


def _changes(seen: _Seen, line: Int[np.ndarray, " points"], axis: int) -> list[_Change]:
    pairs = np.stack([line[:-1], line[1:]], 1)
    torn = _torn(seen, pairs.ravel(), np.arange(0, pairs.size, 2))
    # Points with untrained ones between them belong to different parts of a finished grid.
    near = abs(np.diff(seen.at[line, axis])) == 1
    torn &= near | (seen.state[pairs[:, 0]] != seen.state[pairs[:, 1]])
    # What is torn is one change up to the next settled point.
    whole = ~np.logical_and(torn[1:], torn[:-1]) | seen.settled[line[1:-1]]
    parts = np.split(np.arange(torn.size), np.flatnonzero(whole) + 1)
    ends = [(int(part[0]), int(part[-1]) + 1) for part in parts if torn[part[0]]]
    state = seen.state[line]
    ends = [(low, high) for low, high in ends if state[low] != state[high]]
    if not ends:
        return []
    first = [0, *(high for _, high in ends[:-1])]
    last = [*(low for low, _ in ends[1:]), line.size - 1]
    return [_Change(*end, a, b) for end, a, b in zip(ends, first, last, strict=True)]


def _bounds(
    seen: _Seen, line: Int[np.ndarray, " points"], x: np.ndarray, change: _Change, log: bool
) -> dict[str, Any]:
    below, above = (int(seen.state[line[at]]) for at in (change.low, change.high))
    window = slice(change.first, change.last + 1)
    run_state = seen.run_state[line[window]]
    # A run in some third state, or an unknown one, could be on either side of its change.
    late, early = split(run_state == above), split(run_state != below)
    measured = (run_state >= 0).any(0)
    lows = np.minimum(late.low, early.low)[measured]
    highs = np.maximum(late.high, early.high)[measured]
    edges = np.concatenate([[-np.inf], x[window], [np.inf]])
    median = _median(edges[lows + 1], edges[highs + 1], log)
    low, high = float(x[change.low]), float(x[change.high])
    return {
        "middle": float(np.sqrt(low * high)) if log else (low + high) / 2,
        "below": seen.values[below].item() if below >= 0 else None,
        "above": seen.values[above].item() if above >= 0 else None,
        "low": low,
        "high": high,
        "width": float(np.log10(high / low)) if log else high - low,
        "median": median.estimate,
        "median_low": median.low,
        "median_high": median.high,
        "seeds": int(measured.sum()),
        "shown": int(((lows >= 0) & (highs < len(edges) - 2)).sum()),
    }


def _median(lows: np.ndarray, highs: np.ndarray, log: bool) -> Interval:
    """The median of places that are known to lie between bounds, with its exact interval."""
    n, lows, highs = lows.size, np.sort(lows), np.sort(highs)
    if n == 0:
        return Interval(np.nan, -np.inf, np.inf, LEVEL)
    inner = np.array([lows[(n - 1) // 2], highs[n // 2]])
    middle = np.nan
    if np.isfinite(inner).all():
        middle = float(np.sqrt(inner.prod())) if log else float(inner.mean())
    rank = int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
    low, high = [-np.inf, *lows][rank], [*highs, np.inf][n - rank]
    return Interval(middle, float(low), float(high), LEVEL)


def _schema(plan: Plan, seen: _Seen) -> pa.Schema:
    state = pa.from_numpy_dtype(seen.values.dtype)
    fields = {name: pa.array([value]).type for name, value in plan.row(0).items()}
    fields |= {"axis": pa.string(), "below": state, "above": state}
    bounds = ("low", "high", "width", "median", "median_low", "median_high")
    fields |= dict.fromkeys(bounds, pa.float64()) | dict.fromkeys(("seeds", "shown"), pa.int64())
    return pa.schema(list(fields.items()))
