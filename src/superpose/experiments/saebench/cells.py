"""One cell of the bench: a code, or the baselines, on one world of one seed, as a record."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from superpose import records
from superpose.experiments.saebench.codes import codes_for, pilots
from superpose.experiments.saebench.scores import head, scored
from superpose.experiments.saebench.worlds import WORLDS
from superpose.truth import Mixture
from superpose.unmix import (
    Dictionary,
    OrthogonalPursuit,
    SAETraining,
    ica,
    neurons,
    pca,
    random_dictionary,
    sparse_dictionary,
    unmix,
)

BASELINES = "baselines"
"""The name of the cell with what needs no training of ours, and with the oracle."""

ORACLE = "oracle"
_FITTED = 8_192  # samples that the baselines are fitted to
_SOLVED = 2_000
_WAY = 2  # raised whenever equal cells would have other scores than before
_TOLD = 100  # a training's part of the progress that is told
_HELD = 2**31  # seeds of the samples that are scored lie beyond those of training

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a cell is made from: equal cells have equal scores.

    `l0` are the wanted numbers of active latents, none for ½, 1 and 2 times the world's own;
    `d_sae` is none for as many latents as features.
    """

    world: str
    code: str
    seed: int
    l0: tuple[float, ...] | None
    d_sae: int | None
    samples: int
    batch: int
    lr: float
    scored: int

    @property
    def training(self) -> SAETraining:
        """The recipe of all dictionaries of the cell."""
        # A latent gets its second chance some times in a training, however short it is.
        silent = max(1, self.samples // 20)
        return SAETraining(samples=self.samples, batch=self.batch, lr=self.lr, dead_after=silent)

    def made_from(self) -> dict[str, Any]:
        """The same as plain data, and in which way cells are made."""
        return {"way": _WAY} | {
            name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()
        }


def measure(
    cell: Cell, folder: Path, made_from: dict[str, Any], progress: Progress | None = None
) -> None:
    """Train and score the dictionaries of a cell, into a record.

    The table "scores" has a row each: dictionary, wanted (L0, none where a dictionary has no such
    choice), setting, and the scores; "map" the maps of confusion, by `wanted`. Baselines are
    solved for sample by sample, so they are scored on 2,000 samples at most.
    """
    world = WORLDS[cell.world](cell.seed)
    held = world.sample(cell.scored, _HELD + cell.seed)
    l0 = wanted(cell, float(world.probability.sum()))
    d_sae = cell.d_sae or world.n
    rows, maps = [], []
    with _convergence() as notes:
        if cell.code == BASELINES:
            entries = _baselines(world, d_sae, l0, cell.seed)
            held = head(held, min(_SOLVED, len(held)))
        else:
            entries = _trained(cell, world, d_sae, l0, progress)
        for name, level, setting, dictionary in entries:
            scores, found = scored(dictionary, world, held, solved=cell.code != BASELINES)
            notes += [f"{name} {setting}: {said}" for said in getattr(dictionary, "advice", ())]
            about = {"dictionary": name, "wanted": level, "setting": setting, "latents": d_sae}
            rows.append(about | scores)
            if cell.code != BASELINES:
                column = pa.array(np.full(len(found), level), pa.float64())
                maps.append(found.set_column(0, "wanted", column))
    records.save(
        folder,
        kind="saebench-cell",
        about={"made_from": made_from, "notes": notes, "true_l0": held.l0()},
        tables={"scores": _table(rows)} | ({"map": pa.concat_tables(maps)} if maps else {}),
    )


def wanted(cell: Cell, own: float) -> tuple[float, ...]:
    """The numbers of active latents asked for, whole ones; by default about a world's own.

    >>> made = dict(seed=0, d_sae=None, samples=1, batch=1, lr=0.01, scored=1)
    >>> wanted(Cell(world="linear", code="TopK", l0=None, **made), 4.0)
    (2.0, 4.0, 8.0)
    """
    given = (own / 2, own, own * 2) if cell.l0 is None else cell.l0
    return tuple(dict.fromkeys(float(max(1, round(level))) for level in given))


Entries = list[tuple[str, float | None, str, Dictionary]]


def _trained(
    cell: Cell, world: Mixture, d_sae: int, l0: Sequence[float], progress: Progress | None
) -> Entries:
    before = pilots(cell.code, len(l0))
    trainings = before + len(l0)

    def hear(done: float) -> None:
        if progress is not None:
            progress(round(_TOLD * done), _TOLD * trainings)

    codes = codes_for(cell.code, world, d_sae, l0, (cell.training, cell.seed), hear)
    stacks = unmix(
        world,
        codes,
        cell.training,
        seeds=1,
        seed=cell.seed,
        progress=lambda done, total: hear(before + len(l0) * done / total),
    )
    return [
        (cell.code, level, str(code), stack)
        for level, code, stack in zip(l0, codes, stacks, strict=True)
    ]


def _baselines(world: Mixture, d_sae: int, l0: Sequence[float], seed: int) -> Entries:
    """Dictionaries without a choice of L0, and the oracle at each."""
    # What scikit-learn takes grows with latents times samples.
    x = world.sample(min(_FITTED, 2**20 // d_sae), seed).x
    truth = world.directions / world.directions.norm(dim=-1, keepdim=True)
    entries: Entries = [
        ("neurons", None, "", neurons(world.d)),
        ("random", None, "", random_dictionary(world.d, d_sae, seed)),
        ("PCA", None, "", pca(x)),
        ("ICA", None, "", ica(x, seed)),
        ("sparse dictionary", None, "", sparse_dictionary(x, d_sae, seed=seed)),
    ]
    return entries + [
        (ORACLE, level, "", OrthogonalPursuit(truth, world.bias, int(level))) for level in l0
    ]


@contextmanager
def _convergence() -> Iterator[list[str]]:
    """Gather in notes, once, that scikit-learn solved for something less closely than it wants."""
    from sklearn.exceptions import ConvergenceWarning

    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield notes
    if caught:
        notes.append(f"sparse dictionary: {len(caught)} solves ended before their tolerance")


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    place = table.column_names.index("wanted")
    return table.set_column(place, "wanted", table["wanted"].cast(pa.float64()))
