"""What is in the files of a shard: a table of its models, and the arrays of those kept."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from superpose.engine import Run, Snapshots, State, Training
from superpose.engine import tables as engine_tables
from superpose.engine.backends import shapes_of
from superpose.engine.files import array_names, state_arrays, state_from
from superpose.engine.states import Rows, concatenate, size
from superpose.models import ToyModel
from superpose.records import RecordError
from superpose.sweep.plan import Cell, Plan, Shard


def indices(plan: Plan, shard: Shard) -> Int[np.ndarray, " models"]:
    """The index of every model of a shard, in order."""
    cells = np.asarray(shard.cells, np.int64) * plan.configuration.seeds
    return (cells[:, None] + np.asarray(shard.runs, np.int64)).ravel()


def table_of(plan: Plan, shard: Shard, run: Run) -> pa.Table:
    """One row a model: its index, cell, values of the axes and run, then what `Run.table` has."""
    return _table(plan, shard, run.worlds, run.index, run.state)


def schema_of(plan: Plan) -> pa.Schema:
    """The columns of every `table_of`."""
    cell = plan.cell(0)
    shapes = shapes_of(cell.model)
    state = Rows.empty((1,), size(shapes)).state(shapes, (1, 1))
    shard = Shard(number=0, cells=range(1), runs=range(1))
    return _table(plan, shard, (cell.world,), np.zeros((1, 1), np.int64), state).schema


def _table(
    plan: Plan, shard: Shard, worlds: Sequence[Any], number: Int[np.ndarray, "*run"], state: State
) -> pa.Table:
    found = engine_tables.table(tuple(worlds), number, state, "models")
    runs = len(shard.runs)
    rows = [plan.row(cell) for cell in shard.cells]
    columns: dict[str, Any] = {
        "index": indices(plan, shard),
        "cell": np.repeat(np.asarray(shard.cells, np.int64), runs),
    }
    for name in plan.columns:
        values = [row[name] for row in rows]
        columns[name] = pa.array(values).take(pa.array(np.repeat(np.arange(len(rows)), runs)))
    columns["run"] = np.tile(np.asarray(shard.runs, np.int64), len(rows))
    if plan.configuration.restarts > 1:
        # Which of a run's restarts it is: the number that, with the seed, makes the model.
        columns["number"] = number.ravel()
    taken = {"world", *columns}
    columns |= {name: found[name] for name in found.column_names if name not in taken}
    return pa.table(columns)


def arrays_of(plan: Plan, run: Run) -> dict[str, np.ndarray]:
    """The arrays of the models kept of a shard's run, empty where none are.

    The memory of the optimiser, twice the size of the weights, is not kept.
    """
    kept = _kept(plan, run)
    if kept is None:
        return {}
    names = array_names(kept.model, kept.parameters)
    return {
        "index": kept.index,
        **state_arrays(_bare(kept.state), names),
        **state_arrays(_bare(kept.snapshots.state), names, "snapshots."),
    }


def _kept(plan: Plan, run: Run) -> Run | None:
    keep, restarts = plan.configuration.keep, plan.configuration.restarts
    if keep.weights == "all":
        return run
    if keep.weights == "best":
        return run.best()
    # The same run numbers in every world, since shards are whole.
    count = int((run.index[0] // restarts < keep.runs).sum()) if keep.weights == "sampled" else 0
    if not count:
        return None
    snapshots = run.snapshots.state.map(lambda array: array[:, :, :count])
    return replace(
        run,
        index=run.index[:, :count],
        state=run.state.map(lambda array: array[:, :count]),
        snapshots=Snapshots(run.snapshots.steps, snapshots),
    )


def _bare(state: State) -> State:
    return replace(state, moments=state.moments[..., :0])


def run_from(
    where: str, arrays: dict[str, np.ndarray], cells: Sequence[Cell], about: dict[str, Any]
) -> Run:
    """The run that `arrays_of` made arrays of; `about` is its seed, kernel and processor.

    Raises RecordError where they are not the arrays of models of these cells.
    """
    model, training = cells[0].model, cells[0].training
    kept = arrays["index"].shape[-1] if "index" in arrays and arrays["index"].ndim == 2 else 0
    expected = _outline(model, training, (len(cells), kept))
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if not kept or found != expected:
        raise RecordError(f"{where}: not the weights of this shard's models")
    names = array_names(model, shapes_of(model))
    steps = tuple(training.snapshots)
    snapshots = state_from(arrays, names, "snapshots.", np.array(steps, np.int64))
    return Run(
        model=model,
        worlds=tuple(cell.world for cell in cells),
        training=training,
        index=arrays["index"],
        state=state_from(arrays, names, "", np.array(training.steps)),
        snapshots=Snapshots(steps, snapshots),
        **about,
    )


def _outline(model: ToyModel, training: Training, axes: tuple[int, int]) -> dict[str, Any]:
    """The shape and dtype of every array of so many cells and models kept of each."""
    # Of no models: numpy tells the shapes without the memory.
    shapes = shapes_of(model)
    names = array_names(model, shapes)
    found: dict[str, Any] = {"index": (axes, np.dtype(np.int64))}
    for prefix, before in (("", ()), ("snapshots.", (len(training.snapshots),))):
        state = _bare(Rows.empty((0,), size(shapes)).state(shapes, (0, 1)))
        for name, array in state_arrays(state, names, prefix).items():
            found[name] = ((*before, *axes, *array.shape[2:]), array.dtype)
    return found


def of_cell(run: Run, place: int) -> Run:
    """The models of one of a run's worlds, as a stack with the axis `[runs]` alone."""
    snapshots = run.snapshots.state.map(lambda array: array[:, place])
    return replace(
        run,
        worlds=run.worlds[place : place + 1],
        index=run.index[place],
        state=run.state.map(lambda array: array[place]),
        snapshots=Snapshots(run.snapshots.steps, snapshots),
    )


def joined(runs: Sequence[Run]) -> Run:
    """Runs of one cell, joined along their runs."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    snapshots = concatenate([run.snapshots.state for run in runs], 1)
    return replace(
        first,
        index=np.concatenate([run.index for run in runs]),
        state=concatenate([run.state for run in runs], 0),
        snapshots=Snapshots(first.snapshots.steps, snapshots),
    )
