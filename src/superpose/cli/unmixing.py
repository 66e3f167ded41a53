"""`superpose unmix`: sparse autoencoders of a person's own samples."""

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from superpose import progress
from superpose.cli.answers import (
    DONE,
    FAILED,
    AsJson,
    Quiet,
    UsageError,
    as_asked,
    output,
    resumable,
)

if TYPE_CHECKING:
    from superpose.unmix import SAE, Code, SAETraining
    from superpose.unmix.reconstruction import Reconstruction

HELD_OUT = 0.05
"""The share of the samples that is held out of training, to score on."""

Format = Literal["superpose", "saelens", "dictionary_learning", "sparsify"]

_SPARSITY = {
    "topk": "k",
    "batchtopk": "k",
    "matryoshka": "k",
    "mp": "k",
    "jumprelu": "l0",
    "l1": "coefficient",
    "gated": "coefficient",
}
_WIDER, _ACTIVE, _COEFFICIENT = 8, 32, 0.1


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOptions:
    """Which code, how wide and how sparse."""

    code: Annotated[
        Literal["topk", "batchtopk", "jumprelu", "l1", "gated", "matryoshka", "mp"],
        Parameter(help="How latents become sparse; mp is matching pursuit."),
    ] = "topk"
    d_sae: Annotated[
        int | None, Parameter(help="Latents; where not given, eight for each dimension.")
    ] = None
    k: Annotated[
        int | None,
        Parameter(help="Active latents a sample (topk, batchtopk, matryoshka, mp); 32."),
    ] = None
    l0: Annotated[
        float | None, Parameter(help="Active latents a sample aimed at (jumprelu); 32.")
    ] = None
    coefficient: Annotated[
        float | None,
        Parameter(help="Weight of the sparsity term (l1, gated), in normalised units; 0.1."),
    ] = None

    def made(self, d_in: int) -> "Code":
        """The code for samples of `d_in` dimensions; raises UsageError for options that clash."""
        from superpose import unmix

        kinds = {
            "topk": unmix.TopK,
            "batchtopk": unmix.BatchTopK,
            "jumprelu": unmix.JumpReLU,
            "l1": unmix.L1,
            "gated": unmix.Gated,
            "matryoshka": unmix.Matryoshka,
            "mp": unmix.MatchingPursuit,
        }
        name, d_sae = _SPARSITY[self.code], _WIDER * d_in if self.d_sae is None else self.d_sae
        for other in {"k", "l0", "coefficient"} - {name}:
            if getattr(self, other) is not None:
                raise UsageError(f"--{other} is not for --code {self.code}, which takes --{name}")
        active = min(_ACTIVE, max(1, d_sae // 2))
        usual = {"k": active, "l0": float(active), "coefficient": _COEFFICIENT}[name]
        given = getattr(self, name)
        return kinds[self.code](d_sae=d_sae, **{name: usual if given is None else given})


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How long, how fast and how often; what is not given is as in `SAETraining`."""

    samples: Annotated[int | None, Parameter(help="Samples to train on; 1,000,000.")] = None
    batch: Annotated[int | None, Parameter(help="Samples in a step; 512.")] = None
    lr: Annotated[float | None, Parameter(help="Learning rate of Adam; 0.005.")] = None
    seeds: Annotated[int, Parameter(help="Autoencoders to train, on the same batches.")] = 3
    seed: Annotated[int, Parameter(help="The seed of everything.")] = 0

    def made(self) -> "SAETraining":
        """The recipe; raises ValueError for what cannot be."""
        from superpose.unmix import SAETraining

        given = {name: getattr(self, name) for name in ("samples", "batch", "lr")}
        return SAETraining(**{name: each for name, each in given.items() if each is not None})


def unmix(
    data: Path,
    /,
    *,
    out: Path,
    code: CodeOptions = CodeOptions(),
    training: TrainingOptions = TrainingOptions(),
    target: Path | None = None,
    format: Format = "superpose",
    json_: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Train sparse autoencoders on your own samples, and score them on samples held out.

    5 % of the samples (at most 16,384) are held out of training. Run the same command again after
    an interruption and it goes on where it stopped, bit for bit.

    Parameters
    ----------
    data
        Samples [samples, d]: a .npy, .npz or .safetensors file, or a folder of them.
    out
        The folder of the results.
    target
        What to predict from the samples (a transcoder): a file or folder of as many rows.
    format
        Write the autoencoders in this format too.
    json_
        Print the scores as JSON on standard output.
    quiet
        No progress and no table.
    """
    from superpose import records
    from superpose.unmix import stream
    from superpose.unmix.reconstruction import reconstruction
    from superpose.unmix.training import unmix as train

    silent = quiet or json_
    with progress.notices(silent), progress.bars(silent) as tell:
        with as_asked(), resumable():
            found = stream.source(data, target, HELD_OUT)
            reporter = _Reporter(tell)
            sae = train(
                found,
                code.made(sum(found.widths)),
                training.made(),
                seeds=training.seeds,
                seed=training.seed,
                progress=reporter.progress,
                callback=reporter.callback,
                folder=out / "training",
            )
        scores = reconstruction(sae, *found.held_out())
    told = _described(sae, scores, out)
    sae.save(out / "sae")
    records.write_json(out / "scores.json", told)
    if format != "superpose":
        _export(sae, out / format, format)
    _print(told, found.origin.shuffling, json_, quiet)
    return _ended(sae)


def _ended(sae: "SAE") -> int:
    """A member that diverged is a failure; other advice is not."""
    from superpose.unmix.members import DIVERGED

    return FAILED if any(DIVERGED in said for said in sae.advice) else DONE


class _Reporter:
    """Tells how a training goes: the means over its members of their newest rows."""

    def __init__(self, tell: progress.Reporter) -> None:
        self._tell = tell
        self._rows: dict[int, dict[str, Any]] = {}

    def callback(self, row: dict[str, Any]) -> None:
        """Hear of a row of the history."""
        self._rows[row["run"]] = row

    def progress(self, done: int, total: int) -> None:
        """Hear of steps, and tell."""
        self._tell("training", done, total, said=self._words() if self._rows else "")

    def _words(self) -> str:
        def mean(name: str) -> float:
            return sum(row[name] for row in self._rows.values()) / len(self._rows)

        return (
            f"loss {mean('loss'):.4g}, L0 {mean('l0'):.3g}, explained variance "
            f"{mean('explained_variance'):.3g}, dead {mean('dead'):.1%}, "
            f"{mean('rate'):,.0f} samples/s"
        )


def _export(sae: "SAE", folder: Path, format: Format) -> None:
    """Write another format; what to mind about it is told, one sentence each."""
    with warnings.catch_warnings(record=True) as told, as_asked():
        warnings.simplefilter("always")
        sae.save(folder, format)
    for sentence in dict.fromkeys(str(each.message) for each in told):
        progress.errors.print(f"superpose: {sentence}", markup=False)


def _described(sae: "SAE", scores: "Reconstruction", out: Path) -> dict[str, Any]:
    """What became of it, as plain JSON values."""
    names = ("explained_variance", "l0", "dead")
    return {
        "sae": str(out / "sae"),
        "code": {"name": type(sae.code).__name__, **asdict(sae.code)},
        "seeds": len(sae),
        "held_out": scores.samples,
        **{name: asdict(scores.interval(name)) for name in names},
        "advice": list(sae.advice),
    }


def _print(told: dict[str, Any], shuffling: str, as_json: bool, quiet: bool) -> None:
    if as_json:
        from superpose.records.files import plain

        print(json.dumps(plain(told)))
        return
    for line in told["advice"]:
        progress.errors.print(f"superpose: {line}", markup=False)
    if quiet:
        return
    output.print(
        f"{told['seeds']} of {told['code']['name']}, {told['code']['d_sae']:,} latents; "
        f"{shuffling}; scored on {told['held_out']:,} samples held out",
        markup=False,
    )
    for name in ("explained_variance", "l0", "dead"):
        value = told[name]
        words = f"{name.replace('_', ' '):<20} {value['estimate']:.4g}"
        if told["seeds"] > 1:
            words += f" [{value['low']:.4g}, {value['high']:.4g}]"
        output.print(words, markup=False)
    output.print(f"Saved: {told['sae']}", markup=False)
