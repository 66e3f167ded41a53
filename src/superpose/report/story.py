"""The page of the main job, made from the records it left; it can be made again at any time."""

import json
from pathlib import Path
from typing import Any

from superpose import records
from superpose.report import Report, Section, Text, network, packing, render, unmixing

OURS = ("config.toml", "arrays.json", "provenance.json", "report.html", "findings.json")
SWEEPS = ("models/sweep.json", "uniform-models/sweep.json")
STAGES = ("packing", "shapes", "unmixing", "network")

METHOD = (
    "Losses are exact expected losses over the world's law. Intervals are 95 %, and over seeds: "
    "Student's t, or a bootstrap over whole seeds. Only those of the detection scores of names "
    "(AUC, precision, recall) are over the held-out samples. A change point is found in each seed "
    "on its own, and its interval includes the step of the grid of densities.",
    "A feature counts as represented when its norm is above 1/2, and as in superposition when its "
    "interference, the sum of squared cosines with the other features, is above 0.1.",
    "Dictionaries are trained on hidden activations only and never see the features. Those of toy "
    "models are scored on fresh samples. On the real network the measure of superposition is "
    "taken on held-out samples, but the explained variance of its dictionary on the samples that "
    "trained it.",
)


def write(folder: Path) -> list[str]:
    """Write report.html, the figures and findings.json into a folder of the main job; seal it.

    Returns the findings, one sentence each. Raises records.RecordError where a record is missing
    or damaged.
    """
    told = [
        packing.tell(records.load(folder / "packing")),
        packing.tell_shapes(records.load(folder / "shapes")),
        unmixing.tell(records.load(folder / "unmixing")),
        network.tell(records.load(folder / "network")),
    ]
    findings = [sentence for _, sentences, _ in told for sentence in sentences]
    drawn = {name: figure for _, _, figures in told for name, figure in figures.items()}
    provenance = _provenance(folder / "provenance.json")
    configuration = (folder / "config.toml").read_text("utf-8")
    report = Report(
        title="Superposition, from packing to naming",
        subtitle="What happens when more features than dimensions have to fit, and how to undo it",
        summary=findings,
        sections=[
            *(section for section, _, _ in told),
            Section("How this was measured", [Text(text) for text in METHOD]),
        ],
        manifest=provenance | {"configuration": configuration},
    )
    page = render(report, drawn)
    # From here on the files change, so that the old manifest would be over new files.
    records.unseal(folder)
    figures = [
        f"figures/{path.name}"
        for name, figure in drawn.items()
        for path in figure.write(folder / "figures", name)
    ]
    records.write_text(folder / "report.html", page)
    records.write_json(folder / "findings.json", {"findings": findings})
    # What else lies in the folder is the user's.
    ours = [name for name in (*OURS, *SWEEPS, *STAGES) if (folder / name).exists()]
    records.seal(folder, kind="main job", about=provenance, names=[*ours, *figures])
    return findings


def _provenance(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        raise records.RecordError(f"{path}: damaged; run the job again to write it") from None
