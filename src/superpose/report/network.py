"""What a real layer says: how superposed, its features by name, its neurons un-mixed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from superpose.figures import thumbnail
from superpose.records import Record
from superpose.report import Block, Grid, Images, Section, Text
from superpose.report.packing import Told
from superpose.report.words import count, measured

SHOWN = 12
EXAMPLES = 3
SOURCES = {
    "data": "this layer",
    "gaussian": "Gaussian null",
    "shuffled": "shuffled null",
    "complete": "complete null",
}


def tell(network: Record) -> Told:
    """The measure against nulls, the names of the latents, and what the neurons mixed."""
    about, tables = network.about, network.tables
    names = [row for row in tables["names"].to_pylist() if row["labels"]]
    neurons = [row for row in tables["neurons"].to_pylist() if row["firing_rate"] > 0]
    introduced = _introduction(about)
    verdict = _verdict(about)
    named = _named(names, tables["names"].num_rows, about)
    blocks: list[Block] = [Text(introduced), Text(verdict), _measurement(tables["measurement"])]
    sentences = [verdict]
    if names:
        mixed = _mixed(neurons, names)
        sentences.append(f"{named} {mixed}")
        best = sorted(names, key=lambda row: -row["score"])[:SHOWN]
        blocks += [
            Text(named),
            *_strips(best, network, "The inputs that excite each latent most"),
            _names(best),
            Text(mixed),
            _neurons(neurons),
        ]
    elif about.get("labelled", True):
        blocks.append(Text("No label is enriched in any latent, so latents have numbers only."))
    else:
        blocks.append(Text("There are no labels to name latents by, so they have numbers only."))
    blocks += [Text(f"Note: {advice}.") for advice in about["advice"]]
    return Section("A real network: what is in this layer?", blocks), sentences, {}


def _introduction(about: dict[str, Any]) -> str:
    if about["source"] == "digits":
        return (
            f"A network of {about['units']} ReLU units was trained to read handwritten digits "
            f"(scikit-learn's 8 × 8 images); it reads {100 * about['accuracy']:.1f} % of "
            f"{about['held_out']} images that it had not seen. Its hidden layer was harvested on "
            f"all {about['samples']} images."
        )
    return f"{about['source']}: {about['samples']} samples of {about['units']} units."


def _verdict(about: dict[str, Any]) -> str:
    claims = {
        "superposition": "The hidden layer is in superposition",
        "not shown": "Superposition is not shown in the hidden layer",
        "not trustworthy": "The measure of superposition is not trustworthy here",
    }
    return f"{claims[about['verdict']]}: {about['reason']}."


def _measurement(table) -> Grid:
    rows = [
        (
            SOURCES[row["source"]],
            measured(row, 1, "features"),
            measured(row, 2, "psi"),
            measured(row, 2, "gain"),
            row["explained_variance"],
        )
        for row in table.to_pylist()
    ]
    return Grid(
        ("", "effective features F", "ψ = F / varying units", "gain", "explained"),
        rows,
        "Effective features on held-out samples with 95 % intervals over seeds, beside three "
        "nulls: Gaussian of the same covariance, each unit shuffled on its own, a complete sparse "
        "model with as many features as dimensions. The gain compares what the best complete code "
        "leaves unexplained with what an overcomplete one does; a claim of superposition has to "
        "exceed that of the complete null.",
    )


def _named(names: list[dict], latents: int, about: dict[str, Any]) -> str:
    alone = sum(len(row["labels"]) == 1 for row in names)
    return (
        f"Of {latents} latents of a TopK autoencoder (k = {about['code']['k']}, explained variance "
        f"{about['explained_variance']:.2f}) {len(names)} get a name at a false-discovery rate of "
        f"{100 * about['level']:.0f} %, {alone} of them that of a single label."
    )


def _mixed(neurons: list[dict], names: list[dict]) -> str:
    def typical(rows: Sequence[dict]) -> float:
        return float(np.median([row["mixture"] for row in rows])) if rows else float("nan")

    poly = sum(row["polysemantic"] for row in neurons)
    several = sum(len(row["enriched"]) > 1 for row in names)
    return (
        f"Several labels are enriched in {poly} of {count(len(neurons), 'active neuron')}, by the "
        f"same rule in {several} of {count(len(names), 'named latent')}. A neuron's activation "
        f"spreads over {typical(neurons):.1f} labels (effective number, median), a named latent's "
        f"over {typical(names):.1f}."
    )


def _strips(rows: list[dict], network: Record, caption: str) -> list[Block]:
    if "images" not in network.arrays:
        return []
    images = network.arrays["images"] / 16
    items = [
        (thumbnail(images[example]), row["name"])
        for row in rows
        for example in row["examples"][:EXAMPLES]
    ]
    return [Images(items, f"{caption}, with its name: {EXAMPLES} each.")]


def _names(rows: list[dict]) -> Grid:
    return Grid(
        ("latent", "name", "q", "AUC", "precision", "recall", "fires on", "effective labels"),
        [
            (
                row["latent"],
                row["name"],
                f"{row['q']:.1g}",
                measured(row, 2, "score"),
                measured(row, 2, "precision"),
                measured(row, 2, "recall"),
                f"{100 * row['firing_rate']:.1f} %",
                row["mixture"],
            )
            for row in rows
        ],
        f"The {len(rows)} best-named latents. Names were found on one half of the samples and "
        "scored on the other: AUC, precision and recall as detectors of the name, with 95 % "
        "intervals. q: Benjamini and Hochberg over all latents and labels.",
    )


def _neurons(rows: list[dict]) -> Grid:
    mixing = sorted(rows, key=lambda row: -row["mixture"])[:SHOWN]
    return Grid(
        ("neuron", "mixes", "effective labels", "un-mixed into"),
        [
            (
                row["neuron"],
                ", ".join(row["mixes"]) or "nothing significant",
                row["mixture"],
                ", ".join(
                    f"{name} ({100 * share:.0f} %)"
                    for name, share in zip(row["latent_names"], row["shares"], strict=True)
                ),
            )
            for row in mixing
        ],
        f"The {len(mixing)} most mixed neurons: labels enriched where each is strong, and the "
        "named latents that write most to it (share of its activation).",
    )
