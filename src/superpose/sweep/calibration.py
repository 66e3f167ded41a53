"""How long a sweep takes: a few short trainings, and from them the shards and an estimate."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import process_time

import numpy as np
import torch

from superpose.engine import threads, train
from superpose.sweep.axes import blocks
from superpose.sweep.cells import TrainingSection
from superpose.sweep.configuration import SweepConfiguration
from superpose.sweep.plan import Cell, Plan

BLOCKS = 3
"""Blocks that are measured, at most; the time of the others follows from their work."""

PRICE = 0.05
"""Dollars for an hour of one core: about what large clouds ask for on demand."""

# A measured training goes on for this long, and each of a few cells of a block is measured once.
_SECONDS = 0.25
_MODELS = 16
_CELLS = 64

# Shards of the costliest cells may take this many times as long as the mean one.
_LONGEST = 2.5

# Small sweeps are cut into so many shards a core, so that all work to the end, of a second each.
_SHARDS_A_CORE = 4
_SHORTEST = 1.0

# What a shard holds in memory while it is trained, and how many models, at most.
_BYTES = 256e6
_MODELS_AT_MOST = 100_000

# What is written: a row of a table and a column of an axis in it, the rest of a shard, and a kept
# model beside its weights. Measured: 24 and 27 bytes a row, 4 kB a shard, 56 a model.
_ROW_BYTES = 26
_COLUMN_BYTES = 2
_SHARD_BYTES = 5_000
_MODEL_BYTES = 58


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds of one core for a model (the best of its restarts) of every block.

    `mean` is over the cells of the block, `costliest` that of its costliest cell.
    """

    mean: tuple[float, ...]
    costliest: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a sweep will take: from a calibration, so to within tens of per cent.

    `core_hours` are those of one core of the machine that was measured, `shard_seconds` of a
    mean and of the longest shard, `hours` for so many `workers` of one core each. `dollars` is
    for `price` dollars per core and hour, an assumption. Models stop early where the recipe has
    `stop`: then time is an upper bound. With refinement everything is for the cells chosen so
    far, and `models_at_most` for the whole fine grid.
    """

    models: int
    models_at_most: int
    cells: int
    shards: int
    shard_seconds: tuple[float, float]
    core_hours: float
    workers: int
    table_bytes: int
    weight_bytes: int
    price: float

    @property
    def hours(self) -> float:
        """Hours with all workers."""
        return max(self.core_hours / self.workers, self.shard_seconds[1] / 3600)

    @property
    def dollars(self) -> float:
        """What the hours of all cores cost."""
        return self.core_hours * self.price


def calibrate(configuration: SweepConfiguration) -> Calibration:
    """Measure short trainings, on one thread, of the densest, the sparsest and a middle cell.

    A few blocks are measured, from the one with least work to that with most; the others lie
    between. Compiling and the time of other processes do not count. Takes about five seconds.
    """
    plan = Plan(configuration, _ones(configuration))
    work = np.array([_work(plan, block) for block in range(plan.blocks)])
    order = np.argsort(work, kind="stable")
    chosen = order[np.unique(np.linspace(0, plan.blocks - 1, BLOCKS).round().astype(int))]
    with _one_thread():
        found = [_measured(plan, int(block)) for block in chosen]
    known, mean, most = np.log(work[chosen]), *np.log(np.array(found).T)
    if len(chosen) < plan.blocks:
        found = zip(
            np.exp(np.interp(np.log(work), known, mean)).tolist(),
            np.exp(np.interp(np.log(work), known, most)).tolist(),
            strict=True,
        )
    else:
        found = [found[place] for place in np.argsort(chosen)]
    means, costliest = zip(*found, strict=True)
    return Calibration(tuple(means), tuple(costliest))


def sizes(
    configuration: SweepConfiguration,
    calibration: Calibration | None = None,
    cores: int | None = None,
) -> tuple[int, ...]:
    """Models in a shard, for every block: what takes about the time that the file asks for.

    A small sweep is cut finer, so that every one of the `cores` (those of this machine) has some
    shards. Measures where there is no `calibration` and the file does not fix the models.
    """
    if configuration.shards.models is not None:
        return tuple(configuration.shards.models for _ in _ones(configuration))
    calibration = calibration or calibrate(configuration)
    plan = Plan(configuration, _ones(configuration))
    total = float(np.dot(_models(plan), calibration.mean))
    share = total / (_SHARDS_A_CORE * (cores or threads()))
    aim = min(configuration.shards.seconds, max(share, _SHORTEST))
    return tuple(
        _size(plan, block, min(aim / mean, _LONGEST * aim / costliest))
        for block, (mean, costliest) in enumerate(
            zip(calibration.mean, calibration.costliest, strict=True)
        )
    )


def estimate(
    plan: Plan, calibration: Calibration, workers: int | None = None, price: float = PRICE
) -> Estimate:
    """What a plan takes on `workers` cores like this one (those of this machine, if not given)."""
    models = _models(plan)
    seconds = float(np.dot(models, calibration.mean))
    weights = 0
    for block, count in enumerate(models):
        if count:
            keep = _kept(plan.configuration, plan.sizes[block])
            weights += int(count * keep * _model_bytes(plan, block))
    whole = [min(size, int(count)) for size, count in zip(plan.sizes, models, strict=True)]
    longest = max(c * n for c, n in zip(calibration.costliest, whole, strict=True))
    row = _ROW_BYTES + _COLUMN_BYTES * len(plan.columns)
    return Estimate(
        models=plan.models,
        models_at_most=plan.grid * plan.configuration.seeds,
        cells=plan.cells,
        shards=plan.shards,
        shard_seconds=(seconds / plan.shards, longest),
        core_hours=seconds / 3600,
        workers=workers or threads(),
        table_bytes=plan.models * row + plan.shards * _SHARD_BYTES,
        weight_bytes=weights,
        price=price,
    )


def _kept(configuration: SweepConfiguration, size: int) -> float:
    """The share of the models whose weights are kept, by shards of so many models."""
    kept = {
        "all": configuration.seeds,
        # The best of what each shard has of the cell.
        "best": -(-configuration.seeds // size),
        "sampled": min(configuration.keep.runs, configuration.seeds),
        "none": 0,
    }
    return kept[configuration.keep.weights] / configuration.seeds


def _ones(configuration: SweepConfiguration) -> tuple[int, ...]:
    return (1,) * blocks(configuration.fine_axes)


def _models(plan: Plan) -> list[int]:
    """The models of every block that are trained."""
    seeds, width = plan.configuration.seeds, plan.block_cells
    if plan.rounds is None:
        return [width * seeds] * plan.blocks
    chosen = Counter(cell // width for each in plan.rounds for cell in each)
    return [chosen[block] * seeds for block in range(plan.blocks)]


def _work(plan: Plan, block: int) -> float:
    """Roughly what a model costs: products of the batch with the parameters, over all steps."""
    numbers, training = _parts(plan, block)
    return float(training.steps) * training.batch * numbers


def _model_bytes(plan: Plan, block: int) -> int:
    """What one kept model takes on disk, with its snapshots."""
    numbers, training = _parts(plan, block)
    kept = training.snapshots
    return (4 * numbers + _MODEL_BYTES) * (1 + (len(kept) if isinstance(kept, tuple) else kept.log))


def _parts(plan: Plan, block: int) -> tuple[int, TrainingSection]:
    """How many parameters a model of a block has, and its recipe as in the file."""
    values = plan.values_of(block * plan.block_cells)
    model = plan.configuration.section("model", values)
    numbers = model.n * model.m * (1 if model.tied else 2) + model.n
    return numbers, plan.configuration.section("training", values)


def _size(plan: Plan, block: int, models: float) -> int:
    # In memory a model also has two moments of every parameter and the best of its restarts.
    room = _BYTES / (4 * _model_bytes(plan, block))
    return max(1, int(min(models, room, _MODELS_AT_MOST)))


def _measured(plan: Plan, block: int) -> tuple[float, float]:
    """Mean and costliest seconds of one core for a model of a block."""
    cells = list(_spread(plan, block))
    density = np.array([float(cell.world.probability.mean()) for cell in cells])
    order = np.argsort(density, kind="stable")
    at = np.unique(order[[0, len(order) // 2, -1]])
    at = at[np.argsort(density[at], kind="stable")]
    seconds = np.array([_seconds(plan.configuration, cells[place]) for place in at])
    every = np.interp(density, density[at], seconds)
    return float(every.mean()), float(seconds.max())


def _spread(plan: Plan, block: int) -> Iterator[Cell]:
    """Cells of a block: all of a small one, else some spread over it and those at its corners."""
    width = plan.block_cells
    if width <= _CELLS:
        numbers: Sequence[int] = range(width)
    else:
        inner = [n for n, axis in zip(plan.shape, plan.axes, strict=True) if not axis.outer]
        corners = {0}
        for length in inner:
            # The first and the last along each axis; of many axes, some of the corners.
            corners = {c * length + p for c in sorted(corners)[:_CELLS] for p in (0, length - 1)}
        # Steps prime to the lengths of axes, as the golden section nearly is, meet all parts.
        spread = {int(width * (0.618033988749895 * i % 1.0)) for i in range(_CELLS)}
        numbers = sorted(corners | spread)
    return (plan.cell(block * width + number) for number in numbers)


def _seconds(configuration: SweepConfiguration, cell: Cell) -> float:
    """Seconds of one core for a model of a cell, from two short trainings."""
    models = min(_MODELS, configuration.seeds * configuration.restarts)

    def time(steps: int) -> float:
        recipe = replace(cell.training, steps=steps, warmup=0, snapshots=(), stop=None)
        begin = process_time()
        train(cell.model, [cell.world], recipe, runs=models, seed=configuration.seed)
        return (process_time() - begin) / models

    # The first compiles; of what is left to one step, most is the loss at the end.
    time(1)
    once = min(time(1), time(1))
    steps, last = 1, once
    while steps < cell.training.steps and last * models < _SECONDS:
        steps = min(cell.training.steps, steps * 8)
        last = time(steps)
    each = max(last - once, 0.0) / max(steps - 1, 1)
    losses = 1 + len(cell.training.snapshots)
    return configuration.restarts * max(once * losses + each * (cell.training.steps - 1), 1e-6)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for training and for losses, as in a worker."""
    before, torch_threads = os.environ.get("SUPERPOSE_THREADS"), torch.get_num_threads()
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        if before is None:
            del os.environ["SUPERPOSE_THREADS"]
        else:
            os.environ["SUPERPOSE_THREADS"] = before
