"""What a sweep over density shows, in words, figures and tables."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from superpose import figures
from superpose.figures import FigureFiles
from superpose.records import Record
from superpose.report import Block, Grid, Picture, Section, Text
from superpose.report.words import count, measured, percent
from superpose.statistics import Interval

Told = tuple[Section, list[str], dict[str, FigureFiles]]
"""A section, the sentences it adds to the summary, and its figures."""


def tell(packing: Record) -> Told:
    """The sweep of unequal importance: when superposition begins, and what happens then."""
    about, tables = packing.about, packing.tables
    n, m = about["model"]["n"], about["model"]["m"]
    onset = _interval(about["onset"])
    drawn = {
        "gram": figures.render(
            figures.gram_across_densities, *(packing.arrays[name] for name in ("W", "b", "p"))
        ),
        "phases": figures.render(figures.phase_map, tables["states"], boundaries=[onset]),
        "dims": figures.render(figures.dims_per_feature, tables["models"]),
        "dimensionality": figures.render(figures.dimensionality_scatter, tables["features"]),
    }
    begins = onset_sentence(onset, about["runs_by_onset"])
    end = _ends(tables["summary"], n, m)
    blocks: list[Block] = [
        Text(
            f"A world has {count(n, 'feature')}, each active with probability p = 1 − S; a model "
            f"squeezes them through {count(m, 'hidden dimension')}. At each of "
            f"{len(set(tables['states']['p'].to_pylist()))} densities models were trained from "
            f"{count(about['runs'], 'seed')}. Losses are exact expected losses, not samples."
        ),
        Text(begins),
        Picture(
            "phases",
            "State of each feature (top: most important) from dense to sparse worlds; paler where "
            "the seeds disagree. The line and band: onset of superposition and its 95 % interval.",
            f"Map of feature states against sparsity. {begins}",
        ),
        *[Text(f"Note: {note}.") for note in about["notes"]],
        _ranges(tables["ranges"]),
        Picture(
            "gram",
            "The best model at seven densities: the Gram matrix W Wᵀ, above the norm of each "
            "feature (coloured by its interference) and its bias. Off-diagonal squares are "
            "interference: the price of packing.",
            "Gram matrices, norms and biases at seven densities.",
        ),
        Text(end),
        Picture(
            "dims",
            "Dimensions per feature, D* = m/‖W‖², against sparsity 1/(1 − S). Dots are models, "
            "the band the 95 % interval of their mean.",
            end,
        ),
        Picture(
            "dimensionality",
            "The share of a dimension that each represented feature has, with the values of "
            "regular shapes: 1 dedicated, 3/4 tetrahedron, 2/3 triangle, 1/2 digon, 2/5 pentagon, "
            "3/8 square antiprism.",
            "Scatter of feature dimensionality against sparsity.",
        ),
        _changes(tables["changes"]),
        _shapes(tables["shapes"], "Shapes found, by density"),
        _measures(tables["summary"]),
    ]
    return Section("Pack and see: when does superposition begin?", blocks), [begins, end], drawn


def onset_sentence(onset: Interval, runs: Mapping[str, int]) -> str:
    """Where superposition begins, or in how many seeds it does so outside the range."""
    total = sum(runs.values())
    if np.isfinite(onset.estimate):
        high = f"{onset.high:.2f}" if np.isfinite(onset.high) else "beyond the range"
        sure = f" (95 % interval {onset.low:.2f} to {high} over {count(total, 'seed')})"
        return (
            f"Superposition begins at a sparsity of 1/(1 − S) = {onset.estimate:.2f}"
            f"{sure if total > 1 else ' (one seed, so no interval)'}, that is, when a feature is "
            f"active about {100 / onset.estimate:.0f} % of the time."
        )
    if runs["never"] == total:
        return "No superposition appears in the range of densities swept."
    if runs["before"] == total:
        return "Superposition is there already in the densest world of this sweep."
    return (
        f"Seeds disagree on where superposition begins: in {runs['before']} it is there in the "
        f"densest world, in {runs['inside']} it begins inside the range, in {runs['never']} it "
        "never does."
    )


def _ends(summary: pa.Table, n: int, m: int) -> str:
    first, last = _at(summary, "represented")[0], _at(summary, "represented")[-1]
    for row in (first, last):
        row["low"], row["high"] = max(row["low"], 0), min(row["high"], n)
    more = ": more features than dimensions" if last["low"] > m else ""
    return (
        f"In the densest world the models represent {measured(first, 1)} of {n} features, in the "
        f"sparsest {measured(last, 1)}, in {count(m, 'dimension')}{more}."
    )


def _at(summary: pa.Table, measure: str) -> list[dict[str, Any]]:
    rows = [row for row in summary.to_pylist() if row["measure"] == measure]
    return sorted(rows, key=lambda row: -row["p"])


def _interval(about: dict[str, Any]) -> Interval:
    """An interval from JSON, where a bound that is not finite is null."""
    estimate = np.nan if about["estimate"] is None else about["estimate"]
    low = 1.0 if about["low"] is None else about["low"]
    high = np.inf if about["high"] is None else about["high"]
    return Interval(estimate, low, high, about["level"])


def _ranges(ranges: pa.Table) -> Grid:
    rows = [
        (
            f"{row['sparsity_from']:.2f} – {row['sparsity_to']:.2f}",
            row["dedicated"],
            row["superposed"],
            row["ignored"],
            f"{100 * row['agreement']:.0f} %",
            row["variants"],
        )
        for row in ranges.to_pylist()
    ]
    return Grid(
        ("1/(1 − S)", "dedicated", "in superposition", "ignored", "models agreeing", "variants"),
        rows,
        "Phases: the most frequent counts of features in each state. Where fewer than all models "
        "agree, different packings coexist.",
    )


def _changes(changes: pa.Table) -> Grid:
    rows = []
    for row in changes.to_pylist():
        high = "beyond" if not np.isfinite(row["high"]) else f"{row['high']:.2f}"
        estimate = "beyond" if not np.isfinite(row["estimate"]) else f"{row['estimate']:.2f}"
        rows.append(
            (
                row["feature"] + 1,
                row["change"],
                estimate,
                f"{row['low']:.2f} – {high}",
                f"{row['shown']} of {row['runs']}",
            )
        )
    return Grid(
        ("feature", "change", "at 1/(1 − S)", "95 % interval", "seeds"),
        rows,
        "Further changes, in the order in which they happen (feature 1 is the most important).",
    )


def _shapes(shapes: pa.Table, caption: str) -> Grid:
    """The most frequent shapes of whole models at each density."""
    by_density: dict[float, dict[int, str]] = {}
    for row in shapes.to_pylist():
        by_density.setdefault(row["p"], {})[row["run"]] = row["model"]
    rows = []
    for p in sorted(by_density, reverse=True):
        counts = Counter(by_density[p].values())
        shown = [f"{name} ({count})" for name, count in counts.most_common(3)]
        rest = len(counts) - len(shown)
        rows.append((f"{1 / p:.2f}", "; ".join(shown) + (f"; {rest} more" if rest > 0 else "")))
    return Grid(("1/(1 − S)", "shapes (number of models)"), rows, caption)


def _measures(summary: pa.Table) -> Grid:
    names = ("loss", "capacity", "dims_per_feature", "represented", "polysemanticity")
    by_name = {name: _at(summary, name) for name in names}
    rows = [
        (
            f"{1 / rows[0]['p']:.2f}",
            *(_short(row) for row in rows),
        )
        for rows in zip(*by_name.values(), strict=True)
    ]
    return Grid(
        ("1/(1 − S)", "loss", "capacity", "D*", "represented", "features per hidden unit"),
        rows,
        "Measures at each density: mean over seeds and 95 % interval. Hidden units of this model "
        "have no privileged basis, so features per unit depend on an arbitrary rotation.",
    )


def _short(row: dict[str, Any]) -> str:
    bounds = f" [{row['low']:.3g}, {row['high']:.3g}]" if np.isfinite(row["low"]) else ""
    return f"{row['estimate']:.3g}{bounds}"


def tell_shapes(packing: Record) -> Told:
    """The sweep of equal importance: which shapes the features settle into."""
    lines: dict[float, dict[str, dict[str, Any]]] = {}
    for row in packing.tables["lines"].to_pylist():
        lines.setdefault(row["p"], {})[row["line"]] = row
    sentences = [_line_sentence(rows) for rows in lines.values()]
    n, m = packing.about["model"]["n"], packing.about["model"]["m"]
    drawn = {
        "uniform-dimensionality": figures.render(
            figures.dimensionality_scatter, packing.tables["features"]
        )
    }
    D = {row["p"]: row for row in _at(packing.tables["summary"], "dims_per_feature")}
    names = (*_LINES, "below 0.38")
    table = [
        (f"{1 / p:.2f}", measured(D[p], 3), *(percent(rows[name]) for name in names))
        for p, rows in lines.items()
    ]
    blocks: list[Block] = [
        Text(
            f"With {n} equally important features in {m} dimensions no feature is worth more "
            "than another, and what decides is geometry alone: features settle into orthogonal "
            "groups, each a regular shape whose members have the same share of a dimension."
        ),
        *[Text(sentence) for sentence in sentences],
        Picture(
            "uniform-dimensionality",
            "Share of a dimension of every represented feature, with the values of regular shapes.",
            " ".join(sentences),
        ),
        Grid(
            ("1/(1 − S)", "D*", *names),
            table,
            "D*, and the share of represented features whose dimensionality is within 0.02 of each "
            "value; 95 % intervals over seeds.",
        ),
        _shapes(packing.tables["shapes"], "Shapes found, by density"),
    ]
    short = "; ".join(_line_summary(rows) for rows in lines.values())
    finding = (
        f"The dimensionality of {n} equal features in {count(m, 'dimension')} as they become "
        f"rarer: {short}."
    )
    return Section("Shapes: what do equal features settle into?", blocks), [finding], drawn


_LINES = ("1", "3/4", "2/3", "1/2", "2/5", "3/8")
_NAMES = {
    "1": "dedicated",
    "3/4": "as in a tetrahedron",
    "2/3": "as in a triangle",
    "1/2": "as in a digon",
    "2/5": "as in a pentagon",
    "3/8": "as in a square antiprism",
}
COEXIST = 0.1
Rows = dict[str, dict[str, Any]]


def _common(rows: Rows) -> list[str]:
    """The values that at least a tenth of the features have, most frequent first."""
    names = [name for name in _LINES if rows[name]["estimate"] >= COEXIST]
    return sorted(names, key=lambda name: -rows[name]["estimate"])


def _line_summary(rows: Rows) -> str:
    common = _common(rows)
    parts = " and ".join(f"{name} ({percent(rows[name])})" for name in common)
    together = ", side by side" if len(common) > 1 else ""
    return f"{parts or 'no regular value'}{together} at 1/(1 − S) = {1 / rows['1']['p']:.3g}"


def _line_sentence(rows: Rows) -> str:
    common, any_row = _common(rows), rows["1"]
    at = f"At 1/(1 − S) = {1 / any_row['p']:.3g}"
    if not common:
        return (
            f"{at} no regular value holds a tenth of the {any_row['features']} represented "
            f"features; {percent(rows['below 0.38'])} of them have less than 0.38 of a dimension."
        )
    parts = [f"{percent(rows[name])} have {name} of a dimension, {_NAMES[name]}" for name in common]
    if len(common) == 1:
        return f"{at} the represented features agree: {parts[0]}."
    return f"{at} several shapes coexist: {'; '.join(parts)}."
