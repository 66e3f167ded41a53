"""How often the test of superposition cries wolf, and how often it finds what is there.

False alarms: at the level of 5 %, draws of eight kinds of data without superposition. Each draw has
its own size, density, noise, law of magnitudes, mixing and number of samples, all from its number
alone. Complete sparse models come with independent, fewer, correlated, anticorrelated and signed
features; Gaussian data, shuffled units and randomly turned samples are made from three times as
many features as dimensions. A test that holds its level has at most 18 alarms in 200
draws (the 99 % bound of the binomial law).

Power: random directions around one base point, one quantity varied at a time, and hidden layers
of trained toy models. Noise is in units of the activations' root mean square. Draws of all kinds go
in turns and the file is written after each round, so that a run that is cut short is a smaller run.

    python benchmarks/presence.py [--part false_alarms|power] [--draws N] [--out FILE]
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import process_time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import superpose as sp
from superpose import records
from superpose.features import Constant, Exponential, HalfNormal, Uniform
from superpose.kernels import streams
from superpose.networks import superposition_test
from superpose.networks.lines import unit
from superpose.statistics import proportion_interval

BASE = {"m": 6, "n": 12, "p": 0.1, "noise": 0.05, "samples": 1_000}
AXES = {
    "n": (7, 9, 12, 18, 30),
    "p": (0.01, 0.03, 0.1, 0.2, 0.3),
    "noise": (0.0, 0.05, 0.1, 0.2, 0.4),
    "samples": (250, 500, 1_000, 2_000),
    "m": (2, 3, 6, 10),
}
TOYS = ((5, 2, 0.05), (4, 2, 0.05), (20, 5, 0.05), (20, 5, 0.02), (12, 6, 0.02), (40, 8, 0.02))


def complete(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """One draw of a complete sparse model."""
    d = int(rng.choice([4, 6, 8] if kind in ("correlated", "anticorrelated") else [2, 3, 4, 6, 8]))
    n = int(rng.integers(1, d)) if kind == "fewer" else d
    world, told = _world(kind, n, rng)
    rotated = bool(rng.random() < 0.5)
    W = rng.standard_normal((d, d))
    W = np.linalg.qr(W)[0][:n] if rotated else unit(W)[:n]
    x, more = _noisy(world, W, rng)
    return x, {"d": d, "n": n, "mixing": "rotation" if rotated else "general"} | told | more


def easy(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    """One draw of a null that keeps less: made from three times as many features as dimensions."""
    d = int(rng.choice([2, 3, 4, 6, 8]))
    world, told = _world(kind, 3 * d, rng)
    x, more = _noisy(world, unit(rng.standard_normal((3 * d, d))), rng)
    if kind == "gaussian":
        x = rng.multivariate_normal(x.mean(0), np.cov(x.T), len(x))
    elif kind == "shuffled":
        x = rng.permuted(x, axis=0)
    else:
        x = unit(rng.standard_normal(x.shape)) * np.linalg.norm(x, axis=1, keepdims=True)
    return x, {"d": d} | told | more


def _world(kind: str, n: int, rng: np.random.Generator) -> tuple[sp.Features, dict]:
    p = float(rng.choice([0.03, 0.1, 0.3, 0.6]))
    law = (Uniform(), Exponential(), HalfNormal(), Constant())[int(rng.integers(4))]
    told = {"p": p, "amplitude": type(law).__name__}
    if kind == "correlated":
        return sp.Features.correlated(sets=n // 2, size=2, p=p, amplitude=law), told
    if kind == "anticorrelated":
        return sp.Features.anticorrelated(sets=n // 2, size=2, p=p, amplitude=law), told
    return sp.Features(n=n, p=p, amplitude=law, signed=kind == "signed"), told


def _noisy(world: sp.Features, W: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict]:
    noise, samples = float(rng.choice([0.0, 0.03, 0.1, 0.2])), int(rng.choice([500, 1_000]))
    return _activations(world, W, noise, samples, rng), {"noise": noise, "samples": samples}


def _activations(
    world: sp.Features, W: np.ndarray, noise: float, samples: int, rng: np.random.Generator
) -> np.ndarray:
    x = world.sample(samples, seed=int(rng.integers(2**31))).double().numpy() @ W
    return x + noise * np.sqrt((x**2).mean()) * rng.standard_normal(x.shape)


NULLS: dict[str, Callable[[str, np.random.Generator], tuple[np.ndarray, dict]]] = {
    **dict.fromkeys(("independent", "fewer", "correlated", "anticorrelated", "signed"), complete),
    **dict.fromkeys(("gaussian", "shuffled", "turned"), easy),
}


def false_alarms(draws: int, write: Callable[[dict], None]) -> None:
    """Test every null once a round."""
    alarms: dict[str, list[dict]] = {kind: [] for kind in NULLS}
    seconds = dict.fromkeys(NULLS, 0.0)
    for draw in range(draws):
        for number, (kind, make) in enumerate(NULLS.items()):
            x, told = make(kind, np.random.default_rng([2026, number, draw]))
            start = process_time()
            found = superposition_test(torch.from_numpy(x), seed=draw)
            seconds[kind] += process_time() - start
            if found.present:
                alarms[kind].append({"draw": draw, "gain": found.gain} | told)
        rows = [
            _counted(len(alarms[kind]), draw + 1)
            | {"null": kind, "seconds": seconds[kind] / (draw + 1), "alarms": alarms[kind]}
            for kind in NULLS
        ]
        write({"false_alarms": rows})


def _counted(found: int, draws: int) -> dict:
    share = proportion_interval(found, draws)
    return {"found": found, "draws": draws, "low": share.low, "high": share.high}


def cells() -> list[dict]:
    """The points of the power curves; the base point once for each axis that it lies on."""
    varied = [
        {"axis": axis, **BASE, axis: value} | ({"n": 2 * value} if axis == "m" else {})
        for axis, values in AXES.items()
        for value in values
    ]
    toys = [{"axis": "toy model", "n": n, "m": m, "p": p, "noise": 0.0} for n, m, p in TOYS]
    return [*varied, *({**toy, "samples": BASE["samples"]} for toy in toys)]


def trained(n: int, m: int, p: float) -> np.ndarray:
    """Directions of the best of eight toy models."""
    recipe = sp.Training(steps=5_000, lr=3e-3)
    run = sp.train(sp.ToyModel(n=n, m=m), sp.Features(n=n, p=p), recipe, runs=8).best()
    return run.W.reshape(-1, n, m)[0].double().numpy()


def power(draws: int, write: Callable[[dict], None]) -> None:
    """Test planted superposition once a round at every point; equal points share their draws."""
    points = cells()
    models = {toy: trained(*toy) for toy in TOYS}
    results: dict[tuple, list[tuple[bool, int]]] = {_key(point): [] for point in points}
    for draw in range(draws):
        for key, point in {_key(point): point for point in points}.items():
            n, m, p = point["n"], point["m"], point["p"]
            rng = np.random.default_rng([2, n, m, int(1e4 * p), int(1e4 * point["noise"]), draw])
            W = unit(rng.standard_normal((n, m)))
            W = models[n, m, p] if point["axis"] == "toy model" else W
            x = _activations(sp.Features(n=n, p=p), W, point["noise"], point["samples"], rng)
            found = superposition_test(torch.from_numpy(x), seed=draw)
            results[key].append((found.present, found.two_sided))
        rows = []
        for point in points:
            present, two_sided = np.array(results[_key(point)]).T
            row = point | _counted(int(present.sum()), draw + 1)
            rows.append(row | {"two_sided": float(two_sided.mean())})
        write({"power": rows})


def _key(point: dict) -> tuple:
    """What makes two points the same, on whichever axis they lie."""
    return point["axis"] == "toy model", *(point[name] for name in BASE)


def tables(found: dict) -> str:
    """The numbers as Markdown."""
    lines = []
    if "false_alarms" in found:
        lines += [
            "| null | false alarms | draws | share, 95 % | s a test |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['null']} | {row['found']} | {row['draws']} | "
            f"{row['low']:.3f} to {row['high']:.3f} | {row['seconds']:.2f} |"
            for row in found["false_alarms"]
        ]
    if "power" in found:
        lines += ["", "| varied | n | m | p | noise | samples | found | share, 95 % |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [
            f"| {row['axis']} | {row['n']} | {row['m']} | {row['p']:g} | {row['noise']:g} | "
            f"{row['samples']:,} | {row['found']} of {row['draws']} | "
            f"{row['low']:.2f} to {row['high']:.2f} |"
            for row in found["power"]
        ]
    return "\n".join(lines)


def machine() -> dict:
    """Where this was measured, with what."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "processor": streams.processor(),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("superpose", "numpy", "torch")},
        "commit": commit.stdout.strip() or None,
    }


def main() -> None:
    """Read the options, keep to one thread, print the tables."""
    parser = argparse.ArgumentParser(description="false alarms and power of the test")
    parser.add_argument("--part", choices=("false_alarms", "power"), help="one alone; else both")
    parser.add_argument("--draws", type=int, help="a kind or point; 200 for alarms, 40 for power")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/presence.json")
    options = parser.parse_args()
    os.environ["SUPERPOSE_THREADS"] = "1"
    torch.set_num_threads(1)
    written = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    written["machine"] = machine()

    def write(more: dict) -> None:
        written.update(more)
        records.write_json(options.out, written)

    with threadpool_limits(1):
        if options.part != "power":
            false_alarms(options.draws or 200, write)
        if options.part != "false_alarms":
            power(options.draws or 40, write)
    print(tables(written))


if __name__ == "__main__":
    main()
