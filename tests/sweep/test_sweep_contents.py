from dataclasses import replace

import numpy as np
import pytest
from tiny_sweeps import configuration, made_up

from superpose.kernels import cpu, streams
from superpose.records import RecordError
from superpose.sweep import contents
from superpose.sweep.plan import Plan, Shard

ABOUT = {"seed": 0, "kernel": cpu.VERSION, "processor": streams.processor()}


def plan_of(**given):
    plan = Plan(configuration(**given), (6,))
    return plan, plan.shard(1)


@pytest.mark.parametrize(
    "model", [{}, {"tied": False}, {"hidden": "relu"}], ids=["tied", "untied", "relu"]
)
def test_what_is_kept_comes_back(model):
    plan, shard = plan_of(model={"n": 3, "m": 2} | model)
    run = made_up(plan, shard)
    arrays, cells = contents.arrays_of(plan, run), [plan.cell(cell) for cell in shard.cells]
    back = contents.run_from("here", arrays, cells, ABOUT)
    assert (back.model, back.worlds, back.training) == (run.model, run.worlds, run.training)
    assert back.index.tolist() == run.index.tolist()
    assert back.table() == run.table()
    for name, value in run.parameters.items():
        assert back.parameters[name].equal(value)
        assert back.snapshots.parameters[name].equal(run.snapshots.parameters[name])
    # The optimiser's memory is what makes a record three times as large.
    assert sum(array.nbytes for array in arrays.values()) < run.state.moments.nbytes * 3
    with pytest.raises(ValueError, match="no optimiser moments"):
        back.resume(replace(back.training, steps=30))


def test_without_restarts_or_axes_there_are_no_columns_for_them():
    names = contents.schema_of(plan_of()[0]).names
    assert names[:4] == ["index", "cell", "p", "run"]
    plan = Plan(configuration(axes={}, restarts=2), (3,))
    assert contents.schema_of(plan).names[:5] == ["index", "cell", "run", "number", "p"]


def test_the_value_of_an_axis_is_as_written():
    # The mean of the features' probabilities is 0.1 only up to rounding.
    plan = Plan(configuration(model={"n": 3, "m": 1}, axes={"world.p": [0.1, 0.7]}), (6,))
    table = contents.table_of(plan, plan.shard(0), made_up(plan, plan.shard(0)))
    assert set(table["p"].to_pylist()) == {0.1, 0.7}


def test_axes_of_lists_and_names_are_text():
    axes = {"world.p": [[0.1, 0.2], 0.5], "model.init": ["xavier"], "model.tied": [True, False]}
    plan = Plan(configuration(axes=axes), (6,) * 2)
    table = contents.table_of(plan, plan.shard(0), made_up(plan, plan.shard(0)))
    assert table.schema == contents.schema_of(plan)
    assert set(table["p"].to_pylist()) == {"[0.1, 0.2]", "0.5"}
    assert set(table["tied"].to_pylist()) == {True}


def test_indices_are_those_of_the_plan():
    plan, shard = plan_of()
    seeds = plan.configuration.seeds
    found = [plan.at(int(index)) for index in contents.indices(plan, shard)]
    wanted = [(cell, run) for cell in shard.cells for run in shard.runs]
    assert [(cell.number, run) for cell, run in found] == wanted
    piece = Shard(0, range(2, 3), range(1, 3))
    assert contents.indices(plan, piece).tolist() == [2 * seeds + 1, 2 * seeds + 2]


@pytest.mark.parametrize("change", ["gone", "shape", "dtype", "more"])
def test_arrays_of_other_models_are_refused(change):
    plan, shard = plan_of()
    arrays = contents.arrays_of(plan, made_up(plan, shard))
    if change == "gone":
        del arrays["W"]
    elif change == "more":
        arrays["V"] = arrays["W"]
    else:
        arrays["W"] = arrays["W"][:1] if change == "shape" else arrays["W"].astype(np.float64)
    cells = [plan.cell(cell) for cell in shard.cells]
    with pytest.raises(RecordError, match="not the weights"):
        contents.run_from("here", arrays, cells, ABOUT)
