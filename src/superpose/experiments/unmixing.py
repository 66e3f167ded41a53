"""Un-mix: dictionaries on the hidden layers of toy models, scored against the true directions.

Must show: where features are in superposition, sparse autoencoders recover their directions far
better than the neurons; where they are not, a rotation suffices.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from superpose import geometry, measures, phases, records
from superpose.activations import Activations
from superpose.engine import Run
from superpose.experiments.configuration import UnmixSection
from superpose.statistics import Interval, mean_interval
from superpose.unmix import (
    L1,
    SAE,
    Dictionary,
    SAETraining,
    TopK,
    faithfulness,
    ica,
    match,
    neurons,
    random_dictionary,
    unmix,
)
from superpose.unmix.baselines import Pursuit

Progress = Callable[[int, int], None]
SCORES = (
    "mmcs",
    "recall",
    "precision",
    "f1",
    "firing_precision",
    "firing_recall",
    "firing_f1",
    "dead",
    "l0",
    "explained_variance",
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to un-mix: where it stands in the sweep and what it represents."""

    name: str
    world: int
    run: int
    sparsity: float
    represented: int
    superposed: int
    shape: str
    active: float  # represented features active in a mean input


def subjects(run: Run) -> list[Subject]:
    """Models on both sides of the change, each of the lowest loss at its density.

    "before": the sparsest density at which no model has superposition; "after": the density
    past it at which most models agree on their shape, every represented feature superposed;
    "sparsest": the last of the sweep. Those that do not exist, or fall together, are left out.
    """
    share = _superposed_share(run)
    none = np.flatnonzero(np.maximum.accumulate((share > 0).any(1)) == 0)
    agreed = _agreement(run)
    all_superposed = np.flatnonzero((share == 1).mean(1) > 0.5)
    chosen = {}
    if none.size:
        chosen["before"] = int(none[-1])
    if all_superposed.size:
        chosen["after"] = int(all_superposed[np.argmax(agreed[all_superposed])])
    last = len(run.worlds) - 1
    if (share[last] > 0).any() and last not in chosen.values():
        chosen["sparsest"] = last
    best = run.best().index[:, 0]
    return [_subject(name, run, w, int(best[w])) for name, w in chosen.items()]


def _superposed_share(run: Run) -> np.ndarray:
    """For each world and run, the share of the represented features that are superposed."""
    norms, overlap = measures.feature_norms(run.W), measures.interference(run.W)
    states = phases.state(norms.numpy(), overlap.numpy())
    represented = (states != "ignored").sum(-1)
    return (states == "superposed").sum(-1) / np.maximum(represented, 1)


def _agreement(run: Run) -> np.ndarray:
    shapes = [[geometry.summary(f) for f in models] for models in geometry.classify(run.W)]
    return np.array([max(map(models.count, models)) / len(models) for models in shapes])


def _subject(name: str, run: Run, w: int, r: int) -> Subject:
    at = int(np.flatnonzero(run.index[w] == r)[0])
    W, p = run.W[w, at], run.worlds[w].probability
    states = phases.state(measures.feature_norms(W).numpy(), measures.interference(W).numpy())
    represented = states != "ignored"
    return Subject(
        name=name,
        world=w,
        run=at,
        sparsity=float(1 / p.mean()),
        represented=int(represented.sum()),
        superposed=int((states == "superposed").sum()),
        shape=geometry.summary(geometry.classify(W)),
        active=float(p[represented].sum()),
    )


def unmix_all(
    run: Run,
    section: UnmixSection,
    folder: Path,
    made_from: dict[str, Any],
    progress: Progress | None = None,
) -> None:
    """Un-mix every subject; dictionaries, scores and faithfulness go to a record."""
    chosen, seed = subjects(run), run.seed
    scores, kept, arrays = [], [], {}
    for i, subject in enumerate(chosen):
        world = run.worlds[subject.world]
        W, b = run.W[subject.world, subject.run], run.b[subject.world, subject.run]
        x = world.sample(section.activations, seed=2 * seed)
        held = world.sample(section.scored, seed=2 * seed + 1)
        hidden = run.model.encode(x, W)
        codes = _codes(subject, run, section)
        total = len(chosen) * len(codes)
        dictionaries = _baselines(hidden, run.model.n * section.widening, section.seeds, seed)
        for j, (name, code) in enumerate(codes.items()):
            sae = unmix(
                Activations(hidden),
                code,
                SAETraining(samples=section.samples),
                seeds=section.seeds,
                seed=seed,
            )
            dictionaries[name] = sae
            arrays |= {f"{subject.name}.{name}.{k}": v for k, v in sae.arrays().items()}
            if progress:
                progress(i * len(codes) + j + 1, total)
        for name, dictionary in dictionaries.items():
            scores += _scores(subject, name, dictionary, (W, run.model.encode(held, W), held))
            measured = faithfulness(run.model, W, b, held, dictionary, _budgets(run.model.m))
            kept += [
                {"model": subject.name, "dictionary": name, "k": k} | _plain(measured.interval(k))
                for k in measured.budgets
            ]
    records.save(
        folder,
        kind="unmixing",
        about={
            "made_from": made_from,
            "subjects": [asdict(subject) for subject in chosen],
            "seeds": section.seeds,
        },
        arrays=arrays,
        tables={
            "recovery": pa.Table.from_pylist(scores),
            "faithfulness": pa.Table.from_pylist(kept),
        },
    )


def _budgets(m: int) -> tuple[int, ...]:
    return tuple(range(1, min(m, 8) + 1))


def _codes(subject: Subject, run: Run, section: UnmixSection) -> dict[str, TopK | L1]:
    """The codes to train: k is the mean number of active features and one standard deviation."""
    width = run.model.n * section.widening
    k = int(np.clip(np.ceil(subject.active + subject.active**0.5), 1, run.model.m))
    return {
        "SAE (TopK)": TopK(d_sae=width, k=k),
        "SAE (L1)": L1(d_sae=width, coefficient=section.l1),
    }


def _baselines(hidden: torch.Tensor, width: int, seeds: int, seed: int) -> dict[str, Dictionary]:
    """Neurons, ICA and random directions; the last two once for each seed, as a stack."""
    return {
        "neurons": neurons(hidden.shape[-1]),
        "ICA": _stack([ica(hidden, seed=seed + s) for s in range(seeds)]),
        "random": Pursuit(
            torch.cat(
                [
                    random_dictionary(hidden.shape[-1], width, seed=seed + s).directions
                    for s in range(seeds)
                ]
            )
        ),
    }


def _stack(members: list[SAE]) -> SAE:
    weights = {
        name: torch.cat([getattr(member, name) for member in members])
        for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    }
    return replace(members[0], **weights)


def _scores(
    subject: Subject,
    name: str,
    dictionary: Dictionary,
    held: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> list[dict]:
    """Scores against the represented features, and (mmcs, recall) against all of them."""
    W, hidden, x = held
    represented = measures.represented(W)
    against = {
        "represented": match(dictionary, W[represented], hidden, x[:, represented] > 0),
        "all": match(dictionary, W),
    }
    rows = []
    for truth, matched in against.items():
        for score in SCORES if truth == "represented" else ("mmcs", "recall"):
            values = np.asarray(matched.scores[score], np.float64)
            rows.append(
                {
                    "model": subject.name,
                    "dictionary": name,
                    "truth": truth,
                    "score": score,
                    "members": len(values),
                }
                | _plain(mean_interval(values))
            )
    return rows


def _plain(interval: Interval) -> dict[str, float]:
    """One member has no interval: its bounds are NaN, which tables show as missing."""
    bounds = np.array([interval.low, interval.high])
    low, high = np.where(np.isfinite(bounds), bounds, np.nan)
    return {"estimate": interval.estimate, "low": float(low), "high": float(high)}
