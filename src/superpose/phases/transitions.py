"""The order of a transition: a jump between two minima, or a continuous change of one."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from superpose.phases.axis import split
from superpose.phases.states import SUPERPOSED
from superpose.phases.tables import Grid, Reading, read
from superpose.statistics import Interval

LEVEL = 0.95
NEAREST = 5  # points on each branch through which its parabola goes
# What is called a jump, as a share of the whole change of the order parameter, and what at most
# is called none; and how little a jump may shrink where the grid is twice as fine.
JUMP, NO_JUMP, LASTING = 0.1, 0.2, 0.8
# At how many points a jump shows runs in both states. Without them, a change within one grid
# step is a jump or a steep but continuous one: of planted ones of that kind 40 % looked like one.
SIDE_BY_SIDE = 2
# The share of resamples in which both branches must be there. A branch of one run in ten is in
# 0.65 of them, one of two runs in 0.89.
RESOLVED = 0.85


@dataclass(frozen=True, slots=True)
class Transition:
    """Where one state gives way to another as the best, and how abruptly.

    `verdict` is "jump", "continuous" or "undecided"; `evidence` says why in words. `states` are
    those before and after, along the rising axis. Intervals are over seeds:

    - `position`: where the losses of the two branches cross.
    - `jump`: the order parameter of the second branch less that of the first, there.
    - `shrink`: the jump relative to that seen on grids of twice the step: 1 for a true jump,
      0.7 for a square root, 1/2 and less for a smooth curve (NaN where there is none at all).
    - `slope`: the change of the slope dL/dx of the best loss, there.

    `coexisting` counts the grid points at which runs of both states were found. `branches` has
    for each point of the axis the lowest loss in each state and its order parameter.
    """

    verdict: str
    states: tuple[str, str]
    position: Interval
    jump: Interval
    shrink: Interval
    slope: Interval
    coexisting: int
    evidence: tuple[str, ...]
    branches: pa.Table


def transition(
    table: pa.Table,
    x: str = "p",
    order: str = "norm",
    *,
    feature: int | None = None,
    label: str | None = None,
    resamples: int = 400,
) -> Transition:
    r"""The order of the one transition along the axis `x`, of a feature or of labelled models.

    `table` is as for `plane`, with one axis; `order` names the column whose jump is asked for.
    The lowest loss in each of the two states gives two branches $L_a(x), L_b(x)$ with their order
    parameters. Through the five points of each branch nearest to the change go parabolas (in
    log x where the axis is positive), which give at the crossing $L_a = L_b$ the jump and the
    change of slope. All of it is repeated on every second point, and over resampled runs (those
    in which both branches are still there).

    - "jump" (first order): the jump is above a tenth of the whole change of `order` along the
      axis, at least 0.8 of that on the coarser grid, and the slopes differ, all with 95 %
      confidence; and at two points or more, runs are in both states, side by side.
    - "continuous": a jump of a fifth of the whole change is excluded with 95 % confidence.
    - "undecided": neither, or one of the branches hangs on a single run.

    A change within one grid step, with no runs side by side, is undecided. Fewer than 6 runs give
    intervals that are too narrow, and one run none at all; `resamples=0` takes the losses as
    exact (an optimum's), and each interval is then a point.
    Raises ValueError as `plane` does, and where the best runs are not in exactly two states.
    Source: Toy Models of Superposition, section on the phase change (the losses of two
    solutions cross, so that the derivative of the least loss jumps).

    >>> x = np.linspace(1.0, 2.0, 12)
    >>> data = {"p": np.tile(x, 2), "run": np.repeat([0, 1], 12), "norm": np.repeat([0, 1], 12)}
    >>> data |= {"loss": np.concatenate([x, 3 - x]), "kind": np.repeat(["a", "b"], 12)}
    >>> found = transition(pa.table(data), label="kind", resamples=0)
    >>> found.verdict, found.states, round(found.position.estimate, 3)
    ('jump', ('a', 'b'), 1.5)
    """
    reading = Reading(
        call="phases.transition",
        axes=(x,),
        feature=feature,
        label=label,
        threshold=SUPERPOSED,
        order=order,
    )
    sweep = _Sweep.of(read(table, reading), x)
    return _judged(sweep, resamples)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Losses, states (0 before, 1 after, −1 others) and order parameters along one axis."""

    name: str
    x: Float[np.ndarray, " points"]
    states: tuple[str, str]
    loss: Float[np.ndarray, "points runs"]
    code: Int[np.ndarray, "points runs"]
    order: Float[np.ndarray, "points runs"]

    @classmethod
    def of(cls, grid: Grid, x: str) -> "_Sweep":
        best = np.take_along_axis(grid.code, grid.loss.argmin(1)[:, None], 1)[:, 0]
        found = list(dict.fromkeys(best.tolist()))
        names = [grid.labels[code] for code in found]
        if len(found) != 2:
            raise ValueError(
                f"phases.transition: along {x} the best runs are in the states "
                f"{', '.join(names)}; a transition is between two, so pass a part of the axis "
                "that holds both and no other"
            )
        if grid.order is None:
            raise ValueError("phases.transition: the order parameter was not read")
        # The state that comes first may come again; before is the one whose side is lower.
        places = [np.nonzero(best == code)[0].mean() for code in found]
        first, second = np.array(found)[np.argsort(places)]
        code = np.where(grid.code == first, 0, np.where(grid.code == second, 1, -1))
        states = (grid.labels[first], grid.labels[second])
        return cls(x, grid.axes[0], states, grid.loss, code, grid.order)

    def runs(self, at: Int[np.ndarray, " draws"]) -> "_Sweep":
        return replace(self, loss=self.loss[:, at], code=self.code[:, at], order=self.order[:, at])

    def every_second(self, offset: int) -> "_Sweep":
        loss, code, order = (each[offset::2] for each in (self.loss, self.code, self.order))
        return replace(self, x=self.x[offset::2], loss=loss, code=code, order=order)

    @property
    def scale(self) -> Float[np.ndarray, " points"]:
        return np.log(self.x) if (self.x > 0).all() else self.x

    def best_order(self) -> Float[np.ndarray, " points"]:
        return np.take_along_axis(self.order, self.loss.argmin(1)[:, None], 1)[:, 0]

    def branch(
        self, code: int
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """The lowest loss in a state at each point (infinite: no run in it), and its order."""
        loss = np.where(self.code == code, self.loss, np.inf)
        at = loss.argmin(1)[:, None]
        return np.take_along_axis(loss, at, 1)[:, 0], np.take_along_axis(self.order, at, 1)[:, 0]

    def coexisting(self) -> int:
        return int(((self.code == 0).any(1) & (self.code == 1).any(1)).sum())

    def branches(self) -> pa.Table:
        columns = {self.name: self.x}
        for code, name in enumerate(self.states):
            loss, order = self.branch(code)
            there = np.isfinite(loss)
            columns[f"loss of {name}"] = np.where(there, loss, np.nan)
            columns[f"order of {name}"] = np.where(there, order, np.nan)
        return pa.table(columns)


def _judged(sweep: _Sweep, resamples: int) -> Transition:
    runs = sweep.loss.shape[1]
    bracket = _bracket(sweep)
    estimate = _measured(sweep, bracket)
    draws = np.random.default_rng(0).integers(0, runs, (resamples if runs > 1 else 0, runs))
    replicas = np.array([_measured(sweep.runs(at), bracket) for at in draws])
    alone = runs == 1 and resamples > 0
    position, jump, shrink, slope = (
        _interval(estimate[k], replicas[:, k] if len(replicas) else None, alone) for k in range(4)
    )
    resolved = float(np.isfinite(replicas[:, 1]).mean()) if len(replicas) else 1.0
    best = sweep.best_order()
    span = float(best.max() - best.min())
    undecided = resolved < RESOLVED or alone
    return Transition(
        verdict="undecided" if undecided else _verdict((jump, shrink, slope), span, sweep),
        states=sweep.states,
        position=position,
        jump=jump,
        shrink=shrink,
        slope=slope,
        coexisting=sweep.coexisting(),
        evidence=_evidence(sweep, (jump, shrink, slope), span, resolved),
        branches=sweep.branches(),
    )


def _bracket(sweep: _Sweep) -> tuple[float, float]:
    """The middle between the grid points around the change of the best state, and their step."""
    branches = [sweep.branch(code)[0] for code in (0, 1)]
    at = split((branches[1] < branches[0])[:, None])
    u = sweep.scale
    low, high = np.clip([at.low[0], at.high[0]], 0, u.size - 1)
    return float(u[low] + u[high]) / 2, float(u[high] - u[low])


def _measured(sweep: _Sweep, bracket: tuple[float, float]) -> tuple[float, float, float, float]:
    """Position, jump, shrink and slope; NaN for what cannot be measured."""
    middle, step = bracket
    position, jump, slope = _crossing(sweep, middle, step)
    coarse = [_crossing(sweep.every_second(k), middle, 2 * step)[1] for k in (0, 1)]
    double = float(np.abs(coarse).mean())
    return position, jump, abs(jump) / double if double > 0 else np.nan, slope


def _crossing(sweep: _Sweep, middle: float, step: float) -> tuple[float, float, float]:
    """Where the branches cross, the jump of the order parameter there and that of the slope.

    NaN where a branch has fewer than three points, or none within a step and a half of `middle`.
    """
    u = sweep.scale
    fits = []
    for loss, order in (sweep.branch(code) for code in (0, 1)):
        (there,) = np.nonzero(np.isfinite(loss))
        near = there[np.argsort(np.abs(u[there] - middle), kind="stable")[:NEAREST]]
        if near.size < 3 or abs(u[near[0]] - middle) > 1.5 * step:
            return np.nan, np.nan, np.nan
        powers = np.vander(u[near] - middle, 3 if near.size > 3 else 2, increasing=True)
        both = np.stack([loss[near], order[near]], 1)
        fit = np.zeros((3, 2))
        fit[: powers.shape[1]] = np.linalg.lstsq(powers, both)[0]
        fits.append(fit)
    (a, b, c), (a_order, b_order, c_order) = (fits[1] - fits[0]).T
    place = _root((a, b, c), step)
    jump = a_order + place * (b_order + place * c_order)
    slope = b + 2 * c * place
    if (sweep.x > 0).all():
        x = float(np.exp(middle + place))
        return x, float(jump), float(slope / x)
    return float(middle + place), float(jump), float(slope)


def _root(coefficients: tuple[float, float, float], reach: float) -> float:
    """The root of a + b u + c u² nearest to 0 within `reach`, or 0: branches that touch without
    crossing, as those of a continuous change do, cross anywhere.
    """
    a, b, c = coefficients
    square = b * b - 4 * a * c
    if square < 0 or b == 0:
        return 0.0
    nearest = -2 * a / (b + np.copysign(np.sqrt(square), b))
    return float(nearest) if abs(nearest) <= reach else 0.0


def _interval(estimate: float, replicas: np.ndarray | None, alone: bool) -> Interval:
    if alone or not np.isfinite(estimate):
        return Interval(estimate, -np.inf, np.inf, LEVEL)
    if replicas is None:
        return Interval(estimate, estimate, estimate, LEVEL)
    replicas = replicas[np.isfinite(replicas)]
    if replicas.size == 0:
        return Interval(estimate, -np.inf, np.inf, LEVEL)
    low, high = np.quantile(replicas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(low), float(high), LEVEL)


def _least(interval: Interval) -> float:
    """The smallest size that is not excluded: 0 where the interval holds 0."""
    if interval.low <= 0 <= interval.high:
        return 0.0
    return min(abs(interval.low), abs(interval.high))


def _most(interval: Interval) -> float:
    return max(abs(interval.low), abs(interval.high))


def _verdict(measured: tuple[Interval, Interval, Interval], span: float, sweep: _Sweep) -> str:
    jump, shrink, slope = measured
    lasting = _least(jump) > JUMP * span and shrink.low >= LASTING
    if lasting and _least(slope) > 0 and sweep.coexisting() >= SIDE_BY_SIDE:
        return "jump"
    if _most(jump) < NO_JUMP * span:
        return "continuous"
    return "undecided"


def _evidence(
    sweep: _Sweep, measured: tuple[Interval, Interval, Interval], span: float, resolved: float
) -> tuple[str, ...]:
    jump, shrink, slope = measured
    runs, both = sweep.loss.shape[1], sweep.coexisting()
    before, after = sweep.states
    differ = "differ" if _least(slope) > 0 else "may be equal"
    words = [
        f"the order parameter jumps by {jump} of a whole change of {span:.3g}",
        f"that is {shrink} times the jump on a grid of twice the step (1: a true jump)",
        f"at the crossing the slopes of the two losses {differ}: by {slope}",
        f"runs of both states ({before}, {after}) at {both} of {sweep.x.size} points",
    ]
    if resolved < 1:
        words.append(f"a branch is missing in {1 - resolved:.0%} of the resamples of the runs")
    if runs == 1:
        words.append("one run only: no spread over seeds is known")
    elif runs < 6:
        words.append(f"{runs} runs only: the intervals are too narrow")
    return tuple(words)
