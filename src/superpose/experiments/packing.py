"""Pack and see: a sweep of toy models over density, its phases and its shapes.

Must show: nothing in superposition in the dense worlds, its onset with an interval over seeds,
the least important represented features in antipodal pairs first.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from superpose import geometry, measures, phases, records
from superpose.engine import Run
from superpose.experiments.configuration import SweepSection
from superpose.experiments.models import Progress, trained
from superpose.statistics import Interval, mean_interval


def pack(section: SweepSection, seed: int, folder: Path, progress: Progress | None = None) -> Run:
    """Train the sweep of a section, or what of it `folder` does not hold yet."""
    return trained(folder, section.sweep(seed), progress)


def see(run: Run, folder: Path, made_from: dict[str, Any]) -> phases.Phases:
    """Find the phases and shapes of a sweep; tables, findings and best models go to a record.

    Run numbers of which a model diverged are left out and named. Raises ValueError when none is
    left.
    """
    trained, run = run, run.finite()
    if not run.index.size:
        raise ValueError("every run of the sweep diverged; lower lr in the configuration")
    features = run.table("features")
    found, best = phases.find(features), run.best()
    left_out = sorted(set(trained.index.ravel().tolist()) - set(run.index.ravel().tolist()))
    records.save(
        folder,
        kind="packing",
        about={
            "made_from": made_from,
            "model": {"n": run.model.n, "m": run.model.m},
            "runs": run.index.shape[-1],
            "onset": asdict(found.onset),
            "runs_by_onset": _onset_counts(found.onsets),
            "notes": [
                *found.notes,
                *([f"runs {left_out} diverged and were left out"] if left_out else []),
            ],
        },
        arrays={
            "W": best.W[:, 0].numpy(),
            "b": best.b[:, 0].numpy(),
            "p": np.array([world.probability.mean() for world in run.worlds]),
        },
        tables={
            "models": run.table(),
            "features": features,
            "states": found.states,
            "onsets": found.onsets,
            "changes": found.changes,
            "ranges": found.ranges,
            "sensitivity": found.sensitivity,
            "shapes": _shapes(run),
            "summary": _summary(run),
            "lines": _lines(run),
        },
    )
    return found


def _onset_counts(onsets: pa.Table) -> dict[str, int]:
    """Runs in which superposition begins inside the range, is there before, or never comes."""
    inside = np.isfinite(onsets["onset"].to_numpy())
    beyond = np.isinf(onsets["high"].to_numpy())
    return {
        "inside": int(inside.sum()),
        "before": int((~inside & ~beyond).sum()),
        "never": int((~inside & beyond).sum()),
    }


def _shapes(run: Run) -> pa.Table:
    """One row a factor of each model: p, run, label, size, dim, dimensionality, error.

    A model that represents nothing has one row, without a factor.
    """
    nothing = geometry.Factor("nothing", (), 0, float("nan"), float("nan"))
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
        for factor in factors or [nothing]
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
            row = {"p": float(world.probability.mean()), "measure": name}
            rows.append(row | plain(mean_interval(values)))
    return pa.Table.from_pylist(rows)


LINES = {"1": 1.0, "3/4": 3 / 4, "2/3": 2 / 3, "1/2": 1 / 2, "2/5": 2 / 5, "3/8": 3 / 8}
NEAR = 0.02


def _lines(run: Run) -> pa.Table:
    """Share of the represented features near each line of dimensionality, mean over models.

    A feature is near the closest line only, and only within `NEAR` of it. Columns: p, line
    ("below 0.38" is everything under that), estimate, low, high, features (represented, in all).
    """
    norms, dims = measures.feature_norms(run.W), measures.dimensionality(run.W)
    values = np.array(list(LINES.values()))
    rows = []
    for w, world in enumerate(run.worlds):
        shares = []
        for norm, D in zip(norms[w].numpy(), dims[w].numpy(), strict=True):
            D = D[norm > phases.REPRESENTED]
            distance = abs(D[:, None] - values)
            near = (distance < NEAR) & (distance == distance.min(1, keepdims=True))
            if D.size:
                shares.append([*near.mean(0), (D < 0.38).mean()])
        learned = int((norms[w] > phases.REPRESENTED).sum())
        for line, column in zip([*LINES, "below 0.38"], np.array(shares).T, strict=bool(shares)):
            rows.append(
                {"p": float(world.probability.mean()), "line": line, "features": learned}
                | plain(mean_interval(column))
            )
    return pa.Table.from_pylist(rows)


def plain(interval: Interval) -> dict[str, float]:
    """Estimate and bounds as columns; the infinite bounds of one seed become NaN: missing."""
    bounds = np.array([interval.low, interval.high])
    low, high = np.where(np.isfinite(bounds), bounds, np.nan)
    return {"estimate": interval.estimate, "low": float(low), "high": float(high)}
