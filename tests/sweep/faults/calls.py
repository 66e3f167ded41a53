"""The calls that reach the file system below one folder, each seen before and after it happens."""

import builtins
import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from unittest.mock import patch

FOLDERS = ("shards", "claims", "rounds", "sweep")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True, slots=True)
class Event:
    """A call about to happen ("before"), half done (a write, "middle") or done ("after").

    `path` is what it makes, changes or removes: the new name, of a rename or link, whose old one
    is `source`. `handle` is the open file, with what is written (`data`) and where (`offset`).
    """

    call: str  # open, write, fsync, rename, link, mkdir, unlink, rmdir; read and list
    when: str
    path: Path
    source: Path | None = None
    handle: int = -1
    data: bytes = b""
    offset: int = 0
    made: bool = False

    @property
    def name(self) -> str:
        """What a fault point is called: "fsync after parquet"."""
        return f"{self.call} {self.when} {kind(self.path)}"


def kind(path: Path) -> str:
    """What a file is for, temporary names included."""
    name = path.name
    for part, found in (
        ("DONE", "DONE"),
        ("sweep.json", "sweep.json"),
        ("index.json", "index"),
        (".parquet", "parquet"),
        (".safetensors", "safetensors"),
    ):
        if part in name:
            return found
    if path.parent.name in ("claims", "rounds") and ".json" in name:
        return path.parent.name.removesuffix("s")
    if "." in name:
        return "other file"
    return "shard folder" if name.isdigit() else f"folder {name}" if name in FOLDERS else "folder"


class _File(io.FileIO):
    """An unbuffered file whose writes are seen."""

    def __init__(self, watch: "Watch", file: str | int, mode: str, closefd: bool) -> None:
        super().__init__(file, mode, closefd=closefd)
        self.watch = watch

    def write(self, data) -> int:
        offset = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        return self.watch.write(self.fileno(), bytes(data), offset, super().write)


class Watch:
    """While it is entered, `see` gets an Event for every call on paths below `folder`.

    What `see` raises is raised in place of the call. A write is seen three times: before, with
    half of it written, and after.
    """

    def __init__(self, folder: Path, see: Callable[[Event], None]) -> None:
        self.folder = os.path.realpath(folder)
        self.see = see
        self.lock = RLock()  # what is seen comes in the order in which it happened
        self.paths: dict[int, Path] = {}
        self.stack = ExitStack()

    def __enter__(self) -> "Watch":
        first, second = (lambda a, *_: a), (lambda _, b, *__: b)
        wrapped = {
            "mkdir": self._around("mkdir", os.mkdir, first),
            "unlink": self._around("unlink", os.unlink, first),
            "remove": self._around("unlink", os.remove, first),
            "rmdir": self._around("rmdir", os.rmdir, first),
            "rename": self._around("rename", os.rename, second),
            "replace": self._around("rename", os.replace, second),
            "link": self._around("link", os.link, second),
            "scandir": self._around("list", os.scandir, lambda path=".": path),
            "listdir": self._around("list", os.listdir, lambda path=".": path),
            "fsync": self._sync(os.fsync),
            "fdatasync": self._sync(os.fdatasync),
            "open": self._os_open(os.open),
            "write": self._os_write(os.write),
        }
        for name, function in wrapped.items():
            self.stack.enter_context(patch.object(os, name, function))
        opened = self._open(io.open)
        self.stack.enter_context(patch.object(io, "open", opened))
        self.stack.enter_context(patch.object(builtins, "open", opened))
        return self

    def __exit__(self, *_) -> None:
        self.stack.close()

    def _inside(self, path) -> Path | None:
        if isinstance(path, int):
            return None
        full = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links stay
        return Path(full) if (full + os.sep).startswith(self.folder + os.sep) else None

    def _around(self, call: str, function: Callable, place: Callable) -> Callable:
        def wrapped(*arguments, **options):
            path = self._inside(place(*arguments))
            if path is None:
                return function(*arguments, **options)
            source = self._inside(arguments[0]) if call in ("rename", "link") else None
            with self.lock:
                self.see(Event(call, "before", path, source))
                done = function(*arguments, **options)
                self.see(Event(call, "after", path, source))
            return done

        return wrapped

    def _sync(self, function: Callable) -> Callable:
        def fsync(file) -> None:
            handle = file if isinstance(file, int) else file.fileno()
            path = self.paths.get(handle)
            with self.lock:
                if path is not None:
                    self.see(Event("fsync", "before", path, handle=handle))
                function(handle)
                if path is not None:
                    self.see(Event("fsync", "after", path, handle=handle))

        return fsync

    def _opening(self, path: Path, writes: bool, function: Callable[[], int]) -> None:
        """`function` opens the file and returns its handle."""
        call = "open" if writes else "read"
        with self.lock:
            self.see(Event(call, "before", path))
            made = not os.path.lexists(path)
            handle = function()
            self.paths[handle] = path
            self.see(Event(call, "after", path, handle=handle, made=made))

    def _os_open(self, function: Callable) -> Callable:
        def opened(path, flags, *arguments, **options) -> int:
            place = self._inside(path)
            if place is None:
                handle = function(path, flags, *arguments, **options)
                self.paths.pop(handle, None)
                return handle
            found: list[int] = []

            def now() -> int:
                found.append(function(path, flags, *arguments, **options))
                return found[0]

            self._opening(place, bool(flags & WRITING), now)
            return found[0]

        return opened

    def _os_write(self, function: Callable) -> Callable:
        def written(handle: int, data) -> int:
            if handle not in self.paths:
                return function(handle, data)
            offset = os.lseek(handle, 0, os.SEEK_CUR)
            return self.write(handle, bytes(data), offset, lambda part: function(handle, part))

        return written

    def _open(self, function: Callable) -> Callable:
        def opened(file, mode="r", buffering=-1, *arguments, **options):
            place = self._inside(file) if not isinstance(file, int) else self.paths.get(file)
            writes = any(letter in mode for letter in "wxa+")
            if place is None or (isinstance(file, int) and not writes):
                result = function(file, mode, buffering, *arguments, **options)
                if place is None and not isinstance(file, int):
                    self.paths.pop(result.fileno(), None)
                return result
            if not writes:
                found = []

                def now() -> int:
                    found.append(function(file, mode, buffering, *arguments, **options))
                    return found[0].fileno()

                self._opening(place, False, now)
                return found[0]
            return self._writer(file, place, mode, buffering, arguments, options)

        return opened

    def _writer(self, file, place: Path, mode: str, buffering: int, arguments, options):
        raw = []
        plain = mode.replace("b", "").replace("t", "")

        def now() -> int:
            name = file if isinstance(file, int) else os.fspath(file)
            raw.append(_File(self, name, plain, options.pop("closefd", True)))
            return raw[0].fileno()

        if isinstance(file, int):
            now()
        else:
            self._opening(place, True, now)
        if buffering == 0:
            return raw[0]
        buffered = io.BufferedRandom(raw[0]) if "+" in mode else io.BufferedWriter(raw[0])
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *arguments, **options)

    def write(self, handle: int, data: bytes, offset: int, function: Callable) -> int:
        """Write in two halves, so that there is a moment at which a write is torn."""
        path = self.paths.get(handle)
        if path is None:
            return function(data)
        with self.lock:
            self.see(Event("write", "before", path, None, handle, data, offset))
            half = len(data) // 2
            done = function(data[:half]) if half else 0
            if done < half:
                raise OSError(f"{path}: only {done} of {half} bytes were written")
            self.see(Event("write", "middle", path, None, handle, data[:half], offset))
            done += function(data[half:])
            self.see(Event("write", "after", path, None, handle, data[half:done], offset + half))
        return done
