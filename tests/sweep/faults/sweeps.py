"""The sweep that is put through faults, what it promises, and whether the promises were kept."""

import atexit
import gc
import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from faults.children import Ended, Tell, in_child
from superpose.engine import train
from superpose.sweep import work
from superpose.sweep.configuration import parse
from superpose.sweep.here import Here
from superpose.sweep.run import run
from superpose.sweep.store import Sweep

PLAIN = """
name = "put through faults"
seeds = 3
[model]
n = 2
m = 1
[training]
batch = 8
steps = 20
snapshots = [10]
[axes]
"training.lr" = [0.001, 0.01]
"world.p" = [0.9, 0.5, 0.3, 0.1]
[keep]
weights = "best"
[shards]
models = 6
"""

REFINED = """
name = "refined and put through faults"
seeds = 2
[model]
n = 2
m = 1
[training]
batch = 8
steps = 20
[axes]
"world.p" = { log = [1.0, 0.01], count = 3 }
[refine]
measure = "loss"
level = 0.1
axes = ["world.p"]
width = 0.3
[shards]
models = 2
"""

_chosen = [PLAIN]


def choose(configuration: str) -> None:
    """Put another sweep through what follows."""
    _chosen[:] = [configuration]


@dataclass
class Found:
    """What a battery of faults found: counts of states and of kept and broken promises."""

    states: int = 0
    promises: int = 0
    lost: int = 0
    torn: int = 0
    duplicates: int = 0
    unequal: int = 0
    errors: int = 0
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def broken(self, what: str, sentence: str) -> None:
        """Count a broken promise, and keep the sentences of the first twenty."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.problems) < 20:
            self.problems.append(f"{what}: {sentence}")

    @property
    def bad(self) -> int:
        """Promises broken in all."""
        return self.lost + self.torn + self.duplicates + self.unequal + self.errors

    def take(self, ended: Ended, where: str) -> None:
        """Count what a child told: ["broken", what, sentence] and ["promises", number]."""
        for message in ended.told:
            match message:
                case ["broken", what, sentence]:
                    self.broken(what, f"{where}: {sentence}")
                case ["promises", number]:
                    self.promises += number
                case {"error": sentence}:
                    self.broken("errors", f"{where}: {sentence}")
        if ended.code not in (0, 70):
            self.broken("errors", f"{where}: the process ended with {ended.code}")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: kills do not lose what was written but not synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def settings():
    """The configuration of the sweep."""
    return parse(_chosen[0])


def text() -> str:
    """The configuration as a file has it."""
    return _chosen[0]


@contextmanager
def promising(tell: Tell, early: bool = False) -> Iterator[None]:
    """Tell of every sweep that was made and every shard that was written, once it is.

    `early` tells of shards before they are written, as a careless runner would.
    """
    create, write = Sweep.create.__func__, Sweep.write

    def made(cls: type[Sweep], *arguments: Any, **options: Any) -> Sweep:
        sweep = create(cls, *arguments, **options)
        tell(["sweep", _digest(sweep, "sweep.json")])
        return sweep

    def written(sweep: Sweep, shard: Any, *arguments: Any) -> bool:
        if early:
            tell(["shard", shard.number, ""])
        new = write(sweep, shard, *arguments)
        if not early:
            tell(["shard", shard.number, _digest(sweep, _done(shard.number))])
        return new

    with (
        patch.object(Sweep, "create", classmethod(made)),
        patch.object(Sweep, "write", written),
    ):
        yield


def _done(number: int) -> str:
    return f"shards/{number:06d}/DONE.json"


def _digest(sweep: Sweep, name: str) -> str:
    path = Path(sweep.folder.where, name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def carry_out(where: Path, tell: Tell, early: bool = False, grace: float = 0.0) -> int:
    """Make the sweep or go on with it, as the command does; returns how many shards are missing.

    To say that nothing is missing is to promise all shards. Leftovers older than `grace` seconds
    are removed in the end; younger ones may belong to other processes, where there are any.
    """
    with promising(tell, early):
        outcome = run(Sweep.create(where, settings()), Here())
    if outcome.failed or outcome.broken:
        tell({"error": f"failed shards {outcome.failed}, {outcome.broken}"})
    if not outcome.missing:
        sweep = Sweep.open(where)  # with its last round of refinement
        for number in range(sweep.plan.shards):
            tell(["shard", number, _digest(sweep, _done(number))])
        sweep.reindex(grace)
    return outcome.missing


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run leaves."""

    folder: Path
    shards: int
    models: int
    table: bytes
    rows: dict[int, bytes]  # of each shard
    weights: dict[int, bytes]  # of each cell
    seconds: float


def reference() -> Reference:
    """The uninterrupted run; it also compiles and loads whatever the children will use."""
    return _reference(_chosen[0])


@cache
def _reference(_: str) -> Reference:
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place)  # children end without it
    told: list[Any] = []
    assert carry_out(place / "warm", told.append) == 0
    ended = in_child(lambda tell: carry_out(place / "sweep", tell))
    assert ended.code == 0, ended.told
    sweep = Sweep.open(place / "sweep")
    assert not sweep.verify(), sweep.verify()
    plan = sweep.plan
    found = Reference(
        folder=place / "sweep",
        shards=plan.shards,
        models=plan.models,
        table=as_bytes(sweep.table()),
        rows={k: _rows(sweep, k) for k in range(plan.shards)},
        weights={c: _weights(sweep, c) for c in sorted(set(sweep.table()["cell"].to_pylist()))},
        seconds=ended.seconds,
    )
    gc.collect()
    gc.freeze()  # children share what is not looked at
    assert found.table == as_bytes(Sweep.open(place / "warm").table())
    shutil.rmtree(place / "warm")
    return found


def as_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of its columns, schema included."""
    sink = io.BytesIO()
    table = table.combine_chunks().replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _rows(sweep: Sweep, number: int) -> bytes:
    return as_bytes(sweep.table(cells=sweep.plan.shard(number).cells))


def _weights(sweep: Sweep, cell: int) -> bytes:
    kept = sweep.runs(cell)
    arrays = (kept.W, kept.b, kept.loss, kept.snapshots.W)
    return b"".join(array.numpy().tobytes() for array in arrays)


def check(where: Path, promised: list[Any], tell: Tell) -> int:
    """Whether all that was promised is there, unchanged, and nothing is returned that is wrong."""
    tell(["promises", len(promised)])
    if not (where / "sweep.json").exists():
        if promised:
            tell(["broken", "lost", "sweep.json is gone"])
        return 0
    sweep = Sweep.open(where)
    done = sweep.done()
    for promise in promised:
        if promise[0] == "shard" and promise[1] not in done:
            tell(["broken", "lost", f"shard {promise[1]} was promised, and is missing"])
    _check_promises(sweep, promised, tell)
    for number in sorted(done):
        try:
            if _rows(sweep, number) != reference().rows[number]:
                tell(["broken", "torn", f"shard {number} is read, but with other rows"])
        except Exception as error:
            what = "lost" if ["shard", number] in [each[:2] for each in promised] else "torn"
            tell(["broken", what, f"shard {number}: {error}"])
    return 0


def _check_promises(sweep: Sweep, promised: list[Any], tell: Tell) -> None:
    for kind, *rest in promised:
        name = "sweep.json" if kind == "sweep" else _done(rest[0])
        # What is not there is lost, not torn.
        if rest[-1] and _digest(sweep, name) not in ("", rest[-1]):
            tell(["broken", "torn", f"{name} is not as it was promised"])


def check_complete(where: Path, promised: list[Any], tell: Tell) -> int:
    """Whether a sweep carried through equals the uninterrupted one, each model once."""
    expected, sweep = reference(), Sweep.open(where)
    if missing := list(sweep.missing()):
        tell(["broken", "lost", f"shards {missing} are missing in the end"])
        return 0
    _check_promises(sweep, promised, tell)
    table = sweep.table()
    if again := table.num_rows - len(set(table["index"].to_pylist())):
        tell(["broken", "duplicates", f"{again} models have several rows"])
    if as_bytes(table) != expected.table:
        tell(["broken", "unequal", "the table is not that of the uninterrupted sweep"])
    for cell, weights in expected.weights.items():
        if _weights(sweep, cell) != weights:
            tell(["broken", "unequal", f"cell {cell} has other weights"])
    for problem in [*sweep.verify(), *sweep.leftovers()]:
        tell(["broken", "torn", problem])
    return 0


def settle(where: Path, promised: list[Any], found: Found, name: str) -> None:
    """After a fault: check what was promised, go on to the end, and compare; in a child."""
    found.states += 1
    found.take(in_child(lambda tell: _go_on(where, promised, tell)), name)


def settle_here(where: Path, promised: list[Any], found: Found, name: str) -> None:
    """What `settle` does, in this process and with models from memory: for faults of storage."""
    found.states += 1
    told: list[Any] = []
    with patch.object(work, "train", _remembered):
        try:
            code = _go_on(where, promised, told.append)
        except Exception as error:
            code = 70
            told.append({"error": repr(error)})
    found.take(Ended(code, told, 0.0), name)


def _go_on(where: Path, promised: list[Any], tell: Tell) -> int:
    check(where, promised, tell)
    fresh: list[Any] = []
    left = carry_out(where, fresh.append)
    if left:
        tell(["broken", "errors", f"going on left {left} shards: {fresh}"])
    return check_complete(where, promised, tell)


_memory: dict[str, Any] = {}


def _remembered(*arguments: Any, **options: Any) -> Any:
    del options["progress"]
    key = repr((arguments, options))
    if key not in _memory:
        _memory[key] = train(*arguments, **options)
    return _memory[key]


def promises(ended: Ended) -> list[Any]:
    """The promises among what a child told."""
    return [message for message in ended.told if isinstance(message, list)]
