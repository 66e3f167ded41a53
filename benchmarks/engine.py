"""What training on the fused kernels gains over the loops that a user would pick instead.

The opponent is a notebook's batched PyTorch loop: ten models in one product, dense batches,
autograd, AdamW; for `peers` also occhio, in an environment of its own. All run on one thread (but
for `threads`), the sides in turns, on fresh batches of 1,024 samples; a cell is the median over the
rounds, in µs per step of one model. Times are processor time, which on one thread is the wall time
of a quiet machine and suffers less from what else runs; the ratio by wall time is written beside.

- `small`: `sp.train` of whole default recipes (10,000 steps), with the exact loss at the end.
- `large`: the kernel alone, on models that have trained for 2,000 steps, because the cost of a step
  depends on how many outputs are on. The column `run` is the ratio of a whole default recipe, with
  the exact loss that `sp.train` adds at its end.
- `threads`: wall time of `sp.train` on two threads against one, and of PyTorch likewise.
- `memory`: the most that a new process takes to train 100,000 models.
- `compile`: processor seconds to the first trained step in a new process, with and without compiled
  code on disk.
- `peers`: occhio (`--install-peers` makes its environment) at three densities.

A part's results replace those in the file, so a full run can be had in pieces.

    python benchmarks/engine.py [--quick] [--group small large …]
    python benchmarks/engine.py --table docs/engine.md
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tables
import torch
from floors import floor, measured
from opponents import (
    BATCH,
    HOME,
    Continued,
    Notebook,
    Occhio,
    OcchioProcess,
    Side,
    Trained,
    has_occhio,
    install_occhio,
)
from threadpoolctl import threadpool_limits

from superpose import records
from superpose.kernels import cpu, streams

SMALL, LARGE = ((2, 1), (5, 2), (20, 5)), ((80, 20), (200, 20), (400, 30))
STEPS, WARM = 10_000, 2_000


def compared(sides: Mapping[str, Side], options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Times `[rounds, 2]` of each side, µs of processor and wall time per step of one model."""
    units = {name: calibrated(side, options.seconds) for name, side in sides.items()}
    times: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            times[name].append(side(units[name]) / units[name] / side.per_unit * 1e6)
    return {name: np.array(spent) for name, spent in times.items()}


def calibrated(side: Side, seconds: float) -> int:
    """Units that take about `seconds`."""
    units, spent = 1, float(side(1)[1])
    while spent < seconds / 3:
        units *= 3
        spent = float(side(units)[1])
    return ceil(units * min(1.0, seconds / spent))


def against_notebook(
    shapes: tuple, prepare: Callable[..., Trained | Continued], options: argparse.Namespace
) -> list[dict]:
    """One row for each shape and density."""
    rates = measured(options.repeats)
    print(f"best product {rates.product / 1e9:.0f} GFLOP/s, by {rates.product_by}")
    print(tables.HEAD)
    rows = []
    for n, m in shapes:
        for p in options.densities:
            ours = prepare(n, m, p)
            times = compared({"notebook": Notebook(n, m, p), "fused": ours}, options)
            (plain, plain_wall), (quick, quick_wall) = (
                np.median(times[side], 0).tolist() for side in ("notebook", "fused")
            )
            least = floor(n, m, p, BATCH, rates)
            row = {
                "n": n,
                "m": m,
                "p": p,
                "way": cpu.way(ours.model, ours.world),
                "notebook": plain,
                "fused": quick,
                "fused_spread": [times["fused"][:, 0].min(), times["fused"][:, 0].max()],
                "ratio": plain / quick,
                "ratio_by_wall_clock": plain_wall / quick_wall,
                "share_of_clock": quick / quick_wall,
                "floor": asdict(least),
                "share_of_floor": least.least / quick,
                "share_of_product_rate": least.dense / quick,
            }
            if isinstance(ours, Continued):
                row["loss_ms"] = ours.loss_seconds() * 1e3
                row["ratio_of_a_run"] = plain / (quick + row["loss_ms"] * 1e3 / STEPS)
            rows.append(row)
            print(tables.line(row), flush=True)
    return rows


def summary(group: str, rows: list[dict]) -> dict:
    """The geometric mean and the worst cell beside what was asked for."""
    ratios = [row["ratio"] for row in rows]
    return {
        "mean_ratio": statistics.geometric_mean(ratios),
        "worst_ratio": min(ratios),
        "asked_mean": tables.ASKED[group][0],
        "asked_worst": tables.ASKED[group][1],
    }


def small(options: argparse.Namespace) -> dict:
    """Whole default recipes of small models."""
    rows = against_notebook(SMALL, lambda n, m, p: Trained(n, m, p, STEPS), options)
    return {"rows": rows, "summary": summary("small", rows)}


def large(options: argparse.Namespace) -> dict:
    """Steps of large models that have trained for a while."""
    warm, models = (50, 1) if options.quick else (WARM, 1)
    shapes = LARGE[:1] if options.quick else LARGE
    rows = against_notebook(shapes, lambda n, m, p: Continued((n, m), p, warm, models), options)
    found = summary("large", rows)
    found["dense_rate"] = min(row["share_of_product_rate"] for row in rows if row["p"] == 1.0)
    return {"rows": rows, "summary": found, "warm_steps": warm}


def threads(options: argparse.Namespace) -> dict:
    """Two threads against one, by the wall clock."""
    rows = []
    for (n, m), steps in (((5, 2), STEPS), ((20, 5), STEPS), ((80, 20), 2_000)):
        sides: dict[str, Side] = {}
        for count in (1, 2):
            sides[f"fused {count}"] = EvenlyTrained(n, m, 0.1, steps // options.fewer, count)
            sides[f"notebook {count}"] = Notebook(n, m, 0.1, count)
        times = compared(sides, options)
        wall = {name: float(np.median(spent[:, 1])) for name, spent in times.items()}
        row = {"n": n, "m": m, "p": 0.1, **wall}
        for side in ("fused", "notebook"):
            row[f"{side} gain"] = wall[f"{side} 1"] / wall[f"{side} 2"]
        # A second thread costs PyTorch more than it gains where the product is small.
        row["ratio on two"] = min(wall["notebook 1"], wall["notebook 2"]) / wall["fused 2"]
        rows.append(row)
        print(tables.thread_line(row), flush=True)
    torch.set_num_threads(1)
    os.environ["SUPERPOSE_THREADS"] = "1"
    return {"rows": rows}


class EvenlyTrained(Trained):
    """Eight models a unit, so that no thread is left without one at the end."""

    def __init__(self, *asked) -> None:
        super().__init__(*asked)
        self.per_unit *= 8

    def __call__(self, units: int) -> np.ndarray:
        return super().__call__(8 * units)


def memory(options: argparse.Namespace) -> dict:
    """The most memory of a process that trains many models."""
    models = 100_000 // options.fewer
    # getrusage would count the memory of the process that started this one, where it is told.
    code = (
        "import sys, resource, pathlib, superpose as sp\n"
        "def peak():\n"
        "    status = pathlib.Path('/proc/self/status')\n"
        "    if status.exists():\n"
        "        return int(status.read_text().split('VmHWM:')[1].split()[0]) * 1024\n"
        "    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    return most if sys.platform == 'darwin' else most * 1024\n"
        "model, world = sp.ToyModel(n=5, m=2), sp.Features(n=5, p=0.1)\n"
        "sp.train(model, world, sp.Training(steps=1), runs=1)\n"
        "before = peak()\n"
        f"sp.train(model, world, sp.Training(steps=20), runs={models})\n"
        "print(before, peak())\n"
    )
    before, peak = (int(size) / 1e9 for size in child(code).split())
    print(f"{models:,} models of (5, 2): at most {peak:.2f} GB; {before:.2f} GB of it for one")
    return {"models": models, "peak_gb": peak, "one_model_gb": before, "asked_gb": 1.0}


PATHS = {
    "what all share": (1, 1, 0.1),
    "small (2, 1)": (2, 1, 0.1),
    "small (5, 2)": (5, 2, 0.1),
    "small (20, 5)": (20, 5, 0.1),
    "dense (80, 20)": (80, 20, 1.0),
    "sparse (400, 30)": (400, 30, 0.01),
}


def compiling(options: argparse.Namespace) -> dict:
    """Seconds before the first step of a shape is trained, in a first and a second process."""
    shapes = list(PATHS.values())[: 2 if options.quick else None]
    code = (
        "import superpose as sp; from time import process_time\n"
        f"for n, m, p in {shapes}:\n"
        "    start = process_time()\n"
        "    world, recipe = sp.Features(n=n, p=p), sp.Training(steps=1)\n"
        "    sp.train(sp.ToyModel(n=n, m=m), world, recipe, runs=1)\n"
        "    print(process_time() - start)\n"
    )
    with TemporaryDirectory() as cache:
        first, second = (child(code, NUMBA_CACHE_DIR=cache).split() for _ in range(2))
    rows = {
        name: {"first": float(new), "from_disk": float(old)}
        for name, new, old in zip(PATHS, first, second, strict=False)
    }
    for name, row in rows.items():
        print(tables.compile_line(name, row))
    return {"rows": rows}


def child(code: str, **environment: str) -> str:
    """What a new Python process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a process of the benchmark failed:\n{done.stderr}")
    return done.stdout


def peers(options: argparse.Namespace) -> dict:
    """occhio against the fused kernels and the notebook."""
    if not has_occhio():
        print("occhio: not installed; --install-peers makes its environment")
        return {"rows": [], "occhio": "not installed"}
    rows, processes = [], (OcchioProcess(), OcchioProcess())
    for n, m in (SMALL + LARGE)[: 2 if options.quick else None]:
        for p in (1.0, 0.1, 0.01):
            plain, compiled = (
                Occhio(process, (n, m, p), way)
                for process, way in zip(processes, (False, True), strict=True)
            )
            ours = Trained(n, m, p, STEPS) if (n, m) in SMALL else None
            sides: dict[str, Side] = {
                "occhio": plain,
                "occhio compiled": compiled,
                "notebook": Notebook(n, m, p),
                "fused": ours or Continued((n, m), p, WARM // options.fewer),
            }
            times = compared(sides, options)
            median = {name: float(np.median(spent[:, 0])) for name, spent in times.items()}
            best = min(median["occhio"], median["occhio compiled"])
            rows.append({"n": n, "m": m, "p": p, **median, "ratio": best / median["fused"]})
            print(tables.peer_line(rows[-1]), flush=True)
    for process in processes:
        process.close()
    mean = statistics.geometric_mean([row["ratio"] for row in rows])
    print(f"faster than occhio's faster way: {mean:.0f} times in the geometric mean")
    return {"rows": rows, "mean_ratio": mean, "occhio": "installed"}


def machine() -> dict:
    """Where this is measured, with what."""
    packages = ("superpose", "torch", "numpy", "numba", "llvmlite")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],
        cwd=HOME,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "processor": streams.processor(),
        "cores": os.cpu_count() or 1,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "kernel": cpu.VERSION,
        "commit": commit.stdout.strip() or None,
    }


GROUPS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "small": small,
    "large": large,
    "threads": threads,
    "memory": memory,
    "compile": compiling,
    "peers": peers,
}


def run(options: argparse.Namespace) -> None:
    """Run the groups, print their rows and write each group as soon as it is done."""
    done = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    about = machine()
    for group in options.group:
        print(f"\n{group}")
        before = os.getloadavg()[0]
        found = GROUPS[group](options)
        after = os.getloadavg()[0]
        # At the end one of the running processes is this one.
        own = 2 if group == "threads" else 1
        quiet = max(before, after - own) <= about["cores"] / 4
        load = {"load_before": before, "load_after": after, "quiet": quiet}
        if "summary" in found:
            print(tables.summary_line(found["summary"]))
        word = "quiet" if quiet else "NOT quiet, so the times are too long"
        print(f"load {before:.1f} before, {after:.1f} after: {word}")
        done[group] = {"machine": about | load, "rounds": options.rounds} | found
        records.write_json(options.out, done)
    print(f"\n{options.out}")


def main() -> None:
    """Read the options and keep every library to one thread."""
    parser = argparse.ArgumentParser(description="fused kernels against other loops")
    parser.add_argument("--quick", action="store_true", help="few cells, short pieces, one round")
    parser.add_argument("--group", nargs="+", choices=GROUPS, help="these parts; else all")
    parser.add_argument("--rounds", type=int, help="else 5")
    parser.add_argument("--seconds", type=float, help="of each timed piece, about; else 0.35")
    parser.add_argument("--install-peers", action="store_true", help="make occhio's environment")
    parser.add_argument("--table", type=Path, help="fill in this page's tables; measure nothing")
    parser.add_argument("--out", type=Path, help="else results/engine.json, beside this script")
    options = parser.parse_args()
    quick = options.quick
    options.group = options.group or (["small", "large"] if quick else list(GROUPS))
    options.rounds = options.rounds or (1 if quick else 5)
    options.seconds = options.seconds or (0.05 if quick else 0.35)
    options.densities = np.geomspace(1.0, 0.01, 3 if quick else 10).tolist()
    options.repeats, options.fewer = (5, 10) if quick else (30, 1)
    options.out = options.out or HOME / f"results/engine{'-quick' if quick else ''}.json"
    if options.table:
        tables.fill(options.table, json.loads(options.out.read_text("utf-8")))
        return
    if options.install_peers:
        install_occhio()
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with threadpool_limits(1):
        run(options)


if __name__ == "__main__":
    main()
