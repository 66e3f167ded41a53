"""The command line: parse, call, print. Heavy modules load inside the commands that need them."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from superpose import __version__

if TYPE_CHECKING:
    from superpose.experiments.configuration import Configuration

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_errors = Console(stderr=True, highlight=False, soft_wrap=True)
_output = Console(highlight=False, soft_wrap=True)

app = App(
    name="superpose",
    help="A laboratory for superposition: pack features into too few dimensions, see the phases, "
    "un-mix them, and measure your own network.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)


AsJson = Annotated[bool, Parameter(name="--json", negative="")]


class UsageError(Exception):
    """Something the user asked for cannot be; exit code 2."""


@contextmanager
def _as_asked() -> Iterator[None]:
    """What the user gave is read in here, so a wrong value is theirs to mend."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


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
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
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
    with _notices(quiet or json_), _progress(quiet or json_) as progress:
        findings = _main_job(settings, text, out, (activations, labels), progress)
    _print_findings(findings, out, json_, quiet)
    return DONE


def _main_job(
    settings: "Configuration",
    text: str,
    out: Path,
    arrays: tuple[Path | None, Path | None],
    progress: "Reporter",
) -> list[str]:
    from superpose import engine, records
    from superpose.experiments import main, network
    from superpose.report import story

    activations, labels = arrays
    with _as_asked():
        engine.threads()
        own = network.own_arrays(activations, labels) if activations else None
    main.run(settings, text, out, own=own, progress=progress)
    words = ["superpose", "run", "config.toml"]
    words += ["--activations", str(activations)] if activations else []
    words += ["--labels", str(labels)] if labels else []
    provenance = main.provenance(shlex.join(words))
    if records.is_complete(out, provenance):
        return json.loads((out / "findings.json").read_text("utf-8"))["findings"]
    records.unseal(out)
    records.write_json(out / "provenance.json", provenance)
    progress("report", 0, 1)
    findings = story.write(out)
    progress("report", 1, 1)
    return findings


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
def verify(folder: Path, /, *, json_: AsJson = False) -> int:
    """Check every file of a result folder against its digest; exit code 1 where one has changed.

    Parameters
    ----------
    folder
        A folder of results.
    json_
        Print the problems as JSON on standard output.
    """
    from superpose import records

    problems = records.verify(folder)
    if json_:
        print(json.dumps({"folder": str(folder), "problems": problems}))
    else:
        for problem in problems:
            _errors.print(f"[red]damaged[/] {problem}")
        if not problems:
            _output.print(f"{folder}: every file is as it was written")
    return FAILED if problems else DONE


@app.command
def doctor(*, json_: AsJson = False) -> int:
    """What is installed, which device and threads would be used, and where can be written.

    Parameters
    ----------
    json_
        Print the findings as JSON on standard output.
    """
    from superpose import diagnosis

    with _as_asked():
        found = diagnosis.examine()
    if json_:
        print(json.dumps(found, indent=2))
        return DONE
    for section, facts in found.items():
        _output.print(f"[bold]{section}[/]")
        for name, value in facts.items():
            _output.print(f"  {name:<22} {value}", markup=False)
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
        _output.print(table)
        _output.print(f"Report: {page}", markup=False)


Reporter = Callable[[str, int, int], None]


@contextmanager
def _notices(quiet: bool) -> Iterator[None]:
    """Show what the library has to say, such as that it compiles, unless quiet."""
    import logging

    class Notices(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _errors.print(record.getMessage(), markup=False)

    logger, notices = logging.getLogger("superpose"), Notices(logging.INFO)
    before = logger.level
    if not quiet:
        logger.setLevel(logging.INFO)
        logger.addHandler(notices)
    try:
        yield
    finally:
        logger.removeHandler(notices)
        logger.setLevel(before)


@contextmanager
def _progress(quiet: bool) -> Iterator[Reporter]:
    """Bars with rate and time left on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet:
        yield lambda stage, done, total: None
    elif _errors.is_terminal:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.2g}/s" if task.speed else "")

        with Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_errors,
        ) as bars:
            tasks: dict[str, Any] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield show
    else:
        yield _plain_lines()


def _plain_lines(every: float = 5.0) -> Reporter:
    from time import monotonic

    started: dict[str, float] = {}
    last: dict[str, float] = {}

    def show(stage: str, done: int, total: int) -> None:
        now = monotonic()
        started.setdefault(stage, now)
        if done < total and now - last.get(stage, 0.0) < every:
            return
        last[stage] = now
        spent = now - started[stage]
        left = f", {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        rate = f", {done / spent:.2f}/s" if spent > 0 and done else ""
        _errors.print(f"{stage}: {done} of {total}{rate}{left}", markup=False)

    return show


def main() -> None:
    """Run the command line; every foreseen failure is one sentence and an exit code."""
    try:
        code = app(exit_on_error=False, print_error=False, result_action="return_value")
        sys.exit(code if isinstance(code, int) else DONE)
    except CycloptsError as error:
        _fail(str(error), USAGE)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on", INTERRUPTED)
    except UsageError as error:
        _fail(str(error), USAGE)
    except Exception as error:
        _fail(*_foreseen(error))


def _foreseen(error: Exception) -> tuple[str, int]:
    """The sentence and exit code of a failure that users can cause; others are raised again."""
    from superpose.experiments.configuration import ConfigurationError
    from superpose.records import RecordError

    if isinstance(error, ConfigurationError):
        return str(error), USAGE
    if isinstance(error, RecordError | OSError):
        return str(error), FAILED
    if isinstance(error, ValueError):
        return f"the job failed: {error}", FAILED
    raise error


def _fail(sentence: str, code: int) -> None:
    _errors.print(f"superpose: {sentence}", markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
