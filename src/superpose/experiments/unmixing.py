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
from superpose.experiments.packing import plain
from superpose.statistics import mean_interval
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
    """Models on both sides of the change, each of the lowest loss among those of its kind.

    "before": at the last density before any model has superposition; "after": at the density
    where most models agree on their shape among those at which most have every represented
    feature superposed, one of these; "sparsest": the last of the sweep. Those that do not exist
    or represent nothing are left out.
    """
    share, last = _superposed_share(run), len(run.worlds) - 1
    chosen: dict[str, tuple[int, np.ndarray]] = {}
    begun = np.maximum.accumulate((share > 0).any(1))
    (none,) = np.nonzero(~begun & (share == 0).any(1))
    if none.size:
        chosen["before"] = int(none[-1]), share[none[-1]] == 0
    (most,) = np.nonzero((share == 1).mean(1) > 0.5)
    if most.size:
        w = int(most[np.argmax(_agreement(run)[most])])
        chosen["after"] = w, share[w] == 1
    if last not in [w for w, _ in chosen.values()]:
        chosen["sparsest"] = last, np.ones(share.shape[1], bool)
    found = []
    for name, (w, kind) in chosen.items():
        loss = np.where(kind, run.loss[w].numpy(), np.inf)
        found.append(_subject(name, run, w, int(loss.argmin())))
    return [subject for subject in found if subject.represented]


def _superposed_share(run: Run) -> np.ndarray:
    """For each world and run the share of represented features that are superposed, or NaN."""
    norms, overlap = measures.feature_norms(run.W), measures.interference(run.W)
    states = phases.state(norms.numpy(), overlap.numpy())
    represented = (states != "ignored").sum(-1)
    superposed = (states == "superposed").sum(-1)
    return np.where(represented > 0, superposed / np.maximum(represented, 1), np.nan)


def _agreement(run: Run) -> np.ndarray:
    shapes = [[geometry.summary(f) for f in models] for models in geometry.classify(run.W)]
    return np.array([max(map(models.count, models)) / len(models) for models in shapes])


def _subject(name: str, run: Run, w: int, at: int) -> Subject:
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
    run, seed = run.finite(), run.seed
    chosen, notes = _usable(run, section)
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
                SAETraining(samples=section.samples, lr=1e-2),
                seeds=section.seeds,
                seed=seed,
            )
            dictionaries[name] = sae
            arrays |= {f"{subject.name}.{name}.{k}": v for k, v in sae.arrays().items()}
            if progress:
                progress(i * len(codes) + j + 1, total)
        for name, dictionary in dictionaries.items():
            told = getattr(dictionary, "advice", ())
            notes += [f"{name} at 1/(1 − S) = {subject.sparsity:.3g}: {text}" for text in told]
            scores += _scores(subject, name, dictionary, (W, run.model.encode(held, W), held))
            measured = faithfulness(run.model, W, b, held, dictionary, _budgets(run.model.m))
            kept += [
                {"model": subject.name, "dictionary": name, "k": k} | plain(measured.interval(k))
                for k in measured.budgets
            ]
    records.save(
        folder,
        kind="unmixing",
        about={
            "made_from": made_from,
            "subjects": [asdict(subject) for subject in chosen],
            "seeds": section.seeds,
            "notes": notes,
        },
        arrays=arrays,
        tables={
            "recovery": pa.Table.from_pylist(scores),
            "faithfulness": pa.Table.from_pylist(kept),
        },
    )


def _usable(run: Run, section: UnmixSection) -> tuple[list[Subject], list[str]]:
    """The subjects whose hidden layer says anything in as many samples, and notes on the others."""
    chosen, notes = [], []
    for subject in subjects(run):
        x = run.worlds[subject.world].sample(section.activations, seed=2 * run.seed)
        hidden = run.model.encode(x, run.W[subject.world, subject.run])
        if (hidden != hidden[0]).any():
            chosen.append(subject)
        else:
            notes.append(
                f"at 1/(1 − S) = {subject.sparsity:.3g} nothing was active in "
                f"{section.activations} samples, so there was nothing to un-mix"
            )
    return chosen, notes


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
    advice = tuple(dict.fromkeys(text for member in members for text in member.advice))
    return replace(members[0], **weights, advice=advice)


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
        "all": match(dictionary, W[measures.feature_norms(W) > 0]),
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
                | plain(mean_interval(values))
            )
    return rows
