"""How commands answer: exit codes, the errors behind them, and where results go."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

DONE, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130

output = Console(highlight=False, soft_wrap=True)
"""Where results go."""

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")]


class UsageError(Exception):
    """Something the user asked for cannot be; exit code 2."""


class PartialError(Exception):
    """Not all is done, and the same command may do the rest; exit code 3."""


@contextmanager
def as_asked() -> Iterator[None]:
    """What the user gave is read in here, so a wrong value is theirs to mend."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


@contextmanager
def resumable() -> Iterator[None]:
    """A folder that cannot be read or written is mended by others; the sweep can then go on."""
    from superpose.records import RecordError

    try:
        yield
    except RecordError as error:
        cause = error.__cause__
        wrong = getattr(cause, "errno", None) in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
        if cause is None or wrong or isinstance(cause, ImportError | ValueError):
            raise
        raise PartialError(f"{error}; then run the same command again") from error
