"""The bench: every cell that is not there yet, then one table, its summary and its figures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from superpose import records
from superpose.experiments.saebench.cells import BASELINES, Cell, measure
from superpose.experiments.saebench.codes import CODES
from superpose.experiments.saebench.comparison import differences, sentences
from superpose.experiments.saebench.intervals import over_seeds
from superpose.experiments.saebench.worlds import WORLDS
from superpose.figures import render
from superpose.figures.saebench import bench_curves, confusion_maps
from superpose.sweep.stages import stage

Progress = Callable[[int, int, str], None]
"""Called with (samples trained, samples in all, where it is)."""

_NOT_SCORES = ("world", "dictionary", "wanted", "setting", "seed", "latents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Codes × L0 × worlds × seeds.

    A seed is a world, its samples and first weights. `l0` are wanted numbers of active latents,
    none for ½, 1 and 2 times the number of active features of each world; `d_sae` none for as
    many latents as features; `samples` are seen by each dictionary and `scored` by its scores.
    Raises ValueError for names that there are not, and for numbers below 1.
    """

    worlds: tuple[str, ...] = tuple(WORLDS)
    codes: tuple[str, ...] = CODES
    l0: tuple[float, ...] | None = None
    d_sae: int | None = None
    samples: int = 300_000
    seeds: int = 3
    seed: int = 0
    scored: int = 10_000
    batch: int = 512
    lr: float = 5e-3

    def __post_init__(self) -> None:
        for name, given, known in (
            ("worlds", self.worlds, tuple(WORLDS)),
            ("codes", self.codes, CODES),
        ):
            strange = [each for each in given if each not in known]
            if strange or not given or len(set(given)) < len(given):
                raise ValueError(
                    f"Bench({name}={list(given)}): {name} are among {', '.join(known)}, each once"
                )
        self._check_numbers()

    def _check_numbers(self) -> None:
        numbers = (self.samples, self.seeds, self.scored, self.batch, self.d_sae or 1)
        if min(numbers) < 1 or not 0 <= self.seed < 2**31 or (self.l0 and min(self.l0) < 1):
            raise ValueError(
                f"Bench(samples={self.samples}, scored={self.scored}, seeds={self.seeds}, "
                f"seed={self.seed}, l0={self.l0}, d_sae={self.d_sae}): all are at least 1, but a "
                "seed may be 0"
            )
        if self.l0 and self.d_sae and max(self.l0) > self.d_sae:
            raise ValueError(
                f"Bench(l0={self.l0}, d_sae={self.d_sae}): more active latents than there are"
            )

    def cells(self) -> list[Cell]:
        """World by world, the baselines first."""
        return [
            Cell(
                world=world,
                code=code,
                seed=self.seed + number,
                l0=self.l0,
                d_sae=self.d_sae,
                samples=self.samples,
                batch=self.batch,
                lr=self.lr,
                scored=self.scored,
            )
            for world in self.worlds
            for code in (BASELINES, *self.codes)
            for number in range(self.seeds)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What the bench found: `results` a row a dictionary, means over seeds, and comparisons.

    `figures` are the files drawn, `notes` what trainings said.
    """

    results: pa.Table
    summary: pa.Table
    differences: pa.Table
    sentences: list[str]
    notes: list[str]
    figures: list[Path]


def run(bench: Bench, out: str | Path, progress: Progress | None = None) -> Findings:
    """Do what of the bench is not in folder `out` yet, and write its table and figures there.

    Each cell is a record in `out/cells`; the table `results.parquet`, its `summary` and the
    `differences` are the record `out/table`, figures lie in `out/figures`. Raises RecordError
    where the folder cannot be written, KeyboardInterrupt when interrupted: what was done stays.
    """
    out, cells = Path(out), bench.cells()
    tables, maps, notes = [], {}, []
    for number, cell in enumerate(cells):
        folder = out / "cells" / cell.world / cell.code / f"seed-{cell.seed}"
        where = f"{cell.world}, {cell.code}, seed {cell.seed}"
        tell = _share(progress, number, len(cells), where)
        tell(0, 1)
        stage(folder, cell.made_from(), lambda to, made, c=cell, t=tell: measure(c, to, made, t))
        tell(1, 1)
        record = records.load(folder)
        notes += [f"{where}: {said}" for said in record.about["notes"]]
        tables.append(_named(record.tables["scores"], cell))
        if "map" in record.tables and cell.seed == bench.seed:
            maps[cell.world, cell.code] = record.tables["map"]
    results = pa.concat_tables(tables, promote_options="default")
    quantities = [name for name in results.column_names if name not in _NOT_SCORES]
    kept = results.select(["world", "dictionary", "wanted", "seed", *quantities])
    summary = over_seeds(kept, ["world", "dictionary", "wanted"])
    compared = differences(results, bench.codes)
    said = sentences(compared, bench.seeds)
    records.save(
        out / "table",
        kind="saebench",
        about={"cells": [cell.made_from() for cell in cells], "findings": said, "notes": notes},
        tables={"results": results, "summary": summary, "differences": compared},
    )
    figures = _draw(summary, maps, out / "figures")
    return Findings(results, summary, compared, said, notes, figures)


def _share(
    progress: Progress | None, number: int, cells: int, where: str
) -> Callable[[int, int], None]:
    """Progress within a cell, in thousandths of it."""

    def hear(done: int, total: int) -> None:
        if progress is not None:
            progress(1000 * number + 1000 * done // total, 1000 * cells, where)

    return hear


def _named(table: pa.Table, cell: Cell) -> pa.Table:
    rows = table.num_rows
    table = table.add_column(0, "seed", pa.array([cell.seed] * rows, pa.int64()))
    return table.add_column(0, "world", pa.array([cell.world] * rows))


def _draw(summary: pa.Table, maps: dict[tuple[str, str], pa.Table], folder: Path) -> list[Path]:
    written = []
    for name, scores in (
        ("recovery", ("firing_f1", "mcc", "recall")),
        ("explained", ("explained_variance", "absorption")),
    ):
        written += render(bench_curves, summary, scores).write(folder, name)
    world = "hierarchy" if any(place == "hierarchy" for place, _ in maps) else next(iter(maps))[0]
    shown = {code: table for (place, code), table in maps.items() if place == world}
    written += render(confusion_maps, shown, world).write(folder, "confusion")
    return written
