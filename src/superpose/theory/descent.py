"""Minimising one smooth function from many starts at once, in lock step.

Calling a compiled function for one point costs more than the point; a stack of points shares
that cost and the cores. Each point's path is what it would be alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Function = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_MEMORY = 12
_SEARCH = 24
_DECREASE, _CURVATURE = 1e-4, 0.9
_PATIENCE = 8


@dataclass(frozen=True, slots=True)
class Descent:
    """Where each start ended: the points, their values, the largest entry of each gradient."""

    x: Float[np.ndarray, "run size"]
    value: Float[np.ndarray, " run"]
    slope: Float[np.ndarray, " run"]


def descend(
    function: Function,
    start: Float[np.ndarray, "run size"],
    *,
    slope: float,
    progress: float,
    steps: int = 1_000,
) -> Descent:
    r"""Follow `function` downhill from every start by the limited-memory BFGS method.

    `function` takes points `[run, size]` and returns values `[run]` and gradients. A run ends
    when no entry of its gradient exceeds `slope`, when 8 steps together gain less than
    `progress`, when no step along the search direction gains, or after `steps` steps. Steps
    obey the weak Wolfe conditions.

    Source: D. C. Liu and J. Nocedal, On the limited memory BFGS method (1989).

    >>> bowl = lambda x: (((x - 3) ** 2).sum(-1), 2 * (x - 3))
    >>> descend(bowl, np.zeros((1, 2)), slope=1e-9, progress=0.0).x
    array([[3., 3.]])
    """
    x = start.copy()
    value, gradient = function(x)
    past = np.repeat(value[None], _PATIENCE, 0) + np.inf
    memory = _Memory(*x.shape)
    live = np.abs(gradient).max(-1) > slope
    for step in range(steps):
        (at,) = np.nonzero(live)
        if at.size == 0:
            break
        direction = memory.direction(at, gradient[at])
        # The first step has no curvature to go by: a tenth, as weights are of order 1.
        length = np.ones(at.size)
        first = memory.empty(at)
        length[first] = 0.1 / np.linalg.norm(direction[first], axis=-1)
        found = _line_search(function, (x[at], value[at], gradient[at]), direction, length)
        moved = found[1] < value[at]
        memory.learn(at, step, found[0] - x[at], found[2] - gradient[at])
        for old, new in zip((x, value, gradient), found, strict=True):
            old[at[moved]] = new[moved]
        slow = past[step % _PATIENCE, at] - value[at] < progress
        past[step % _PATIENCE, at] = value[at]
        live[at] = moved & ~slow & (np.abs(gradient[at]).max(-1) > slope)
    return Descent(x, value, np.abs(gradient).max(-1))


class _Memory:
    """The last steps of every run and what they changed in its gradient."""

    def __init__(self, runs: int, size: int) -> None:
        self.steps = np.zeros((_MEMORY, runs, size))
        self.changes = np.zeros((_MEMORY, runs, size))
        self.weight = np.zeros((_MEMORY, runs))
        self.scale = np.zeros(runs)
        self.newest = 0

    def empty(self, at: np.ndarray) -> Bool[np.ndarray, " at"]:
        return self.scale[at] == 0.0

    def learn(self, at: np.ndarray, step: int, moved: np.ndarray, change: np.ndarray) -> None:
        slot = self.newest = step % _MEMORY
        curvature = (moved * change).sum(-1)
        square = (change * change).sum(-1)
        # Where the function curves down along the step, the slot stays empty.
        good = curvature > 1e-12 * square
        self.steps[slot, at], self.changes[slot, at] = moved, change
        self.weight[slot, at] = np.divide(1.0, curvature, where=good, out=np.zeros_like(curvature))
        self.scale[at[good]] = curvature[good] / square[good]

    def direction(self, at: np.ndarray, gradient: np.ndarray) -> Float[np.ndarray, "at size"]:
        """Minus the inverse curvature times the gradient; minus the gradient at first."""
        q = gradient.copy()
        order = [(self.newest - back) % _MEMORY for back in range(_MEMORY)]
        shares = {}
        for slot in order:
            shares[slot] = self.weight[slot, at] * (self.steps[slot, at] * q).sum(-1)
            q -= shares[slot][:, None] * self.changes[slot, at]
        q *= np.where(self.empty(at), 1.0, self.scale[at])[:, None]
        for slot in reversed(order):
            back = self.weight[slot, at] * (self.changes[slot, at] * q).sum(-1)
            q += (shares[slot] - back)[:, None] * self.steps[slot, at]
        uphill = (q * gradient).sum(-1) <= 0
        q[uphill] = gradient[uphill]
        return -q


def _line_search(
    function: Function,
    here: tuple[np.ndarray, np.ndarray, np.ndarray],
    direction: Float[np.ndarray, "run size"],
    length: Float[np.ndarray, " run"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first step found that gains enough and leaves the slope less steep, by bisection.

    Where none is found within `_SEARCH` tries: the best point tried, which may be `here`.
    """
    x, value, gradient = here
    slope = (gradient * direction).sum(-1)
    best = [each.copy() for each in here]
    low, high = np.zeros_like(length), np.full_like(length, np.inf)
    length = length.copy()
    (at,) = np.nonzero(np.isfinite(length))
    for _ in range(_SEARCH):
        there = x[at] + length[at, None] * direction[at]
        values, gradients = function(there)
        high_enough = ~(values <= value[at] + _DECREASE * length[at] * slope[at])
        steep = (gradients * direction[at]).sum(-1) < _CURVATURE * slope[at]
        better = values < best[1][at]
        for old, new in zip(best, (there, values, gradients), strict=True):
            old[at[better]] = new[better]
        high[at[high_enough]] = length[at[high_enough]]
        low[at[~high_enough]] = length[at[~high_enough]]
        go_on = high_enough | steep
        at = at[go_on]
        if at.size == 0:
            break
        bounded = np.isfinite(high[at])
        length[at] = np.where(bounded, (low[at] + np.where(bounded, high[at], 0)) / 2, 2 * low[at])
    return best[0], best[1], best[2]
