"""What a disk may hold after a loss of power, from the log of what was asked of it.

The model, which is weaker than any file system in use (as in Pillai et al., "All File Systems Are
Not Created Equal", OSDI 2014):

- fsync of a file makes its bytes durable, not its name; fsync of a folder makes durable what
  happened to names in it, not the folder's own name.
- Of what was not made durable, any part may be there and in any order. A write is there, or is
  missing (zeros, where a later one is there), or is there up to some byte, or as zeros, or as
  bytes of something else. A name is made, changed or removed, or is not; whatever came later.
- Single steps are atomic: a name never points to half a file, and a rename within a folder never
  shows neither or, once durable, both names.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from faults.calls import Event

BASE = 0  # the folder that was there, durable, before anything happened


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes put into a file."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file emptied by opening it to be written anew."""

    file: int


@dataclass(frozen=True, slots=True)
class Names:
    """What one step does to the names in a folder: name to file, or to None where removed."""

    folder: int
    names: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """A file or folder made durable as it is now."""

    what: int
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Told:
    """Something was promised to the user: from here on it must survive."""

    promise: str


Step = Write | Truncated | Names | Synced | Told


@dataclass
class Log:
    """The steps as they were asked for; `see` is for a `Watch` of the folder `base`."""

    base: Path
    steps: list[Step] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {BASE})
    numbers: dict[int, int] = field(default_factory=dict)
    count: int = BASE

    def __post_init__(self) -> None:
        if not self.numbers:
            self.numbers[self.base.stat().st_ino] = BASE

    def tell(self, promise: str) -> None:
        """Note that something was promised."""
        self.steps.append(Told(promise))

    def see(self, event: Event) -> None:
        """Write a call down once it is done."""
        if event.call == "write" and event.when != "before":
            number = self.numbers[os.fstat(event.handle).st_ino]
            self.steps.append(Write(number, event.offset, event.data))
        elif event.when != "after":
            return
        elif event.call == "open":
            if event.made:
                number = self._new(os.fstat(event.handle).st_ino)
                self._name(event.path, number)
            elif os.fstat(event.handle).st_size == 0:
                self.steps.append(Truncated(self.numbers[os.fstat(event.handle).st_ino]))
        elif event.call == "mkdir":
            number = self._new(event.path.stat().st_ino)
            self.folders.add(number)
            self._name(event.path, number)
        elif event.call == "fsync":
            number = self.numbers[os.fstat(event.handle).st_ino]
            self.steps.append(Synced(number, number in self.folders))
        elif event.call in ("unlink", "rmdir"):
            self._name(event.path, None)
        elif event.call in ("rename", "link"):
            self._moved(event)

    def _moved(self, event: Event) -> None:
        source, number = event.source, self.numbers[event.path.stat().st_ino]
        assert source is not None
        if event.call == "link":
            self._name(event.path, number)
            return
        if source.parent != event.path.parent:
            raise NotImplementedError(f"{source} → {event.path}: renames stay in their folder")
        names = ((source.name, None), (event.path.name, number))
        self.steps.append(Names(self.numbers[source.parent.stat().st_ino], names))

    def _name(self, path: Path, number: int | None) -> None:
        folder = self.numbers[path.parent.stat().st_ino]
        self.steps.append(Names(folder, ((path.name, number),)))

    def _new(self, inode: int) -> int:
        self.count += 1  # the system gives the number of a file that is gone to a new one
        self.numbers[inode] = self.count
        return self.count

    def without(self, drops: Callable[[Step], bool]) -> "Log":
        """The log of a writer that leaves out some of its steps."""
        kept = [step for step in self.steps if not drops(step)]
        return Log(self.base, kept, self.folders, self.numbers, self.count)

    def promised(self, cut: int) -> list[str]:
        """What had been promised when the power went, before step number `cut`."""
        return [step.promise for step in self.steps[:cut] if isinstance(step, Told)]


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of what is not durable.

    `names` and `data` are "kept", "lost", or "any": drawn, step by step. With names "ordered" a
    drawn number of first steps on names is there (a journal), over all folders together.
    """

    names: str
    data: str
    random: Random = field(default_factory=lambda: Random(0))


Tree = dict[str, "bytes | Tree"]


def after_cut(log: Log, cut: int, fate: Fate) -> Tree:
    """Files and folders found after the power went before step `cut`."""
    steps = log.steps[:cut]
    files = _files(steps, fate)
    entries: dict[int, dict[str, int]] = {number: {} for number in log.folders}
    for step in _steps_on_names(steps, fate):
        for name, number in step.names:
            entries[step.folder].pop(name, None)
            if number is not None:
                entries[step.folder][name] = number

    def tree(folder: int) -> Tree:
        found: Tree = {}
        for name, number in entries[folder].items():
            found[name] = tree(number) if number in log.folders else bytes(files.get(number, b""))
        return found

    return tree(BASE)


def _last_synced(steps: Sequence[Step]) -> dict[int, int]:
    return {step.what: at for at, step in enumerate(steps) if isinstance(step, Synced)}


def _steps_on_names(steps: Sequence[Step], fate: Fate) -> Iterator[Names]:
    synced = _last_synced(steps)
    on_names = [(at, step) for at, step in enumerate(steps) if isinstance(step, Names)]
    pending = [at for at, step in on_names if at > synced.get(step.folder, -1)]
    if fate.names == "kept":
        there = set(pending)
    elif fate.names == "lost":
        there = set()
    elif fate.names == "ordered":
        there = set(pending[: fate.random.randint(0, len(pending))])
    else:
        share = fate.random.random()
        there = {at for at in pending if fate.random.random() < share}
    for at, step in on_names:
        if at <= synced.get(step.folder, -1) or at in there:
            yield step


def _files(steps: Sequence[Step], fate: Fate) -> dict[int, bytearray]:
    synced = _last_synced(steps)
    files: dict[int, bytearray] = {}
    for at, step in enumerate(steps):
        if isinstance(step, Truncated):
            durable = at < synced.get(step.file, -1)
            if durable or _survivor(b"", fate) is not None:
                files[step.file] = bytearray()
        elif isinstance(step, Write):
            durable = at < synced.get(step.file, -1)
            data = step.data if durable else _survivor(step.data, fate)
            if data is None:
                continue
            content = files.setdefault(step.file, bytearray())
            content.extend(bytes(max(0, step.offset + len(data) - len(content))))
            content[step.offset : step.offset + len(data)] = data
    return files


def _survivor(data: bytes, fate: Fate) -> bytes | None:
    """What is found of bytes that were not made durable."""
    if fate.data == "kept":
        return data
    if fate.data == "lost":
        return None
    draw = fate.random
    outcome = draw.choice(("kept", "missing", "torn", "zeros", "torn zeros", "foreign"))
    at = draw.randint(0, len(data))
    return {
        "kept": data,
        "missing": None,
        "torn": data[:at],
        "zeros": bytes(len(data)),
        "torn zeros": data[:at] + bytes(len(data) - at),
        "foreign": data[:at] + draw.randbytes(len(data) - at),
    }[outcome]


def lay_out(tree: Tree, folder: Path) -> None:
    """Make real files and folders of what was found."""
    for name, content in tree.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).mkdir()
            lay_out(content, folder / name)


def read_in(folder: Path) -> Tree:
    """What is really in a folder; the inverse of `lay_out`."""
    return {
        path.name: read_in(path) if path.is_dir() else path.read_bytes()
        for path in folder.iterdir()
    }


def fates(count: int, steps: int, seed: int, first: int = 0) -> Iterator[tuple[int, Fate]]:
    """`count` times a cut, from step `first` on, and what becomes of the rest; each before any
    comes twice."""
    extremes = [("lost", "lost"), ("kept", "lost"), ("lost", "kept"), ("kept", "any")]
    ways = [*extremes, ("any", "kept"), ("any", "any"), ("ordered", "any"), ("any", "any")]
    random = Random(seed)
    pairs = [(cut, way) for cut in range(first, steps + 1) for way in range(len(ways))]
    while count > 0:
        random.shuffle(pairs)
        for cut, way in pairs[:count]:
            yield cut, Fate(*ways[way], Random(random.getrandbits(64)))
        count -= len(pairs)
