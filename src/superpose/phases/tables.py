"""Tables of models with seeds as arrays over a complete grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, Shaped

from superpose.phases.states import STATES, codes

DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Grid:
    """Models at every point of some axes, all runs at each.

    `axes` are the axes' values, rising. `code` is each model's place in `labels`, `loss` its
    loss (infinite where it has diverged), `order` the values of a further column.
    """

    axes: tuple[Float[np.ndarray, " _"], ...]
    labels: tuple[str, ...]
    code: Int[np.ndarray, "*axes runs"]
    loss: Float[np.ndarray, "*axes runs"]
    order: Float[np.ndarray, "*axes runs"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What to read from a table, and for whom: `call` is named in errors.

    `axes` are the columns of the axes. The state of a model is that of `feature` (None: of the
    table's only one) from its norm and interference by `threshold`, or with `label` the text in
    that column. `order` is a further column to bring along.
    """

    call: str
    axes: tuple[str, ...]
    feature: int | None
    label: str | None
    threshold: float
    order: str | None = None


def read(table: pa.Table, reading: Reading) -> Grid:
    """The models of a table over the grid of its axes and runs; raises ValueError as callers say.

    A model whose loss is not finite is in the state "diverged", whatever its label.
    """
    call, label = reading.call, reading.label
    if reading.feature is not None and "feature" in table.column_names:
        table = table.filter(pa.array(table["feature"].to_numpy() == reading.feature))
    further = [label] if label else ["norm", "interference"]
    if reading.order:
        further.append(reading.order)
    columns = _columns(
        table, list(dict.fromkeys([*reading.axes, "run", "loss", *further])), reading
    )
    values, places = zip(
        *(np.unique(columns[name], return_inverse=True) for name in (*reading.axes, "run")),
        strict=True,
    )
    shape = tuple(each.size for each in values)
    place = np.ravel_multi_index(places, shape)
    _check_complete(np.bincount(place, minlength=int(np.prod(shape))), shape, reading)
    columns = {name: column[np.argsort(place)] for name, column in columns.items()}
    loss = columns["loss"].astype(np.float64)
    finite = np.isfinite(loss)
    for name in further[1:] if label else further:
        if wrong := int((finite & ~np.isfinite(columns[name].astype(np.float64))).sum()):
            raise ValueError(
                f"{call}: {wrong} rows have a finite loss and a {name} that is not; measure it, "
                "or mark the model as diverged by a loss of NaN"
            )
    if label:
        texts = columns[label].astype(str)
        labels = tuple(np.unique(texts[finite]).tolist())
        code = np.searchsorted(labels, texts)
    else:
        labels = STATES
        code = codes(columns["norm"], columns["interference"], reading.threshold)
    if not finite.all():
        code, labels = np.where(finite, code, len(labels)), (*labels, DIVERGED)
    order = columns[reading.order].astype(np.float64).reshape(shape) if reading.order else None
    loss = np.where(finite, loss, np.inf)
    return Grid(values[:-1], labels, code.reshape(shape), loss.reshape(shape), order)


def _columns(table: pa.Table, names: list[str], reading: Reading) -> dict[str, np.ndarray]:
    call, feature = reading.call, reading.feature
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{call}: the table has no column {', '.join(missing)}; it needs "
            f"{', '.join(names)} and has {', '.join(table.column_names)}"
        )
    if table.num_rows == 0:
        whose = "" if feature is None else f" of feature {feature}"
        raise ValueError(f"{call}: no rows{whose}; pass one a world, run and feature")
    found: dict[str, Shaped[np.ndarray, " rows"]] = {
        name: table[name].to_numpy(zero_copy_only=False) for name in names
    }
    for name in reading.axes:
        found[name] = found[name].astype(np.float64)
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{call}: the axis {name} has values that are not finite")
    return found


def _check_complete(rows: np.ndarray, shape: Sequence[int], reading: Reading) -> None:
    sizes = [
        f"{size} values of {name}" for size, name in zip(shape[:-1], reading.axes, strict=True)
    ]
    grid = " × ".join([*sizes, f"{shape[-1]} runs"])
    if rows.max() > 1:
        raise ValueError(
            f"{reading.call}: {int((rows > 1).sum())} places of {grid} have more than one row; "
            "pass one feature (feature=0), and one table for each value of what else varies"
        )
    if rows.min() == 0:
        raise ValueError(
            f"{reading.call}: {int((rows == 0).sum())} places of {grid} have no row; the best of "
            "fewer runs does not compare, so leave incomplete runs or worlds out"
        )
