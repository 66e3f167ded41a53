"""Tiny sweeps for tests, filled with made-up models or trained ones."""

import numpy as np

from superpose.engine import Run, Snapshots, states, train
from superpose.engine.backends import shapes_of
from superpose.engine.states import Rows
from superpose.kernels import cpu, streams
from superpose.records import RecordError
from superpose.records.formats import format_table
from superpose.sweep.configuration import parse
from superpose.sweep.store import Sweep


def configuration(**given):
    """Four worlds of (2, 1), three seeds of each; `given` replaces what it names."""
    plain = {
        "model": {"n": 2, "m": 1},
        "training": {"steps": 20, "snapshots": [5]},
        "axes": {"world.p": [1.0, 0.5, 0.1, 0.05]},
        "seeds": 3,
    }
    return parse(plain | given)


def refined(**given):
    """Two coarse points of p, and three between them."""
    return configuration(
        axes={"world.p": {"log": [1.0, 0.01], "count": 2}},
        refine={"measure": "represented", "axes": ["world.p"], "width": 0.5},
        **given,
    )


def made_up(plan, shard):
    """A run of a shard without training: every model's numbers follow from its index."""
    cells, restarts = [plan.cell(cell) for cell in shard.cells], plan.configuration.restarts
    model, steps = cells[0].model, tuple(cells[0].training.snapshots)
    stack, shapes = (len(cells), len(shard.runs)), shapes_of(model)
    size = states.size(shapes)
    end, kept = (Rows.empty((*before, stack[0] * stack[1]), size) for before in ((), (len(steps),)))
    at = 0
    for cell in shard.cells:
        for run in shard.runs:
            rng = np.random.default_rng([cell, run])
            end.theta[at] = rng.normal(size=size)
            kept.theta[:, at] = rng.normal(size=size)
            end.loss[at] = kept.loss[:, at] = rng.random()
            at += 1
    end.steps[:] = cells[0].training.steps
    numbers = np.asarray(shard.runs) * restarts + restarts - 1
    return Run(
        model=model,
        worlds=tuple(cell.world for cell in cells),
        training=cells[0].training,
        seed=plan.configuration.seed,
        index=np.tile(numbers, (len(cells), 1)),
        state=end.state(shapes, stack),
        snapshots=Snapshots(steps, kept.state(shapes, stack)),
        kernel=cpu.VERSION,
        processor=streams.processor(),
    )


def trained(plan, shard):
    """A run of a shard as a runner makes it."""
    cells, settings = [plan.cell(cell) for cell in shard.cells], plan.configuration
    return train(
        cells[0].model,
        [cell.world for cell in cells],
        cells[0].training,
        runs=shard.runs,
        seed=settings.seed,
        restarts=settings.restarts,
    )


def filled(where, given, sizes, run=made_up, only=None):
    """A sweep with all its shards done, or `only` some."""
    sweep = Sweep.create(where, given, sizes)
    for number in sweep.missing() if only is None else only:
        shard = sweep.plan.shard(number)
        sweep.write(shard, run(sweep.plan, shard), 1.0)
    return sweep


def problems(where):
    """What `superpose verify` says."""
    try:
        return Sweep.open(where).verify()
    except RecordError as error:
        return [str(error)]


def read(where, kind):
    """All that depends on a kind of file, read as users do, or None for an error."""
    try:
        sweep = Sweep.open(where)
        if kind == ".safetensors":
            return [sweep.runs(cell).W.tolist() for cell in (0, 2, 4)]
        # A shard that seems not to be done would be a silent loss.
        return sweep.paths() if kind in ("DONE.json", "index.json") else format_table(sweep.table())
    except RecordError:
        return None
