"""Writers: eight at once on one sweep, and careless ones, to see that their faults are found."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic
from unittest.mock import patch

from faults.children import Child, Tell
from faults.sweeps import (
    Found,
    carry_out,
    folder,
    promises,
    promising,
    reference,
    settings,
    settle,
)
from superpose.records import folders
from superpose.records.files import make_folder, sync_folder
from superpose.sweep import work
from superpose.sweep.store import Sweep

WRITERS = 8


@contextmanager
def in_place() -> Iterator[None]:
    """Files written where they shall be, not beside and renamed."""

    def put(path: Path, data: bytes, mode: str) -> None:
        make_folder(path.parent)
        with path.open(mode) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)

    def write(path: Path, data: bytes) -> Path:
        put(path, data, "wb")
        return path

    def create(path: Path, data: bytes) -> bool:
        try:
            put(path, data, "xb")
        except FileExistsError:
            return False
        return True

    with patch.multiple(folders, write_bytes=write, create_bytes=create):
        yield


BROKEN: dict[str, Callable[[], AbstractContextManager[None]]] = {"in place": in_place}


def together(seconds: float, each_shard: bool = False) -> Found:
    """Eight processes on one sweep, on a new one again and again for so long.

    With `each_shard` all of them write all shards, whatever the others have done.
    """
    reference()
    found, until = Found(), monotonic() + seconds
    sweeps = rows = 0
    while not sweeps or monotonic() < until:
        sweeps += 1
        with folder() as place:
            where = place / "sweep"
            way = write_all if each_shard else partial(carry_out, grace=3600.0)
            gate, release = os.pipe()
            children = [
                Child(
                    lambda tell, gate=gate, release=release, way=way, where=where: _after(
                        gate, release, way, where, tell
                    )
                )
                for _ in range(WRITERS)
            ]
            os.close(gate)
            os.close(release)  # all begin at once
            promised = []
            for child in children:
                ended = child.wait()
                found.take(ended, f"sweep {sweeps}")
                promised += [each for each in promises(ended) if each not in promised]
            rows += Sweep.open(where).table().num_rows
            settle(where, promised, found, f"sweep {sweeps}")
    found.counts |= {"sweeps": sweeps, "rows": rows, "models": sweeps * reference().models}
    return found


def _after(
    gate: int, release: int, way: Callable[[Path, Tell], int], where: Path, tell: Tell
) -> int:
    os.close(release)
    os.read(gate, 1)
    return way(where, tell)


def write_all(where: Path, tell: Tell) -> int:
    """Train and write every shard, in an order of one's own, also those that are there."""
    with promising(tell), patch.object(Sweep, "is_done", lambda *_: False):
        sweep = Sweep.create(where, settings(), (6, 6))
        numbers = range(sweep.plan.shards)
        for number in Random(os.getpid()).sample(numbers, len(numbers)):
            work.carry_out(sweep, number, lambda _: None)
    return 0
