"""`superpose bench`: codes held against worlds whose truth is known."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from superpose import progress
from superpose.cli.answers import DONE, AsJson, Quiet, as_asked, output

if TYPE_CHECKING:
    from superpose.experiments.saebench import Bench, Findings

bench = App(name="bench", help="Hold what is built here against worlds whose truth is known.")

_QUICK = {"worlds": ("linear",), "codes": ("L1", "TopK"), "samples": 60_000, "seeds": 2}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is held against what; what is not given is as in the defaults of the bench."""

    worlds: Annotated[
        tuple[str, ...] | None,
        Parameter(
            help="linear, zipf, hierarchy, toy, synthsaebench; all.",
            consume_multiple=True,
            negative="",
        ),
    ] = None
    codes: Annotated[
        tuple[str, ...] | None,
        Parameter(
            help="L1, TopK, BatchTopK, JumpReLU, Gated, Matryoshka, MatchingPursuit; all.",
            consume_multiple=True,
            negative="",
        ),
    ] = None
    l0: Annotated[
        tuple[float, ...] | None,
        Parameter(
            help="Wanted numbers of active latents; ½, 1 and 2 times each world's own.",
            consume_multiple=True,
            negative="",
        ),
    ] = None
    d_sae: Annotated[int | None, Parameter(help="Latents; as many as a world has features.")] = None
    samples: Annotated[int | None, Parameter(help="Samples to train on; 300,000.")] = None
    seeds: Annotated[int | None, Parameter(help="Worlds of each law, and trainings; 3.")] = None
    seed: Annotated[int, Parameter(help="The first of the seeds.")] = 0

    def made(self, quick: bool) -> "Bench":
        """The bench asked for; raises ValueError for what cannot be."""
        from superpose.experiments.saebench import Bench

        names = ("worlds", "codes", "l0", "d_sae", "samples", "seeds")
        given = {name: getattr(self, name) for name in names}
        chosen = {name: value for name, value in given.items() if value is not None}
        return Bench(**(_QUICK if quick else {}) | chosen, seed=self.seed)


@bench.command
def sae(
    *,
    options: BenchOptions = BenchOptions(),
    out: Path = Path("superpose-bench-sae"),
    quick: Annotated[bool, Parameter(negative="")] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Sparse autoencoders on worlds whose truth is known: codes by L0 by worlds by seeds.

    Writes one table of scores, its means with intervals over seeds, which codes can be told apart
    by so many seeds, and figures. What is done stays done: run the same command again after an
    interruption, or with more codes, and it does the rest.

    Parameters
    ----------
    out
        The folder of the results.
    quick
        A small bench that shows that it works: two codes on one world.
    json_
        Print the findings as JSON on standard output.
    quiet
        No progress and no summary.
    """
    from superpose.experiments import saebench

    with as_asked():
        asked = options.made(quick)
    with progress.notices(quiet or json_), progress.bars(quiet or json_) as tell:

        def hear(done: int, total: int, where: str) -> None:
            tell("bench", done, total, said=where)

        found = saebench.run(asked, out, hear)
    _print(found, out, json_, quiet)
    return DONE


def _print(found: "Findings", out: Path, as_json: bool, quiet: bool) -> None:
    table = str(out / "table" / "results.parquet")
    if as_json:
        told = {"findings": found.sentences, "notes": found.notes, "table": table}
        print(json.dumps(told | {"figures": [str(file) for file in found.figures]}))
        return
    for line in found.notes:
        progress.errors.print(f"superpose: {line}", markup=False)
    if not quiet:
        for line in found.sentences:
            output.print(line, markup=False)
        output.print(f"Table: {table}", markup=False)
        output.print(f"Figures: {out / 'figures'}", markup=False)
