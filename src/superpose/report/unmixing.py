"""How well dictionaries recover the true directions, in words, figures and tables."""

from typing import Any

import numpy as np
import pyarrow as pa

from superpose import figures
from superpose.records import Record
from superpose.report import Block, Grid, Picture, Section, Text
from superpose.report.packing import Told

TITLES = {
    "before": "before superposition begins",
    "after": "after, every feature in superposition",
    "sparsest": "the sparsest world",
}
PANELS = {"before": "no superposition", "after": "superposition", "sparsest": "sparsest world"}
SAES = ("SAE (TopK)", "SAE (L1)")
FOUND = 0.9
"""From this recall on a dictionary is said to recover the features."""

Scores = dict[tuple[str, str, str], dict[str, Any]]


def tell(unmixing: Record) -> Told:
    """The un-mixing of models on both sides of the change."""
    subjects = unmixing.about["subjects"]
    if not subjects:
        missing = "No model of this sweep lies on either side of a change, so none was un-mixed."
        return Section("Un-mix: are the features found again?", [Text(missing)]), [missing], {}
    scores = {
        (row["model"], row["dictionary"], row["score"]): row
        for row in unmixing.tables["recovery"].to_pylist()
        if row["truth"] == "represented"
    }
    drawn = {
        "recovery": figures.render(figures.recovery_bars, _drawable(unmixing)),
        "faithfulness": figures.render(
            figures.faithfulness_curves, _titled(unmixing.tables["faithfulness"])
        ),
    }
    sentences = [_sentence(subject, scores) for subject in subjects]
    kept = _faithful(unmixing)
    blocks: list[Block] = [
        Text(
            "The hidden layer of a model mixes its features. A dictionary tries to un-mix it from "
            "the activations alone, and is scored against the directions that the model really "
            "uses: the features it represents (norm above 1/2), and all of them beside. Neurons, "
            "and the lines of ICA, count as two rays each, which is in their favour."
        ),
        *[Text(sentence) for sentence in sentences],
        Picture(
            "recovery",
            "Recovery of the represented features: mean of the best cosine (MMCS), the share of "
            "them with a cosine above 0.9 (recall), and how well the matching latent tells when "
            "its feature is active (firing F1). Bars: 95 % intervals over seeds.",
            " ".join(sentences),
        ),
        Text(kept),
        Picture(
            "faithfulness",
            "Share of the model's own output explained when only k units are kept for each input "
            "and the rest set to zero.",
            kept,
        ),
        *[_table(subject, unmixing) for subject in subjects],
    ]
    return Section("Un-mix: are the features found again?", blocks), [*sentences, kept], drawn


def _sentence(subject: dict[str, Any], scores: Scores) -> str:
    def recall(dictionary: str) -> float:
        return scores[subject["name"], dictionary, "recall"]["estimate"]

    sae = max(SAES, key=recall)
    here = (
        f"At 1/(1 − S) = {subject['sparsity']:.3g}, {TITLES[subject['name']]} "
        f"({subject['shape']}), "
    )
    numbers = (
        f"the neurons recover {100 * recall('neurons'):.0f} % of the "
        f"{subject['represented']} represented features, ICA {100 * recall('ICA'):.0f} %, the "
        f"{sae[5:-1]} autoencoder {100 * recall(sae):.0f} %, random directions "
        f"{100 * recall('random'):.0f} %"
    )
    return here + numbers + ": " + _verdict(recall("neurons"), recall("ICA"), recall(sae)) + "."


def _verdict(neurons: float, ica: float, sae: float) -> str:
    if neurons >= FOUND:
        return "the neurons are the features, and nothing needs un-mixing"
    if ica >= FOUND and sae < FOUND:
        return "a rotation suffices, and an autoencoder does worse"
    if ica >= FOUND:
        return (
            "a rotation finds the lines, since opposite features share one and each line counts "
            "as two rays; so does the autoencoder"
        )
    if sae >= FOUND:
        return "only the autoencoder recovers them"
    if sae > max(neurons, ica):
        return "the autoencoder recovers most, but not all"
    return "none recovers them"


def _faithful(unmixing: Record) -> str:
    last = unmixing.about["subjects"][-1]["name"]
    share = {
        row["dictionary"]: row
        for row in unmixing.tables["faithfulness"].to_pylist()
        if row["model"] == last and row["k"] == 1
    }
    best = max(SAES, key=lambda name: share[name]["estimate"])
    return (
        f"In {TITLES[last]} a single feature of the {best[5:-1]} autoencoder for each input "
        f"explains {_percent(share[best])} of the model's own output, a single neuron "
        f"{_percent(share['neurons'])}."
    )


def _percent(row: dict[str, Any]) -> str:
    if not np.isfinite(row["low"]):
        return f"{100 * row['estimate']:.0f} %"
    return f"{100 * row['estimate']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def _drawable(unmixing: Record) -> pa.Table:
    table = unmixing.tables["recovery"]
    shown = {"mmcs": "MMCS", "recall": "recall", "firing_f1": "firing F1"}
    rows = [
        row | {"score": shown[row["score"]]}
        for row in table.to_pylist()
        if row["truth"] == "represented" and row["score"] in shown
    ]
    return _titled(pa.Table.from_pylist(rows))


def _titled(table: pa.Table) -> pa.Table:
    names = [PANELS[name] for name in table["model"].to_pylist()]
    return table.set_column(table.column_names.index("model"), "model", [names])


def _table(subject: dict[str, Any], unmixing: Record) -> Grid:
    rows = [r for r in unmixing.tables["recovery"].to_pylist() if r["model"] == subject["name"]]
    columns = [
        ("represented", "mmcs", "MMCS"),
        ("all", "mmcs", "MMCS, all"),
        ("represented", "recall", "recall"),
        ("all", "recall", "recall, all"),
        ("represented", "precision", "precision"),
        ("represented", "f1", "F1"),
        ("represented", "firing_f1", "firing F1"),
        ("represented", "dead", "dead"),
        ("represented", "l0", "L0"),
        ("represented", "explained_variance", "explained variance"),
    ]
    cells = {(r["dictionary"], r["truth"], r["score"]): r for r in rows}
    dictionaries = list(dict.fromkeys(r["dictionary"] for r in rows))
    return Grid(
        ("dictionary", *(title for *_, title in columns)),
        [
            (name, *(_cell(cells[name, truth, score]) for truth, score, _ in columns))
            for name in dictionaries
        ],
        f"All scores, {TITLES[subject['name']]}; mean over {unmixing.about['seeds']} seeds ± half "
        "of the 95 % interval.",
    )


def _cell(row: dict[str, Any]) -> str:
    if not np.isfinite(row["high"]):
        return f"{row['estimate']:.2f}"
    return f"{row['estimate']:.2f} ± {(row['high'] - row['low']) / 2:.2f}"
