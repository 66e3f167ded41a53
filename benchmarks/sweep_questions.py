"""Parts of sweep.py that train little or nothing: a full store, a large plan, refinement."""

import argparse
from tempfile import TemporaryDirectory

import numpy as np
import sweep_tables
from sweep_sides import Spent, made_up, median_of, of_pentagons

from engine import child
from superpose.sweep import Here, Sweep, parse
from superpose.sweep.refinement import boundaries, savings
from superpose.sweep.run import run as carry_out


def rows(options: argparse.Namespace) -> dict:
    """Questions to a store of made-up models."""
    import polars

    cells = 10_000 // options.fewer
    axes = {"world.p": {"log": [1.0, 0.01], "count": cells}}
    asked = "select cell, median(loss) as loss from models group by cell order by cell"
    with TemporaryDirectory(dir=options.folder) as folder:
        where = f"{folder}/s"
        sweep = Sweep.create(where, of_pentagons(axes, 100), (4_000,))
        with Spent() as writing:
            for number in range(sweep.plan.shards):
                shard = sweep.plan.shard(number)
                sweep.write(shard, made_up(sweep.plan, shard), 60.0)
        sizes = {name.rpartition(".")[2]: 0 for name in sweep.folder.names("shards")}
        for name, bytes_ in sweep.folder.names("shards").items():
            sizes[name.rpartition(".")[2]] += bytes_
        without = median_of(options.rounds, lambda: Sweep.open(where).done())
        reindex = median_of(options.rounds, lambda: Sweep.open(where).reindex())
        opened = median_of(options.rounds, lambda: Sweep.open(where).done())
        sweep = Sweep.open(where)
        answer = sweep.query(asked)
        assert answer.num_rows == cells
        times = {
            "write all shards": {"wall": writing.wall, "cpu": writing.cpu},
            "open without index": without,
            "reindex": reindex,
            "open": opened,
            "table of all columns": median_of(options.rounds, sweep.table),
            "table of three columns": median_of(
                options.rounds, lambda: sweep.table(["cell", "p", "loss"])
            ),
            "query by DuckDB": median_of(options.rounds, lambda: sweep.query(asked)),
            "query by Polars": median_of(
                options.rounds,
                lambda: (
                    polars.from_arrow(sweep.table(["cell", "loss"]))
                    .group_by("cell")  # pyright: ignore
                    .median()
                ),
            ),
            "weights of one cell": median_of(options.rounds, lambda: sweep.runs(cells // 2)),
            "verify": median_of(options.rounds, sweep.verify),
        }
        shards, models = sweep.plan.shards, sweep.plan.models
    found = {"models": models, "cells": cells, "shards": shards, "bytes": sizes, "times": times}
    print(sweep_tables.rows_lines(found))
    return found


def planning(options: argparse.Namespace) -> dict:
    """What a plan costs, whatever its size."""
    found = {}
    for count, seeds in ((10, 10), (1_000, 1_000)):
        models, shards, made, asked, objects, growth = child(_PLAN.format(count, seeds)).split()
        row = {
            "models": int(models),
            "shards": int(shards),
            "make_ms": float(made) * 1e3,
            "ask_ms": float(asked) * 1e3,
            "objects_kb": int(objects) / 1e3,
            "growth_mb": int(growth) * 1024 / 1e6,
        }
        found[models] = row
        print(sweep_tables.plan_line(row), flush=True)
    return {"rows": found}


# The plan is asked three times: to import and fill caches, by the clock, and by what it allocates.
_PLAN = """
import pathlib, random, tracemalloc
from time import process_time
from superpose.sweep import Plan, parse

def peak():
    status = pathlib.Path("/proc/self/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) if status.exists() else 0

def ask(count, seeds):
    begin = process_time()
    ends = {{"world.p": [1.0, 0.01], "world.importance": [0.1, 1.0]}}
    axes = {{key: dict(log=each, count=count) for key, each in ends.items()}}
    plan = Plan(parse(dict(model=dict(n=5, m=2), axes=axes, seeds=seeds)), (4_000,))
    made, draw = process_time() - begin, random.Random(0)
    begin = process_time()
    for _ in range(1_000):
        plan.at(draw.randrange(plan.models))
        plan.shard(draw.randrange(plan.shards))
    return plan.models, plan.shards, made, process_time() - begin

ask(2, 2)
before = peak()
first = ask({0}, {1})
growth = peak() - before
tracemalloc.start()
ask({0}, {1})
print(*first, tracemalloc.get_traced_memory()[1], growth)
"""


def refining(options: argparse.Namespace) -> dict:
    """One boundary, refined and by the full grid, both trained."""
    coarse, halvings = (4, 1) if options.quick else (5, 4)
    fine = (coarse - 1) * 2**halvings + 1
    width = {"world.p": 2 / (fine - 1), "world.importance": 1 / (fine - 1)}
    plain = {
        "model": {"n": 2, "m": 1},
        "training": {"steps": 200 if options.quick else 2_000, "lr": 0.005, "schedule": "cosine"},
        "seeds": 8,
        "shards": {"models": 1_000},
    }
    ends = {"world.p": [1.0, 0.01], "world.importance": [0.1, 1.0]}
    spent, sweeps = {}, {}
    with TemporaryDirectory(dir=options.folder) as folder:
        for name, count in (("refined", coarse), ("full", fine)):
            given = {"axes": {key: {"log": end, "count": count} for key, end in ends.items()}}
            if name == "refined":
                given["refine"] = {"measure": "represented", "axes": [*ends], "width": width}
            where = f"{folder}/{name}"
            with Spent() as spent[name]:
                assert not carry_out(Sweep.create(where, parse(plain | given)), Here()).missing
            sweeps[name] = Sweep.open(where)
        refined, saved = sweeps["refined"], savings(sweeps["refined"])
        lines, rounds = boundaries(refined), len(refined.plan.rounds or ())
        seen, missed = crossings(sweeps["full"], refined)
    found = {
        "grid": [fine, fine],
        "rounds": rounds,
        "trained": saved.trained,
        "full": saved.full,
        "times_fewer": saved.ratio,
        "cpu": {name: each.cpu for name, each in spent.items()},
        "changes": lines.num_rows,
        "crossings": seen,
        "missed": missed,
    }
    print(sweep_tables.refinement_lines(found))
    return found


def crossings(full: Sweep, refined: Sweep) -> tuple[int, int]:
    """Neighbours of the full grid in unlike states, and those of them refinement did not train.

    The state of a cell is the `represented` of most of its seeds, the least of equals.
    """
    counts = full.table(["represented"])["represented"].to_numpy()
    seeds = full.plan.configuration.seeds
    state = np.array([np.bincount(cell).argmax() for cell in counts.reshape(-1, seeds)])
    state = state.reshape(full.plan.shape)
    has = np.zeros(full.plan.grid, bool)
    has[[cell for each in refined.plan.rounds or () for cell in each]] = True
    has = has.reshape(full.plan.shape)
    seen = missed = 0
    for axis in (0, 1):
        change = np.diff(state, axis=axis) != 0
        both = np.minimum(*(np.delete(has, end, axis) for end in (0, -1)))
        seen, missed = seen + int(change.sum()), missed + int((change & ~both).sum())
    return seen, missed
