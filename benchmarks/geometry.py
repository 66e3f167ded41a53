"""What naming the shapes of a whole stack at once gains over naming model after model.

One side is `geometry.classify` on the stack, the other a plain loop over its models and their
factors, with a sparse graph for each model; both give the same names. They run in turns on one
thread; a cell is the median over the rounds, in models a second of the process's own processor
time. What `classify` reaches when called for each model is written beside. The stacks are trained
models of 20 features in 5 dimensions over the default sweep's densities (repeated), and random
weights, whose overlaps join all features of a model to one set that has no name.

    python benchmarks/geometry.py [--quick] [--out FILE]
"""

import argparse
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import process_time

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits
from torch import Tensor

import superpose as sp
from superpose import geometry, records
from superpose.kernels import streams

N, M = 20, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of the table: models a second, medians over the rounds."""

    models: str
    stack: float
    stack_spread: tuple[float, float]
    loop: float
    ratio: float
    call_for_each: float


def trained(count: int, steps: int) -> Tensor:
    """`count` models: trained ones, from dense to sparse, each repeated."""
    worlds = [sp.Features(n=N, p=float(p), importance=0.7) for p in np.geomspace(1.0, 0.01, 30)]
    run = sp.train(sp.ToyModel(n=N, m=M), worlds, sp.Training(steps=steps), runs=2)
    models = run.W.flatten(0, 1)
    return models.repeat(-(-count // len(models)), 1, 1)[:count]


def random(count: int) -> Tensor:
    """`count` models of standard normal weights."""
    return torch.randn(count, N, M, generator=torch.Generator().manual_seed(0))


def named_by_loop(models: Tensor) -> list[list[str]]:
    """The labels of each model's factors, one factor after the other."""
    return [_labels(W) for W in models.double().numpy()]


def _labels(W: np.ndarray) -> list[str]:
    """The labels of one model's factors."""
    norms = np.linalg.norm(W, axis=1, keepdims=True)
    kept = norms[:, 0] > 0.5
    directions = W[kept] / norms[kept]
    cosines = directions @ directions.T
    found: list[str] = []
    for own in _components(cosines, 0.1):
        gram = cosines[np.ix_(own, own)]
        labels = [_label(gram)]
        if labels[0].startswith("irregular"):
            parts = _components(gram, geometry.noise_overlap(N))
            finer = [_label(gram[np.ix_(part, part)]) for part in parts] if len(parts) > 1 else []
            if finer and not any(each.startswith("irregular") for each in finer):
                labels = finer
        found.extend(labels)
    return found


def _components(cosines: np.ndarray, overlap: float) -> list[np.ndarray]:
    if not len(cosines):
        return []
    _, component = connected_components(np.abs(cosines) > overlap, directed=False)
    order = np.argsort(component, kind="stable")
    return np.split(order, np.cumsum(np.bincount(component))[:-1])


def _label(gram: np.ndarray) -> str:
    k = len(gram)
    if k == 1:
        return "dedicated"
    spectrum, limit = np.linalg.eigvalsh(gram), geometry.tolerance(k, M)
    cosines = np.sort(gram[np.triu_indices(k, 1)])
    errors = {}
    for shape in geometry.shapes(k):
        errors_of_family = np.sqrt(((cosines - shape.cosines) ** 2).mean(1))
        best = errors_of_family.argmin()
        apart = np.sqrt(((spectrum - shape.spectra[best]) ** 2).mean())
        if errors_of_family[best] <= limit and apart <= np.sqrt(k - 1) * limit:
            errors[shape.label] = errors_of_family[best]
    d = 2 if k == 2 else int((spectrum > 0.01 * spectrum[-1]).sum())
    return min(errors, key=errors.__getitem__, default=f"irregular {k} in {d}")


def rate(name: Callable[[Tensor], object], models: Tensor) -> float:
    """Models named a second."""
    start = process_time()
    name(models)
    return len(models) / (process_time() - start)


def one_by_one(models: Tensor) -> list:
    """`classify` called for each model."""
    return [geometry.classify(each) for each in models]


def measure(label: str, models: Tensor, rounds: int) -> Cell:
    """Time all sides in turns, the slow ones on a tenth of the models."""
    few = models[:: max(1, len(models) // 400)]
    labels = [sorted(factor.label for factor in each) for each in geometry.classify(few)]
    if labels != [sorted(each) for each in named_by_loop(few)]:
        raise AssertionError(f"{label}: the two sides do not name the same shapes")
    sides = ((geometry.classify, models), (named_by_loop, few), (one_by_one, few))
    rates = np.array([[rate(name, each) for name, each in sides] for _ in range(rounds)])
    stack, loop, single = np.median(rates, 0).tolist()
    return Cell(
        models=label,
        stack=stack,
        stack_spread=(rates[:, 0].min().item(), rates[:, 0].max().item()),
        loop=loop,
        ratio=stack / loop,
        call_for_each=single,
    )


def machine(load: float) -> dict:
    """Where this was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("superpose", "torch", "numpy")
    return {
        "processor": streams.processor(),
        "cores": os.cpu_count() or 1,
        "load_before": load,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "commit": commit.stdout.strip() or None,
    }


def main() -> None:
    """Read the options, measure both stacks, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few models, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/geometry.json")
    options = parser.parse_args()
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    count, steps = (200, 100) if options.quick else (4000, 5000)
    rounds = 1 if options.quick else options.rounds
    with threadpool_limits(1):
        stacks = {"trained": trained(count, steps), "random": random(count)}
        print(f"models of {N} features in {M} dimensions a second, {count} models, one thread")
        print(
            f"{'models':>8} {'stack':>8} {'range':>15} {'loop':>6} {'ratio':>6} {'a call each':>12}"
        )
        cells = []
        for label, models in stacks.items():
            cell = measure(label, models, rounds)
            low, high = cell.stack_spread
            print(
                f"{label:>8} {cell.stack:>8.0f} {f'{low:.0f}-{high:.0f}':>15} "
                f"{cell.loop:>6.0f} {cell.ratio:>6.1f} {cell.call_for_each:>12.0f}",
                flush=True,
            )
            cells.append(cell)
    found = {
        "claim": "naming a stack of models at once against a loop over models, models a second",
        "machine": machine(load),
        "rounds": rounds,
        "cells": [asdict(cell) for cell in cells],
    }
    print(records.write_json(options.out, found))


if __name__ == "__main__":
    main()
