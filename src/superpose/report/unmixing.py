"""How well dictionaries recover the true directions, in words, figures and tables."""

from typing import Any

import numpy as np
import pyarrow as pa

from superpose import figures
from superpose.records import Record
from superpose.report import Block, Grid, Picture, Section, Text
from superpose.report.packing import Told
from superpose.report.words import count, percent

SAES = ("SAE (TopK)", "SAE (L1)")
FOUND = 0.9
"""From this recall on a dictionary is said to recover the features."""

Scores = dict[tuple[str, str, str], dict[str, Any]]


def tell(unmixing: Record) -> Told:
    """The un-mixing of models on both sides of the change."""
    subjects = unmixing.about["subjects"]
    if not subjects:
        missing = "No model of this sweep was un-mixed."
        texts = [Text(text) for text in (missing, *unmixing.about["notes"])]
        return Section("Un-mix: are the features found again?", texts), [missing], {}
    scores = {
        (row["model"], row["dictionary"], row["score"]): row
        for row in unmixing.tables["recovery"].to_pylist()
        if row["truth"] == "represented"
    }
    drawn = {
        "recovery": figures.render(figures.recovery_bars, _drawable(unmixing)),
        "faithfulness": figures.render(
            figures.faithfulness_curves, _titled(unmixing.tables["faithfulness"], unmixing)
        ),
    }
    sentences = [_sentence(subject, scores) for subject in subjects]
    kept = _faithful(subjects[-1], unmixing)
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
        *[Text(f"Note: {note}.") for note in unmixing.about["notes"]],
    ]
    return Section("Un-mix: are the features found again?", blocks), [*sentences, kept], drawn


def _kind(subject: dict[str, Any]) -> str:
    """Whether the represented features of a model are in superposition: none, all, or some."""
    if subject["superposed"] == 0:
        return "no superposition"
    if subject["superposed"] == subject["represented"]:
        return "all in superposition"
    return f"{subject['superposed']} of {subject['represented']} in superposition"


def _at(subject: dict[str, Any]) -> str:
    return f"1/(1 − S) = {subject['sparsity']:.3g}"


def _sentence(subject: dict[str, Any], scores: Scores) -> str:
    rows = {
        name: scores[subject["name"], name, "recall"]
        for name in ("neurons", "ICA", "random", *SAES)
    }
    sae = max(SAES, key=lambda name: rows[name]["estimate"])
    features = count(subject["represented"], "represented feature")
    recall = {name: row["estimate"] for name, row in rows.items()}
    return (
        f"At {_at(subject)} ({subject['shape']}: {_kind(subject)}) the neurons recover "
        f"{percent(rows['neurons'])} of the {features}, ICA {percent(rows['ICA'])}, the better "
        f"autoencoder ({sae[5:-1]}) {percent(rows[sae])}, random directions "
        f"{percent(rows['random'])}: {_verdict(recall, recall[sae], subject['superposed'] > 0)}."
    )


def _verdict(recall: dict[str, float], sae: float, superposed: bool) -> str:
    if recall["random"] >= FOUND:
        return "as random directions do as well, this says nothing"
    if recall["neurons"] >= FOUND:
        if superposed:
            return "each neuron carries two opposite features, told apart by its sign"
        return "the neurons are the features, and nothing needs un-mixing"
    if recall["ICA"] >= FOUND:
        if sae < FOUND:
            return "a rotation suffices, and an autoencoder does worse"
        if superposed:
            return (
                "opposite features share a line, which a rotation finds and whose two rays tell "
                "them apart; the autoencoder finds them too"
            )
        return "a rotation suffices; the autoencoder finds them too"
    if sae >= FOUND:
        return "only the autoencoder recovers them"
    if sae > max(recall.values()) - 1e-9 and sae > recall["random"]:
        return "the autoencoder recovers most of what is recovered, but not all"
    return "none recovers them"


def _faithful(subject: dict[str, Any], unmixing: Record) -> str:
    share = {
        row["dictionary"]: row
        for row in unmixing.tables["faithfulness"].to_pylist()
        if row["model"] == subject["name"] and row["k"] == 1
    }
    best = max(SAES, key=lambda name: share[name]["estimate"])
    return (
        f"At {_at(subject)} ({_kind(subject)}) the strongest single latent of the {best[5:-1]} "
        f"autoencoder for each input explains {percent(share[best])} of the model's own output, "
        f"the strongest single neuron {percent(share['neurons'])}."
    )


def _drawable(unmixing: Record) -> pa.Table:
    table = unmixing.tables["recovery"]
    shown = {"mmcs": "MMCS", "recall": "recall", "firing_f1": "firing F1"}
    rows = [
        row | {"score": shown[row["score"]]}
        for row in table.to_pylist()
        if row["truth"] == "represented" and row["score"] in shown
    ]
    return _titled(pa.Table.from_pylist(rows), unmixing)


def _titled(table: pa.Table, unmixing: Record) -> pa.Table:
    """The table with the models named as the panels of a figure are."""
    titles = {
        subject["name"]: f"1/(1 − S) = {subject['sparsity']:.3g}\n{_kind(subject)}"
        for subject in unmixing.about["subjects"]
    }
    names = [titles[name] for name in table["model"].to_pylist()]
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
        f"All scores at {_at(subject)} ({_kind(subject)}): mean over "
        f"{count(unmixing.about['seeds'], 'seed')} of one model's dictionaries, ± half of the 95 % "
        "interval.",
    )


def _cell(row: dict[str, Any]) -> str:
    if not np.isfinite(row["high"]):
        return f"{row['estimate']:.2f}"
    return f"{row['estimate']:.2f} ± {(row['high'] - row['low']) / 2:.2f}"
