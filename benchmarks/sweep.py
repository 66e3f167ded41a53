"""What sweeps cost beside the training: the store, the workers, the plan, the questions.

Processor time is what to go by where other work runs on the machine; wall time stands beside it.

- `overhead`: `run(sweep, Here())` against `engine.train` of the same models, one thread both, in
  turns; and what of the sweep's own time was not spent in `train`, which other work disturbs less.
- `commit`: the time to write one shard, with all its fsyncs, by its number of models.
- `real`: 100,000 models of (5, 2), 2,000 steps each, by `superpose sweep --executor local` on two
  cores, against two cores that do nothing but train; a small sweep tells what the start takes.
- `rows`: a store of 1,000,000 made-up models: open, table, a median for each of 10,000 cells by
  DuckDB and by Polars, verify, reindex.
- `plan`: a plan of 1,000,000,000 models and one of 1,000: time and memory of 1,000 random models
  and shards.
- `refinement`: the boundary of a pair of features in one dimension, refined and by the full grid.

A part's results replace those in the file, so a full run can be had in pieces.

    python benchmarks/sweep.py [--quick] [--group overhead commit …]
    python benchmarks/sweep.py --table docs/sweeps.md
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sweep_tables
import tables
import torch
from opponents import HOME
from sweep_questions import planning, refining, rows
from sweep_sides import Spent, made_up, median_of, of_pentagons, trained, watched
from threadpoolctl import threadpool_limits

from engine import machine
from superpose import records
from superpose.engine import Run, train
from superpose.sweep import Here, Plan, Sweep, SweepConfiguration, calibrate, work
from superpose.sweep.run import run as carry_out

FEW = 400
"""Models of a sweep that is small, but keeps both workers busy; what it takes is mostly start."""


def overhead(options: argparse.Namespace) -> dict:
    """The store over bare training, for a shard of so many seconds."""
    axes = {"world.p": {"log": [1.0, 0.01], "count": 25}}
    each = calibrate(of_pentagons(axes, 16)).mean[0]
    seeds = max(1, round(options.seconds / each / 25))
    configuration = of_pentagons(axes, seeds)
    plan = Plan(configuration, (25 * seeds,))
    shard, found = plan.shard(0), []
    for _ in range(options.rounds):
        with Spent() as bare:
            trained(plan, shard)
        with (
            TemporaryDirectory(dir=options.folder) as folder,
            timed_training() as inside,
            Spent() as stored,
        ):
            outcome = carry_out(Sweep.create(f"{folder}/s", configuration, plan.sizes), Here())
        assert not outcome.missing
        found.append(
            {
                "bare": bare.cpu,
                "stored": stored.cpu,
                "ratio": stored.cpu / bare.cpu - 1,
                "ratio_by_wall_clock": stored.wall / bare.wall - 1,
                "beside_training": (stored.cpu - inside.cpu) / inside.cpu,
                "beside_training_wall": (stored.wall - inside.wall) / inside.wall,
            }
        )
        print(sweep_tables.overhead_line(found[-1]), flush=True)
    medians = {name: statistics.median(row[name] for row in found) for name in found[0]}
    return {"models": shard.models, "rows": found, "asked": 0.03} | medians


@contextmanager
def timed_training() -> Iterator[Spent]:
    """What the sweep spends in `train` while within."""
    spent, before = Spent(), work.train

    def measured(*given: Any, **named: Any) -> Run:
        with spent:
            return before(*given, **named)

    work.train = measured
    try:
        yield spent
    finally:
        work.train = before


def commit(options: argparse.Namespace) -> dict:
    """The time to write a shard."""
    found = []
    for models in (10, 1_000, 10_000)[: 2 if options.quick else None]:
        found.append(written(models, 3 if options.quick else 15, options.folder))
        print(sweep_tables.commit_line(found[-1]), flush=True)
    return {"rows": found}


def written(models: int, shards: int, within: Path | None) -> dict[str, float]:
    """The time to write a shard of so many models, and its size."""
    axes = {"world.p": {"log": [1.0, 0.01], "count": 10 * shards}}
    with TemporaryDirectory(dir=within) as folder:
        sweep = Sweep.create(f"{folder}/s", of_pentagons(axes, models // 10), (models,))
        planned = [sweep.plan.shard(number) for number in range(shards)]
        ready = iter([(shard, made_up(sweep.plan, shard)) for shard in planned])
        spent = median_of(shards, lambda: sweep.write(*next(ready), 1.0))
        size_of_one = sum(sweep.folder.names("shards").values()) / shards
    return {"models": models, "bytes": size_of_one} | spent


def real(options: argparse.Namespace) -> dict:
    """Many real models from the command line to the table."""
    cells = options.models // 8
    configuration = of_pentagons({"world.p": {"log": [1.0, 0.01], "count": cells}}, 8)
    before = bare_rate(configuration)
    with TemporaryDirectory(dir=options.folder) as folder:
        few = commanded(FEW // 8, f"{folder}/few")
        ended = commanded(cells, where := f"{folder}/many")
        sweep = Sweep.open(where)
        models, names = sweep.plan.models, sweep.folder.names()
        assert not list(sweep.missing())
        verify = median_of(1, sweep.verify)
        table = median_of(3, sweep.table)
        assert sweep.table(["index"]).num_rows == models
    bare = (before + bare_rate(configuration)) / 2
    each = (ended["cpu"] - few["cpu"]) / (models - FEW)
    found = {
        "models": models,
        "shards": sweep.plan.shards,
        "bytes": sum(names.values()),
        "models_per_second": models / ended["wall"],
        "bare_ms": bare * 1e3,
        "start": few["cpu"] - each * FEW,
        "sweep_ms": each * 1e3,
        "over_bare": each / bare - 1,
        "floor": models * bare / 2,
        "share_of_cores": ended["cpu"] / ended["wall"] / 2,
        "verify": verify,
        "table": table,
    } | ended
    print(sweep_tables.real_lines(found))
    return found


def commanded(cells: int, where: str) -> dict[str, float]:
    """What `superpose sweep` takes for so many cells of `of_pentagons`, in two processes."""
    text = (
        "[model]\nn = 5\nm = 2\n[training]\nsteps = 2_000\n"
        f'[axes]\n"world.p" = {{ log = [1.0, 0.01], count = {cells} }}\n'
    )
    (file := Path(f"{where}.toml")).write_text(text, "utf-8")
    words = ["sweep", str(file), "--out", where, "--workers", "2", "--quiet"]
    return watched(["-m", "superpose.cli", *words])


def bare_rate(configuration: SweepConfiguration) -> float:
    """Processor seconds of one thread for a model: every hundredth cell, trained and no more."""
    plan = Plan(configuration, (1,))
    cells = [plan.cell(cell) for cell in range(0, plan.cells, max(1, plan.cells // 125))]
    worlds = [cell.world for cell in cells]
    train(cells[0].model, worlds[:1], cells[0].training, runs=1)
    with Spent() as spent:
        train(cells[0].model, worlds, cells[0].training, runs=configuration.seeds)
    return spent.cpu / len(worlds) / configuration.seeds


GROUPS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "overhead": overhead,
    "commit": commit,
    "real": real,
    "rows": rows,
    "plan": planning,
    "refinement": refining,
}


def run(options: argparse.Namespace) -> None:
    """Run the groups and write each as soon as it is done."""
    about = machine()
    for group in options.group:
        print(f"\n{group}")
        before = os.getloadavg()[0]
        found = GROUPS[group](options)
        after = os.getloadavg()[0]
        # At the end the running processes of this script are still in the average.
        quiet = max(before, after - (2 if group == "real" else 1)) <= about["cores"] / 4
        load = {"load_before": before, "load_after": after, "quiet": quiet}
        print(f"load {before:.1f} before, {after:.1f} after{'' if quiet else ': NOT quiet'}")
        done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
        done[group] = {"machine": about | load} | found
        records.write_json(options.out, done)
    print(f"\n{options.out}")


def main() -> None:
    """Read the options and keep every library to one thread."""
    parser = argparse.ArgumentParser(description="what sweeps cost beside the training")
    parser.add_argument("--quick", action="store_true", help="few models, one round")
    parser.add_argument("--group", nargs="+", choices=GROUPS, help="these parts; else all")
    parser.add_argument("--rounds", type=int, help="else 3")
    parser.add_argument("--seconds", type=float, help="of the shard of `overhead`; else 60")
    parser.add_argument("--models", type=int, help="of `real`; else 100,000")
    parser.add_argument("--folder", type=Path, help="where the sweeps go while measured; else /tmp")
    parser.add_argument("--table", type=Path, help="fill in this page's tables; measure nothing")
    parser.add_argument("--out", type=Path, help="else results/sweep.json, beside this script")
    options = parser.parse_args()
    options.group = options.group or list(GROUPS)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.0 if options.quick else 60.0)
    options.models = options.models or (1_000 if options.quick else 100_000)
    options.fewer = 10 if options.quick else 1
    options.out = options.out or HOME / f"results/sweep{'-quick' if options.quick else ''}.json"
    if options.table:
        tables.TABLES.update(sweep_tables.TABLES)
        tables.fill(options.table, json.loads(options.out.read_text("utf-8")))
        return
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    with threadpool_limits(1):
        run(options)


if __name__ == "__main__":
    main()
