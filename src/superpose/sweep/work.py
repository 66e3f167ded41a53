"""One shard: train it, write it, and say what became of it.

Whoever has a shard trained, in a thread, in a process or on another machine, does so by
`attempt`, and speaks of it by the events here.
"""

import errno
import json
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple, Protocol, runtime_checkable

from superpose.engine import train
from superpose.records import RecordError
from superpose.sweep.store import Sweep


class Ticked(NamedTuple):
    """Of a shard in training, so many models are done by now."""

    shard: int
    models: int


class Finished(NamedTuple):
    """A shard is in the store."""

    shard: int


class Failed(NamedTuple):
    """A shard is not in the store: why, and whether another attempt may go better."""

    shard: int
    sentence: str
    again: bool


class Dropped(NamedTuple):
    """A shard was let go before it began."""

    shard: int


class Broken(NamedTuple):
    """No shard can be done, such as where the disk is full."""

    sentence: str


Event = Ticked | Finished | Failed | Dropped | Broken


@runtime_checkable
class Pool(Protocol):
    """What trains shards, at most `window` at a time."""

    @property
    def window(self) -> int:
        """Shards in flight at most; may change as machines come and go."""
        ...

    def submit(self, shard: int) -> None:
        """Have a shard trained and written; returns at once."""
        ...

    def hear(self, timeout: float) -> Sequence[Event]:
        """What became of shards since; waits up to `timeout` seconds for the first news."""
        ...

    def drain(self) -> None:
        """No more will come: let go of what has not begun, each told of as `Dropped`."""
        ...

    def close(self, *, now: bool) -> None:
        """End it, after the shards in flight or `now`."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Where shards are trained: a choice without state, which starts a `Pool`."""

    def start(self, where: str) -> Pool:
        """A pool for the sweep in the folder `where`."""
        ...


# Trying again at once does not mend these.
_LASTING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
}


def carry_out(sweep: Sweep, number: int, tell: Callable[[int], None]) -> None:
    """Train shard `number` and write it, unless it is there already.

    `tell` is called with the number of its models that are done by now. Raises RecordError where
    it cannot be written, and ValueError where it cannot be trained.
    """
    if sweep.is_done(number):
        return
    shard, configuration = sweep.plan.shard(number), sweep.plan.configuration
    cells = [sweep.plan.cell(cell) for cell in shard.cells]
    restarts = configuration.restarts
    began = monotonic()
    run = train(
        cells[0].model,
        [cell.world for cell in cells],
        cells[0].training,
        runs=shard.runs,
        seed=configuration.seed,
        restarts=restarts,
        progress=lambda done, total: tell(done // restarts),
    )
    sweep.write(shard, run, monotonic() - began)


class Source:
    """The sweep in a folder, opened when it is first needed and kept.

    A shard that the plan lacks is one of a later round of refinement, for which it is opened again.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._sweep: Sweep | None = None

    def sweep(self, number: int) -> Sweep:
        """The sweep, such that it has shard `number`; raises RecordError if it cannot be read."""
        if self._sweep is None or number >= self._sweep.plan.shards:
            self._sweep = Sweep.open(self._where)
        return self._sweep


def attempt(source: Source, number: int, tell: Callable[[int], None]) -> Finished | Failed | Broken:
    """Open the sweep and carry the shard out, with every failure as an event, not an exception."""
    try:
        sweep = source.sweep(number)
    except (RecordError, OSError, ValueError) as error:
        return Broken(str(error))
    try:
        carry_out(sweep, number, tell)
    except (RecordError, OSError) as error:
        return _unwritten(number, error)
    except MemoryError as error:
        return Failed(number, f"out of memory ({error})" if str(error) else "out of memory", True)
    # Whatever else a shard can raise must not take the others down with it.
    except Exception as error:
        return Failed(number, f"{type(error).__name__}: {error}", False)
    return Finished(number)


def _unwritten(number: int, error: RecordError | OSError) -> Failed | Broken:
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, PermissionError) or getattr(cause, "errno", None) in _LASTING:
        return Broken(str(error))
    return Failed(number, str(error), cause is not None)


_KINDS = {kind.__name__: kind for kind in (Ticked, Finished, Failed, Dropped, Broken)}


def to_json(event: Event) -> str:
    """An event as one line of JSON; `from_json` is the inverse.

    >>> from_json(to_json(Failed(3, "out of memory", True)))
    Failed(shard=3, sentence='out of memory', again=True)
    """
    return json.dumps([type(event).__name__, *event])


def from_json(line: str | bytes) -> Event:
    """The event that `to_json` wrote."""
    kind, *fields = json.loads(line)
    return _KINDS[kind](*fields)
