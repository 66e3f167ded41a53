"""What training on the fused kernel gains over the batched PyTorch loop that a notebook has.

Both sides train ten models of each world with AdamW on fresh batches of 1,024 samples, on one
thread, in turns; a cell is the median over the rounds, in µs per model and step. Times are the
process's own processor time, which on one thread is the wall time of a quiet machine and suffers
less from what else runs; the ratio by the wall clock is written beside. The PyTorch side
holds its ten models in one batched product and draws dense batches. The fused side is `train` as
a user calls it, with the exact loss at its end. `sweep` is the default sweep: 30 densities from
1 to 0.01.

The floor is what the five dense products of a step (2·n·m operations a sample each: h, x̂, the
slope by h, and two for the slope by W) take at the machine's best rate in a large product. Where
features are rare, a kernel that skips empty samples can be below it.

    python benchmarks/engine.py [--quick] [--out FILE]
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import superpose as sp
from superpose import records
from superpose.kernels import cpu, streams

MODELS, BATCH, IMPORTANCE = 10, 1024, 0.7
DENSITIES = (1.0, 0.3, 0.1, 0.03, 0.01)
# Steps a round of the fused and of the PyTorch side: half a second or more each.
STEPS = {(2, 1): (20_000, 400), (5, 2): (10_000, 300), (20, 5): (5_000, 100), (80, 20): (500, 40)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of the table: times in µs per model-step, medians over the rounds."""

    n: int
    m: int
    p: str
    torch: float
    fused: float
    fused_spread: tuple[float, float]
    ratio: float
    ratio_by_wall_clock: float
    floor: float
    share_of_product_rate: float


def notebook_loop(n: int, m: int, p: np.ndarray, steps: int) -> None:
    """Train one model for each density in `p` as the notebook does, in plain PyTorch."""
    W = torch.nn.Parameter(torch.nn.init.xavier_normal_(torch.empty(len(p), n, m)))
    b = torch.nn.Parameter(torch.zeros(len(p), n))
    importance = IMPORTANCE ** torch.arange(n)
    density = torch.as_tensor(p, dtype=torch.float32)[:, None]
    optimiser = torch.optim.AdamW([W, b], lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        value = torch.rand(BATCH, len(p), n)
        x = torch.where(torch.rand(BATCH, len(p), n) <= density, value, torch.zeros(()))
        h = torch.einsum("...if,ifh->...ih", x, W)
        out = torch.relu(torch.einsum("...ih,ifh->...if", h, W) + b)
        loss = (importance * (x - out) ** 2).mean((0, 2)).sum()
        loss.backward()
        optimiser.step()


def fused(n: int, m: int, p: np.ndarray, steps: int) -> None:
    """Train one model for each density in `p` on the fused kernel."""
    worlds = [sp.Features(n=n, p=float(each), importance=IMPORTANCE) for each in np.unique(p)]
    recipe = sp.Training(steps=steps, batch=BATCH)
    sp.train(sp.ToyModel(n=n, m=m), worlds, recipe, runs=len(p) // len(worlds), backend="cpu")


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Processor time and wall time of one call."""
    start = np.array([process_time(), perf_counter()])
    work()
    return np.array([process_time(), perf_counter()]) - start


def product_rate() -> float:
    """The best rate of a large float32 matrix product, in operations a second."""
    rng = np.random.default_rng(0)
    a, b = (rng.random(shape, np.float32) for shape in ((4096, 128), (128, 1024)))
    return 2 * 4096 * 128 * 1024 / min(seconds(lambda: a @ b)[0] for _ in range(20))


def measure(n: int, m: int, p: np.ndarray, label: str, rounds: int, scale: float) -> Cell:
    """Time both sides in turns."""
    many, few = (max(5, int(steps * scale)) for steps in STEPS[n, m])
    batches = p.reshape(-1, MODELS)
    notebook_loop(n, m, batches[0], 3)
    fused(n, m, p, 3)
    times: dict[str, list[np.ndarray]] = {"torch": [], "fused": []}
    for _ in range(rounds):
        spent = seconds(lambda: [notebook_loop(n, m, each, few) for each in batches])
        times["torch"].append(spent / p.size / few * 1e6)
        times["fused"].append(seconds(lambda: fused(n, m, p, many)) / p.size / many * 1e6)
    plain, quick = (np.median(times[side], 0).tolist() for side in ("torch", "fused"))
    each = [float(processor) for processor, _ in times["fused"]]
    floor = BATCH * 10 * n * m / product_rate() * 1e6
    return Cell(
        n=n,
        m=m,
        p=label,
        torch=plain[0],
        fused=quick[0],
        fused_spread=(min(each), max(each)),
        ratio=plain[0] / quick[0],
        ratio_by_wall_clock=plain[1] / quick[1],
        floor=floor,
        share_of_product_rate=floor / quick[0],
    )


def compile_seconds(n: int, m: int) -> float:
    """Seconds that a new process with an empty cache compiles before it trains this shape."""
    code = (
        "import superpose as sp; from time import perf_counter\n"
        "def train(n, m):\n"
        "    start = perf_counter()\n"
        "    sp.train(sp.ToyModel(n=n, m=m), sp.Features(n=n), sp.Training(steps=1), runs=1)\n"
        "    return perf_counter() - start\n"
        f"print(train(1, 1) and train({n}, {m}))\n"
    )
    with TemporaryDirectory() as cache:
        # The first shape pays for the imports and for what all shapes share.
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"NUMBA_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


def machine(loads: tuple[float, float]) -> dict:
    """Where this was measured, and whether anything else was running there."""
    packages = ("superpose", "torch", "numpy", "numba", "llvmlite")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    cores = os.cpu_count() or 1
    # At the end one of the running processes is this one.
    busy = max(loads[0], loads[1] - 1) > cores / 2
    return {
        "processor": streams.processor(),
        "cores": cores,
        "load_before": loads[0],
        "load_after": loads[1],
        "quiet": not busy,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "kernel": cpu.VERSION,
        "commit": commit.stdout.strip() or None,
    }


def show(cell: Cell) -> None:
    """Print one row."""
    low, high = cell.fused_spread
    print(
        f"{cell.n:>4},{cell.m:<3} {cell.p:>6} {cell.torch:>9.1f} {cell.fused:>8.2f} "
        f"{f'{low:.2f}-{high:.2f}':>15} {cell.ratio:>7.1f} {cell.floor:>8.2f} "
        f"{cell.share_of_product_rate:>6.0%}",
        flush=True,
    )


def main() -> None:
    """Read the options and keep every library to one thread."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, few steps and rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/engine.json")
    options = parser.parse_args()
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with threadpool_limits(1):
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Measure every cell, print the table and write it with where it was measured."""
    load = os.getloadavg()[0]
    shapes = [] if options.quick else list(STEPS)
    compiled = {f"{n},{m}": compile_seconds(n, m) for n, m in shapes}
    print(
        "compiling a shape for the first time, s: ", {k: round(v, 1) for k, v in compiled.items()}
    )
    rounds, scale = (1, 0.1) if options.quick else (options.rounds, 1.0)
    plan = [(n, m, np.full(MODELS, p), f"{p:g}") for n, m in list(STEPS)[:3] for p in DENSITIES]
    plan.append((20, 5, np.geomspace(1.0, 0.01, 3 * MODELS), "sweep"))
    if not options.quick:
        plan.append((80, 20, np.full(MODELS, 0.1), "0.1"))
    print(
        f"µs per model-step, batch {BATCH}, one thread, median of {rounds}\n"
        f"{'n,m':>6} {'p':>8} {'PyTorch':>9} {'fused':>8} {'range':>15} {'ratio':>7} {'floor':>8} "
        f"{'share':>6}"
    )
    cells = []
    for n, m, p, label in plan:
        cells.append(measure(n, m, p, label, rounds, scale))
        show(cells[-1])
    means = {
        f"{n},{m}": statistics.geometric_mean([c.ratio for c in cells if (c.n, c.m) == (n, m)])
        for n, m in dict.fromkeys((c.n, c.m) for c in cells)
    }
    means["all"] = statistics.geometric_mean([c.ratio for c in cells])
    print("geometric mean of the ratio: ", {k: round(v, 1) for k, v in means.items()})
    where = machine((load, os.getloadavg()[0]))
    word = "quiet" if where["quiet"] else "NOT quiet, so the times are too long"
    print(f"load {where['load_before']:.1f} before, {where['load_after']:.1f} after: {word}")
    found = {
        "claim": "the fused kernel against the batched PyTorch loop, µs per model-step",
        "machine": where,
        "product_rate_gflops": product_rate() / 1e9,
        "rounds": rounds,
        "compile_seconds": compiled,
        "cells": [asdict(cell) for cell in cells],
        "geometric_mean_ratio": means,
    }
    print(records.write_json(options.out, found))


if __name__ == "__main__":
    main()
