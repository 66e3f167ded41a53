"""What is measured in sweep.py: models to train or to make up, and how much a call takes."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, process_time
from typing import Any

import numpy as np

from superpose.engine import Run, Snapshots, train
from superpose.engine.backends import shapes_of
from superpose.engine.states import Rows, size
from superpose.kernels import cpu, streams
from superpose.sweep import Plan, SweepConfiguration, parse
from superpose.sweep.plan import Shard


class Spent:
    """Seconds of wall and of this process's processor time, added up over uses of `with`."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> "Spent":
        self._begin = perf_counter(), process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += perf_counter() - self._begin[0]
        self.cpu += process_time() - self._begin[1]


def median_of(rounds: int, call: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of a call, by the wall and of the processor."""
    spent = []
    for _ in range(rounds):
        with Spent() as once:
            call()
        spent.append(once)
    return {
        "wall": statistics.median(each.wall for each in spent),
        "cpu": statistics.median(each.cpu for each in spent),
    }


def trained(plan: Plan, shard: Shard) -> Run:
    """A shard by `engine.train` alone."""
    cells, settings = [plan.cell(cell) for cell in shard.cells], plan.configuration
    return train(
        cells[0].model,
        [cell.world for cell in cells],
        cells[0].training,
        runs=shard.runs,
        seed=settings.seed,
    )


def made_up(plan: Plan, shard: Shard) -> Run:
    """A run of a shard with random numbers in place of trained ones."""
    cells = [plan.cell(cell) for cell in shard.cells]
    model, rng = cells[0].model, np.random.default_rng(shard.number)
    shapes, stack = shapes_of(model), (len(cells), len(shard.runs))
    rows = Rows.empty((shard.models,), size(shapes))
    rows.theta[:] = rng.normal(size=rows.theta.shape)
    rows.loss[:], rows.steps[:] = rng.random(shard.models), cells[0].training.steps
    none = Rows.empty((0, shard.models), size(shapes)).state(shapes, stack)
    return Run(
        model=model,
        worlds=tuple(cell.world for cell in cells),
        training=cells[0].training,
        seed=plan.configuration.seed,
        index=np.tile(np.asarray(shard.runs), (len(cells), 1)),
        state=rows.state(shapes, stack),
        snapshots=Snapshots((), none),
        kernel=cpu.VERSION,
        processor=streams.processor(),
    )


def of_pentagons(axes: dict[str, Any], seeds: int, **rest: Any) -> SweepConfiguration:
    """Five features in two dimensions, 2,000 steps."""
    plain = {"model": {"n": 5, "m": 2}, "training": {"steps": 2_000}, "axes": axes, "seeds": seeds}
    return parse(plain | rest)


def watched(options: list[str]) -> dict[str, float]:
    """Wall and processor seconds of a Python process with its children, and their most memory."""
    begin, over, most = perf_counter(), Event(), [0.0]
    environment = {key: value for key, value in os.environ.items() if key != "SUPERPOSE_THREADS"}
    process = subprocess.Popen([sys.executable, *options], env=environment)

    def look() -> None:
        while not over.wait(1.0):
            most[0] = max(most[0], sum(map(resident, family(process.pid))))

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)  # usage is with that of its own children
    over.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{options} ended with {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return {"wall": perf_counter() - begin, "cpu": cpu_seconds, "peak_gb": most[0] / 1e9}


def family(pid: int) -> list[int]:
    """A process and all below it; on Linux."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(each for one in below for each in family(int(one)))]


def resident(pid: int) -> int:
    """Bytes of memory of a process that it shares with none, and its part of shared ones."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
