"""Pack and see: a sweep of toy models over density, its phases and its shapes.

Must show: nothing in superposition in the dense worlds, its onset with an interval over seeds,
the least important represented features in antipodal pairs first.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from superpose import engine, geometry, phases, records
from superpose.engine import Run
from superpose.experiments.configuration import SweepSection
from superpose.features import Features
from superpose.kernels import cpu
from superpose.statistics import mean_interval

Progress = Callable[[int, int], None]


def pack(sweep: SweepSection, seed: int, folder: Path, progress: Progress | None = None) -> Run:
    """Train the sweep, or read what is already there; `folder` then holds the whole run.

    The models of each density are kept in a hidden folder until all are done, so an interrupted
    sweep goes on where it stopped.
    """
    worlds, runs = sweep.worlds, range(sweep.runs)
    done = _kept(folder, sweep, worlds, seed)
    total = len(worlds) * sweep.runs
    if done is not None:
        return done
    parts = []
    for i, world in enumerate(worlds):
        part = folder.parent / f".{folder.name}-{i:03d}"
        run = _kept(part, sweep, [world], seed)
        if run is None:
            run = engine.train(
                sweep.model,
                [world],
                sweep.training,
                runs=runs,
                seed=seed,
                progress=_shifted(progress, i * sweep.runs, total),
            )
            run.save(part)
        elif progress:
            progress((i + 1) * sweep.runs, total)
        parts.append(run)
    whole = engine.stack(parts)
    whole.save(folder)
    for i in range(len(worlds)):
        records.remove(folder.parent / f".{folder.name}-{i:03d}")
    return whole


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return (lambda done, _: progress(before + done, total)) if progress else None


def _kept(folder: Path, sweep: SweepSection, worlds: list[Features], seed: int) -> Run | None:
    """The run in a folder if it is sound and just the one that would be trained."""
    try:
        run = engine.load(folder)
    except records.RecordError:
        return None
    same = (
        run.model == sweep.model
        and run.worlds == tuple(worlds)
        and run.training == sweep.training
        and run.seed == seed
        and run.kernel == cpu.VERSION
        and np.array_equal(run.index[0], np.arange(sweep.runs))
    )
    return run if same else None


def see(run: Run, folder: Path, made_from: dict[str, Any]) -> phases.Phases:
    """Find the phases and shapes of a sweep; tables and findings go to a record."""
    features = run.table("features")
    found = phases.find(features)
    shapes = _shapes(run)
    records.save(
        folder,
        kind="packing",
        about={
            "made_from": made_from,
            "model": {"n": run.model.n, "m": run.model.m},
            "runs": run.index.shape[-1],
            "onset": asdict(found.onset),
            "notes": found.notes,
        },
        tables={
            "models": run.table(),
            "features": features,
            "states": found.states,
            "onsets": found.onsets,
            "changes": found.changes,
            "ranges": found.ranges,
            "sensitivity": found.sensitivity,
            "shapes": shapes,
            "summary": _summary(run),
            "lines": _lines(run),
        },
    )
    return found


def _shapes(run: Run) -> pa.Table:
    """One row a factor of each model: p, run, label, size, dim, dimensionality, error."""
    rows = [
        {
            "p": float(world.probability.mean()),
            "run": int(run.index[w, r]),
            "label": factor.label,
            "size": len(factor.features),
            "dim": factor.dim,
            "dimensionality": factor.dimensionality,
            "error": factor.error,
            "model": geometry.summary(factors),
        }
        for w, (world, models) in enumerate(zip(run.worlds, geometry.classify(run.W), strict=True))
        for r, factors in enumerate(models)
        for factor in factors
    ]
    return pa.Table.from_pylist(rows)


MEASURES = ("loss", "capacity", "dims_per_feature", "represented", "polysemanticity")


def _summary(run: Run) -> pa.Table:
    """Each measure at each density: its mean over seeds with the 95 % interval."""
    models = run.table()
    rows = []
    for w, world in enumerate(run.worlds):
        for name in MEASURES:
            values = models[name].to_numpy().reshape(len(run.worlds), -1)[w]
            interval = mean_interval(values)
            rows.append(
                {
                    "p": float(world.probability.mean()),
                    "measure": name,
                    "estimate": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return pa.Table.from_pylist(rows)


LINES = {"1": 1.0, "3/4": 3 / 4, "2/3": 2 / 3, "1/2": 1 / 2, "2/5": 2 / 5, "3/8": 3 / 8}
NEAR = 0.02


def _lines(run: Run) -> pa.Table:
    """Share of the represented features near each line of dimensionality, density by density."""
    features = run.table("features")
    norm, D = (
        features[name].to_numpy().reshape(len(run.worlds), -1)
        for name in ("norm", "dimensionality")
    )
    rows = []
    for w, world in enumerate(run.worlds):
        learned = D[w][norm[w] > phases.REPRESENTED]
        if not learned.size:
            continue
        rows.append(
            {"p": float(world.probability.mean()), "represented": int(learned.size)}
            | {name: float((abs(learned - value) < NEAR).mean()) for name, value in LINES.items()}
            | {"below 0.38": float((learned < 0.38).mean())}
        )
    return pa.Table.from_pylist(rows)
