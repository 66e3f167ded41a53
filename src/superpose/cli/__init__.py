"""The command line: parse, call, print. Heavy modules load inside the commands that need them."""

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.markup import escape

from superpose import __version__, progress
from superpose.cli.answers import (
    DONE,
    FAILED,
    INTERRUPTED,
    PARTIAL,
    USAGE,
    AsJson,
    PartialError,
    Quiet,
    UsageError,
    as_asked,
    output,
    resumable,
)
from superpose.cli.benching import bench
from superpose.cli.unmixing import unmix

if TYPE_CHECKING:
    from superpose.experiments.configuration import Configuration
    from superpose.sweep.configuration import SweepConfiguration
    from superpose.sweep.run import Outcome
    from superpose.sweep.store import Sweep

app = App(
    name="superpose",
    help="A laboratory for superposition: pack features into too few dimensions, see the phases, "
    "un-mix them, and measure your own network.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
app.command(unmix)
app.command(bench)


@app.command
def run(
    config: Path | None = None,
    /,
    *,
    out: Path = Path("superpose-run"),
    activations: Path | None = None,
    labels: Path | None = None,
    seed: int | None = None,
    show_config: Annotated[bool, Parameter(negative="")] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """The main job: from sparse features to named features, ending in one report.

    Trains toy models over a range of sparsity, finds where superposition begins and what shapes
    it takes, un-mixes it with sparse autoencoders, and does the same to a real network. Run the
    same command again after an interruption and it goes on where it stopped.

    Parameters
    ----------
    config
        A TOML file; what it leaves out keeps its default. See --show-config.
    out
        The folder of the results.
    activations
        Your own activations [samples, units] in place of the digits: .npy, .npz or .safetensors.
    labels
        One label for each sample of --activations, in a file of the same kinds.
    seed
        The seed of everything, in place of the configuration's.
    show_config
        Print the default configuration and stop.
    json_
        Print the findings as JSON on standard output.
    quiet
        No progress and no table.
    """
    from superpose.experiments import configuration

    if show_config:
        print(configuration.default_text(), end="")
        return DONE
    if labels is not None and activations is None:
        raise UsageError("--labels goes with --activations")
    settings, text = configuration.read_with_seed(config, seed)
    with progress.notices(quiet or json_), progress.bars(quiet or json_) as tell:
        findings = _main_job(settings, text, out, (activations, labels), tell)
    _print_findings(findings, out, json_, quiet)
    return DONE


def _main_job(
    settings: "Configuration",
    text: str,
    out: Path,
    arrays: tuple[Path | None, Path | None],
    tell: progress.Reporter,
) -> list[str]:
    from superpose import engine, records
    from superpose.experiments import main, network
    from superpose.report import story

    activations, labels = arrays
    with as_asked():
        engine.threads()
        own = network.own_arrays(activations, labels) if activations else None
    main.run(settings, text, out, own=own, progress=tell)
    words = ["superpose", "run", "config.toml"]
    words += ["--activations", str(activations)] if activations else []
    words += ["--labels", str(labels)] if labels else []
    provenance = main.provenance(shlex.join(words), out)
    if records.is_complete(out, provenance):
        return json.loads((out / "findings.json").read_text("utf-8"))["findings"]
    records.unseal(out)
    records.write_json(out / "provenance.json", provenance)
    tell("report", 0, 1)
    findings = story.write(out)
    tell("report", 1, 1)
    return findings


@app.command
def sweep(
    config: Path | None = None,
    /,
    *,
    out: str = "superpose-sweep",
    seed: int | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    executor: Literal["local", "ray", "here"] = "local",
    workers: int | None = None,
    address: str | None = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Train every model of a plan, on this machine or many, and lose none.

    What is done stays done: run the same command again after an interruption, on this machine or
    beside another that is at it, and it does the rest. Ctrl-C once finishes the shards in
    training, twice stops. Exit code 3 says that models are missing: run it again.

    Parameters
    ----------
    config
        A TOML file with the plan; without it, the sweep in --out goes on.
    out
        The folder of the sweep, or its URL on object storage.
    seed
        The seed of everything, in place of the configuration's.
    dry_run
        Print models, shards, time, bytes and cost, and stop.
    executor
        "local": processes on this machine. "ray": a cluster. "here": this process alone.
    workers
        Processes at a time; where not given, one for each core.
    address
        The address of the Ray cluster; where not given, one is started on this machine.
    json_
        Print the outcome as JSON on standard output.
    quiet
        No progress and no summary.
    """
    from superpose.sweep.executors import executor_of
    from superpose.sweep.run import run as carry_on

    with as_asked():
        chosen = executor_of(executor, workers, address)
    with progress.notices(quiet or json_), resumable():
        if dry_run:
            return _dry_run(_settings(config, seed, out), out, workers, json_)
        found = _sweep(config, seed, out, workers)
        with progress.bars(quiet or json_) as tell, as_asked():
            outcome = carry_on(found, chosen, partial(tell, "models"))
    return _print_outcome(outcome, out, json_, quiet)


def _sweep(config: Path | None, seed: int | None, out: str, workers: int | None = None) -> "Sweep":
    """The sweep of a folder, made there where there is none."""
    from superpose.sweep.store import Sweep

    if config is not None:
        return Sweep.create(out, _settings(config, seed, out), cores=workers)
    if seed is not None:
        raise UsageError("--seed goes with a configuration; the sweep in --out has its own")
    return Sweep.open(out)


def _settings(config: Path | None, seed: int | None, out: str) -> "SweepConfiguration":
    from superpose.sweep import configuration

    if config is None:
        return _sweep(None, seed, out).plan.configuration
    values = configuration.read_toml(config)
    return configuration.parse(values | ({} if seed is None else {"seed": seed}), str(config))


def _dry_run(settings: "SweepConfiguration", out: str, workers: int | None, as_json: bool) -> int:
    from superpose.sweep import words

    found, there = words.estimates(settings, workers), words.models_there(out, settings)
    if as_json:
        print(json.dumps(words.describe_estimates(found) | {"models_there": there}))
    else:
        for name, said in words.estimate_lines(found):
            output.print(f"{name:<7} {said}", markup=False)
        if there:
            output.print(
                f"there   {there:,} models in {out}, not to be trained again", markup=False
            )
    return DONE


def _print_outcome(outcome: "Outcome", where: str, as_json: bool, quiet: bool) -> int:
    from superpose.sweep import words

    if as_json:
        print(json.dumps(words.describe_outcome(outcome, where)))
    else:
        for line in words.troubles(outcome):
            progress.errors.print(f"superpose: {line}", markup=False)
        if not quiet:
            output.print(words.progress_line(outcome, where), markup=False)
    if outcome.complete:
        return DONE
    return PARTIAL if outcome.resumable else FAILED


@app.command
def report(folder: Path, /, *, json_: AsJson = False) -> int:
    """Write the report of a finished job again, from the records in its folder.

    Parameters
    ----------
    folder
        The folder that `superpose run --out` wrote.
    json_
        Print the findings as JSON on standard output.
    """
    from superpose.report import story

    _print_findings(story.write(folder), folder, json_, quiet=False)
    return DONE


@app.command
def verify(
    folder: str,
    /,
    *,
    reindex: Annotated[bool, Parameter(negative="")] = False,
    json_: AsJson = False,
) -> int:
    """Check every file of a result folder against its digest; exit code 1 where one has changed.

    Parameters
    ----------
    folder
        A folder of results, a sweep, or a sweep's URL such as s3://bucket/sweep.
    reindex
        Write the indices of sweeps anew, and remove what killed attempts left an hour ago or more.
    json_
        Print the problems as JSON on standard output.
    """
    from superpose.sweep import verification

    found = verification.verify(folder, reindex=reindex)
    if json_:
        said = {"folder": folder, "problems": found.problems, "leftovers": found.leftovers}
        print(json.dumps(said))
        return FAILED if found.problems else DONE
    for problem in found.problems:
        progress.errors.print(f"[red]wrong:[/] {escape(problem)}")
    for leftover in found.leftovers:
        progress.errors.print(f"left by an attempt that was killed, never read: {escape(leftover)}")
    if not found.problems:
        output.print(f"{folder}: every file is as it was written", markup=False)
    return FAILED if found.problems else DONE


@app.command
def doctor(*, json_: AsJson = False) -> int:
    """What is installed, which device and threads would be used, and where can be written.

    Parameters
    ----------
    json_
        Print the findings as JSON on standard output.
    """
    from superpose import diagnosis

    with as_asked():
        found = diagnosis.examine()
    if json_:
        print(json.dumps(found, indent=2))
        return DONE
    for section, facts in found.items():
        output.print(f"[bold]{section}[/]")
        for name, value in facts.items():
            output.print(f"  {name:<22} {value}", markup=False)
    return DONE


def _print_findings(findings: list[str], out: Path, as_json: bool, quiet: bool) -> None:
    page = out / "report.html"
    if as_json:
        print(json.dumps({"findings": findings, "report": str(page)}, ensure_ascii=False))
    elif not quiet:
        from rich.table import Table

        table = Table(show_header=False, box=None, padding=(0, 1, 1, 0))
        for number, finding in enumerate(findings, 1):
            table.add_row(str(number), finding)
        output.print(table)
        output.print(f"Report: {page}", markup=False)


def main() -> None:
    """Run the command line; every foreseen failure is one sentence and an exit code."""
    try:
        told = {"exit_on_error": False, "print_error": False, "result_action": "return_value"}
        code = app(sys.argv[1:], **told)
        sys.exit(code if isinstance(code, int) else DONE)
    except CycloptsError as error:
        _fail(str(error), USAGE)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on", INTERRUPTED)
    except UsageError as error:
        _fail(str(error), USAGE)
    except PartialError as error:
        _fail(str(error), PARTIAL)
    except Exception as error:
        _fail(*_foreseen(error))


def _foreseen(error: Exception) -> tuple[str, int]:
    """The sentence and exit code of a failure that users can cause; others are raised again."""
    from superpose.records import RecordError
    from superpose.sweep.sections import ConfigurationError

    if isinstance(error, ConfigurationError):
        return str(error), USAGE
    if isinstance(error, RecordError | OSError):
        return str(error), FAILED
    if isinstance(error, ValueError):
        return f"the job failed: {error}", FAILED
    raise error


def _fail(sentence: str, code: int) -> None:
    progress.errors.print(f"superpose: {sentence}", markup=False)
    sys.exit(code)
