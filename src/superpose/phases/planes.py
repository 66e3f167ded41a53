r"""Phases in a plane: the state that the best seed reaches in each cell, and its boundaries.

Of $R$ seeds drawn again with replacement, the one of rank $i$ by loss (1 is the lowest) is the
best with probability $((R - i + 1)/R)^R - ((R - i)/R)^R$. The share of resamples in which a
state wins a cell, its support, is therefore exact, without any resampling.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from superpose.phases.boundaries import Segments, polylines, segments
from superpose.phases.states import SUPERPOSED
from superpose.phases.tables import Reading, read
from superpose.statistics import proportion_interval

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Plane:
    """States over a grid of cells, row by row from the lowest `y`, with all seeds.

    `x_name` and `y_name` are the columns the axes came from, `x` and `y` their values, rising.
    `labels` names the states. For each cell `best` is the place in `labels` of the state in
    which the run of lowest loss is; for each state and cell `shares` is the share of the runs
    in it, `support` the share of resamples of the runs in which it wins, and `losses` the
    lowest loss of the runs in it (NaN where there are none). `runs` is their number.

    The support answers one question: would other seeds of the same number have shown another
    state? A state that one seed of ten reached has support 0.65, three of ten 0.97. It knows
    nothing of a state that no seed reached, nor of what all seeds share (too few steps, weight
    decay), and the best of more seeds is never worse: where the support is high, a boundary may
    still lie off the optimum's.
    """

    x_name: str
    y_name: str
    x: Float[np.ndarray, " columns"]
    y: Float[np.ndarray, " rows"]
    labels: tuple[str, ...]
    best: Int[np.ndarray, "rows columns"]
    shares: Float[np.ndarray, "labels rows columns"]
    support: Float[np.ndarray, "labels rows columns"]
    losses: Float[np.ndarray, "labels rows columns"]
    runs: int

    @property
    def states(self) -> np.ndarray:
        """The state of the best seed in each cell, as text `[rows, columns]`."""
        return np.array(self.labels)[self.best]

    @property
    def band(self) -> Bool[np.ndarray, "rows columns"]:
        """Cells whose state is uncertain: no state wins 97.5 % of the resamples.

        The bounds of a 95 % percentile interval of where a boundary lies, along any line across
        it, are the ends of its cells in the band.
        """
        return self.support.max(0) < (1 + LEVEL) / 2

    def segments(self) -> Segments:
        """The boundaries as short pieces in units of cells, for measurements along them."""
        return segments(self.best)

    def boundaries(self) -> pa.Table:
        """The boundaries between states as polylines.

        Columns: boundary ("ignored | superposed"), line (their number), point (the place along
        it), and one each for the axes. Between cells the position is half way, in logarithms
        where all values of the axis are positive; at the rim it is half a cell beyond the axis.
        """
        rows = []
        for line, (pair, path) in enumerate(polylines(self.segments())):
            name = f"{self.labels[pair[0]]} | {self.labels[pair[1]]}"
            at_x, at_y = axis_at(self.x, path[:, 0]), axis_at(self.y, path[:, 1])
            rows += [
                {"boundary": name, "line": line, "point": k, self.x_name: a, self.y_name: b}
                for k, (a, b) in enumerate(zip(at_x.tolist(), at_y.tolist(), strict=True))
            ]
        kinds = [("boundary", pa.string()), ("line", pa.int64()), ("point", pa.int64())]
        axes = [(self.x_name, pa.float64()), (self.y_name, pa.float64())]
        return pa.Table.from_pylist(rows, schema=pa.schema(kinds + axes))

    def coexistence(self) -> pa.Table:
        """The share of seeds in each state, cell by cell, with exact 95 % binomial intervals.

        Columns: the axes, state, share, low, high, support, best (whether the seed of lowest
        loss is in it) and loss (the lowest of the seeds in it; NaN where there are none).
        """
        counts = np.rint(self.shares * self.runs).astype(np.int64)
        bounds = [proportion_interval(k, self.runs, LEVEL) for k in range(self.runs + 1)]
        kind, row, column = (axis.ravel() for axis in np.indices(counts.shape))
        return pa.table(
            {
                self.x_name: self.x[column],
                self.y_name: self.y[row],
                "state": np.array(self.labels)[kind],
                "share": self.shares.ravel(),
                "low": np.array([each.low for each in bounds])[counts.ravel()],
                "high": np.array([each.high for each in bounds])[counts.ravel()],
                "support": self.support.ravel(),
                "best": kind == self.best[row, column],
                "loss": self.losses.ravel(),
            }
        )


def plane(
    table: pa.Table,
    x: str,
    y: str = "p",
    feature: int | None = None,
    label: str | None = None,
    threshold: float = SUPERPOSED,
) -> Plane:
    """The state of one feature over a plane of worlds: of the best seed, and of all seeds.

    `table` has one row for each cell, run and feature, in any order: the columns named by `x`
    and `y`, run, loss (of the model), feature, norm and interference. Only the rows of `feature`
    are read; None takes the table as it is, for one that holds a single feature. With `label`,
    the states are that column's texts instead (the shapes of a whole model, say), and feature,
    norm and interference need not be there. A model whose loss is not finite is in a state
    "diverged" of its own and never the best. Of runs with equal losses the first counts as best.

    Raises ValueError for missing columns, an empty table, a cell without one of the runs or with
    a run twice, and NaN in an axis or in the norm of a model that has not diverged.
    Source: Toy Models of Superposition, section on the phase change (several models a cell, the
    best kept).

    >>> data = {"r": [1.0, 1.0, 2.0, 2.0], "p": [0.5] * 4, "run": [0, 1, 0, 1]}
    >>> table = pa.table(data | {"loss": [0.1, 0.2, 0.1, 0.2], "shape": ["a", "b", "b", "b"]})
    >>> plane(table, "r", label="shape").states
    array([['a', 'b']], dtype='<U1')
    """
    reading = Reading(
        call="phases.plane", axes=(y, x), feature=feature, label=label, threshold=threshold
    )
    grid = read(table, reading)
    return _plane((x, y), (grid.axes[1], grid.axes[0]), grid.labels, grid.code, grid.loss)


def exact_plane(
    states: np.ndarray, x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("x", "p")
) -> Plane:
    """A plane of known states `[rows, columns]`, of a theory or an optimum, with no doubt in it.

    `x` and `y` are the axes' values, in any strict order. Raises ValueError for states that do
    not fit them.

    >>> known = exact_plane(np.array([["a", "b"]]), np.array([1.0, 2.0]), np.array([0.5]))
    >>> known.boundaries().to_pylist()[0]["boundary"]
    'a | b'
    """
    columns, rows = np.argsort(x), np.argsort(y)
    if states.shape != (rows.size, columns.size):
        raise ValueError(
            f"phases.exact_plane: states of shape {list(states.shape)} over {columns.size} values "
            f"of x and {rows.size} of y; they are [rows (y), columns (x)]"
        )
    labels, code = np.unique(np.asarray(states, str), return_inverse=True)
    code = code.reshape(states.shape)[np.ix_(rows, columns)]
    axes = np.asarray(x, np.float64)[columns], np.asarray(y, np.float64)[rows]
    return _plane(names, axes, tuple(labels.tolist()), code[..., None], np.zeros((*code.shape, 1)))


def axis_at(
    values: Float[np.ndarray, " cells"], index: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """The value of an axis at places between its cells, beyond its ends by the last step.

    The step of a single value is one, or in logarithms a factor e.
    """
    scale = np.log(values) if (values > 0).all() else values
    if values.size > 1:
        inner = np.clip(np.floor(index).astype(int), 0, values.size - 2)
        scale = scale[inner] + (index - inner) * (scale[inner + 1] - scale[inner])
    else:
        scale = scale[0] + index
    return np.exp(scale) if (values > 0).all() else scale


def index_at(
    axis: Float[np.ndarray, " cells"], values: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """The place of values along an axis, in cells: the inverse of `axis_at`."""
    positive = (axis > 0).all()
    scale, at = (np.log(axis), np.log(values)) if positive else (axis, values)
    if axis.size == 1:
        return at - scale[0]
    inner = np.clip(np.searchsorted(scale, at) - 1, 0, axis.size - 2)
    return inner + (at - scale[inner]) / (scale[inner + 1] - scale[inner])


def _plane(
    names: tuple[str, str],
    axes: tuple[np.ndarray, np.ndarray],
    labels: tuple[str, ...],
    code: Int[np.ndarray, "rows columns runs"],
    loss: Float[np.ndarray, "rows columns runs"],
) -> Plane:
    runs = code.shape[-1]
    order = np.argsort(loss, axis=-1, kind="stable")
    ranked = np.take_along_axis(code, order, -1)
    rank = np.arange(runs)
    wins = ((runs - rank) / runs) ** runs - ((runs - rank - 1) / runs) ** runs
    member = ranked[None] == np.arange(len(labels))[:, None, None, None]
    lowest = np.where(member, np.take_along_axis(loss, order, -1), np.inf).min(-1)
    return Plane(
        x_name=names[0],
        y_name=names[1],
        x=axes[0].astype(np.float64),
        y=axes[1].astype(np.float64),
        labels=labels,
        best=ranked[..., 0],
        shares=member.mean(-1),
        support=(member * wins).sum(-1),
        losses=np.where(np.isfinite(lowest), lowest, np.nan),
        runs=runs,
    )
