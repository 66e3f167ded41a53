"""What a long command shows while it works, on standard error: bars, plain lines and notices."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

errors = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where everything goes that is not a result."""


@runtime_checkable
class Reporter(Protocol):
    """Called as work goes on: of `total` things of a stage `done` are done and `failed` failed.

    `said` is how it goes, in words.
    """

    def __call__(self, stage: str, done: int, total: int, failed: int = 0, said: str = "") -> None:
        """Show it."""
        ...


@contextmanager
def notices(quiet: bool) -> Iterator[None]:
    """Show what the library has to say, such as that it compiles; when quiet, warnings only."""

    class Notices(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.print(record.getMessage(), markup=False)

    level = logging.WARNING if quiet else logging.INFO
    logger, handler = logging.getLogger("superpose"), Notices(level)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def bars(quiet: bool) -> Iterator[Reporter]:
    """Bars with rate and time left on a terminal, plain lines elsewhere, nothing when quiet.

    Rate and time left count from a stage's first report, which may tell of work done before.
    """
    if quiet:
        yield lambda stage, done, total, failed=0, said="": None
    elif errors.is_terminal:
        with _rich_bars() as tell:
            yield tell
    else:
        yield _plain_lines()


@contextmanager
def _rich_bars() -> Iterator[Reporter]:
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
        TextColumn("{task.fields[said]}"),
        console=errors,
    ) as shown:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int, failed: int = 0, said: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total, completed=done, said=said)
            words = f"{stage}, {failed} failed" if failed else stage
            shown.update(tasks[stage], completed=done, total=total, description=words, said=said)

        yield show


def _plain_lines(every: float = 5.0) -> Reporter:
    started: dict[str, tuple[float, int]] = {}
    going: set[str] = set()
    last: dict[str, float] = {}
    finished: dict[str, int] = {}

    def show(stage: str, done: int, total: int, failed: int = 0, said: str = "") -> None:
        now = monotonic()
        began, before = started.setdefault(stage, (now, done))
        if done > before and stage not in going:
            # The rate counts from the first news on: what came before was also starting up.
            going.add(stage)
            began, before = started[stage] = (now, done)
        soon = done < total and now - last.get(stage, 0.0) < every
        if finished.get(stage) == total or soon:  # of a refined sweep there is more in each round
            return
        if done == total:
            finished[stage] = total
        last[stage] = now
        spent, new = now - began, done - before
        left = f", {spent / new * (total - done):.0f} s left" if new > 0 and done < total else ""
        rate = f", {new / spent:.2f}/s" if spent > 0 and new > 0 else ""
        bad = f", {failed} failed" if failed else ""
        words = f"; {said}" if said else ""
        errors.print(f"{stage}: {done} of {total}{rate}{left}{bad}{words}", markup=False)

    return show
