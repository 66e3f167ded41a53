"""Folders of files that are written whole or not at all, on a disk or in object storage."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from time import time
from typing import Protocol

import fsspec

from superpose.records.files import (
    PathLike,
    RecordError,
    create_bytes,
    os_errors,
    sync_folder,
    write_bytes,
)

_PART = r"\.?[A-Za-z0-9_][A-Za-z0-9_.+=-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")


class Folder:
    """The files under a path or a URL such as "s3://bucket/sweep", by names with "/" in them.

    A file is written whole or not at all; once `write` or `create` returns, it outlasts a power
    loss as far as the disk keeps what it is told to. Links and whatever else is no plain file are
    not followed. Every failure is a RecordError.

    >>> folder = Folder("memory://example")
    >>> folder.create("a/b.txt", b"first"), folder.create("a/b.txt", b"second")
    (True, False)
    >>> folder.read("a/b.txt"), folder.names()
    (b'first', {'a/b.txt': 5})
    """

    def __init__(self, where: PathLike) -> None:
        self._place: _Place = (
            _Remote(where) if isinstance(where, str) and "://" in where else _Local(Path(where))
        )

    def __repr__(self) -> str:
        return f"Folder({self.where!r})"

    @property
    def where(self) -> str:
        """The path or URL, of which `Folder` makes this folder again, also in another process."""
        return self._place.where

    def path(self, name: str) -> str:
        """The path or URL of one file. Raises RecordError for a name that leaves the folder."""
        if not _NAME.fullmatch(name):
            raise RecordError(
                f"{self.where}: {name!r} is not a name for a file in a folder; use letters, "
                "digits and _ . + = - with / between"
            )
        return f"{self.where}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it; whoever reads meanwhile sees the old or the new one."""
        self._place.write(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only where none is; False, and no change, where one is.

        Of several who create it at once one is told True, where the storage can tell (file
        systems with hard links; S3 and others with conditional writes).
        """
        return self._place.create(self.path(name), data)

    def read(self, name: str, at_most: int = 2**32) -> bytes:
        """The bytes of a file; raises RecordError where it is missing or larger than `at_most`."""
        return self._place.read(self.path(name), at_most)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._place.has(self.path(name))

    def settle(self, name: str) -> None:
        """Make sure that a file that is there outlasts a power loss, whoever wrote it."""
        self._place.settle(self.path(name))

    def names(self, under: str = "") -> dict[str, int]:
        """The names of all files, or of those in the folder `under`, with their sizes in bytes.

        Whatever is there is named, also what `read` refuses.
        """
        where = self.path(under) if under else self.where
        start = len(self.where) + 1
        found = {path[start:]: size for path, size in self._place.sizes(where).items()}
        return dict(sorted(found.items()))

    def age(self, name: str) -> float:
        """Seconds since a file was last written: 0 of one that is gone.

        Infinite where the storage cannot tell.
        """
        return self._place.age(self.path(name))

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        self._place.remove(self.path(name))


class _Place(Protocol):
    """What a `Folder` asks of a disk or an object storage; paths are whole."""

    where: str

    def write(self, path: str, data: bytes) -> None: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def read(self, path: str, at_most: int) -> bytes: ...
    def has(self, path: str) -> bool: ...
    def settle(self, path: str) -> None: ...
    def sizes(self, folder: str) -> dict[str, int]: ...
    def age(self, path: str) -> float: ...
    def remove(self, path: str) -> None: ...


class _Local:
    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))  # noqa: PTH100 - links stay
        self.where = str(self.root)

    def write(self, path: str, data: bytes) -> None:
        write_bytes(self._plain(path), data)
        self._settle_above(path)

    def create(self, path: str, data: bytes) -> bool:
        created = create_bytes(self._plain(path), data)
        self._settle_above(path)
        return created

    def read(self, path: str, at_most: int) -> bytes:
        with os_errors(self._plain(path), "read"):
            # Not to wait for the other end of a pipe, nor to follow a link.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
            with os.fdopen(handle, "rb") as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode):
                    raise RecordError(f"{path}: not a plain file; move it away")
                _check_size(path, about.st_size, at_most)
                data = file.read(about.st_size + 1)
        _check_size(path, len(data), at_most)
        return data

    def has(self, path: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except OSError:
            return False

    def settle(self, path: str) -> None:
        # Its writer may have been killed before the folder was on disk.
        with os_errors(Path(path), "write"):
            sync_folder(Path(path).parent)
        self._settle_above(path)

    def sizes(self, folder: str) -> dict[str, int]:
        return dict(_files(folder)) if self._plain(folder).is_dir() else {}

    def age(self, path: str) -> float:
        with os_errors(Path(path), "read"):
            try:
                return time() - os.lstat(path).st_mtime
            except FileNotFoundError:
                return 0.0

    def remove(self, path: str) -> None:
        with os_errors(Path(path), "remove"):
            self._plain(path).unlink(missing_ok=True)

    def _settle_above(self, path: str) -> None:
        """Put the folders on disk that lead to a file: another process may just have made them."""
        with os_errors(Path(path), "write"):
            for folder in self._above(path):
                sync_folder(folder.parent)
            # Who may not read the folder above the sweep did not make the sweep's own folder in it.
            with suppress(PermissionError):
                sync_folder(self.root.parent)

    def _above(self, path: str) -> list[Path]:
        """The folders between a file and the root, the innermost first."""
        return [each for each in Path(path).parents if self.root in each.parents]

    def _plain(self, path: str) -> Path:
        """The path, after a look that no link leads it out of the folder."""
        for folder in self._above(path):
            if folder.is_symlink():
                raise RecordError(f"{folder}: a link in place of a folder; move it away")
        return Path(path)


def _files(folder: str) -> Iterator[tuple[str, int]]:
    with os_errors(Path(folder), "read"), os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(entry.path)
                else:
                    yield entry.path, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:  # another process has removed it
                continue


class _Remote:
    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        try:
            # Listings have to show what other machines have written since.
            self.files, _ = fsspec.url_to_fs(self.where, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise RecordError(f"{url}: cannot be opened ({error})") from error

    def write(self, path: str, data: bytes) -> None:
        with _errors(path, "write"):
            self.files.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> bool:
        with _errors(path, "write"):
            try:
                self.files.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True

    def read(self, path: str, at_most: int) -> bytes:
        with _errors(path, "read"):
            _check_size(path, self.files.size(path) or 0, at_most)
            data = self.files.cat_file(path)
        _check_size(path, len(data), at_most)
        return data

    def has(self, path: str) -> bool:
        with _errors(path, "read"):
            return self.files.isfile(path)

    def settle(self, path: str) -> None:
        """What is in object storage is there to stay."""

    def sizes(self, folder: str) -> dict[str, int]:
        with _errors(folder, "read"):
            self.files.invalidate_cache()
            found = self.files.find(folder, detail=True)
            start = len(self.files._strip_protocol(self.where))
        return {self.where + path[start:]: about["size"] for path, about in found.items()}

    def age(self, path: str) -> float:
        with _errors(path, "read"):
            try:
                written = self.files.modified(path)
            except NotImplementedError:
                return float("inf")
            except FileNotFoundError:
                return 0.0
        return (datetime.now(written.tzinfo) - written).total_seconds()

    def remove(self, path: str) -> None:
        with _errors(path, "remove"):
            if self.files.exists(path):
                self.files.rm_file(path)


@contextmanager
def _errors(path: str, verb: str) -> Iterator[None]:
    try:
        yield
    except RecordError:
        raise
    except FileNotFoundError as error:
        raise RecordError(f"{path}: missing") from error
    # Each storage has exceptions of its own (credentials, network), by classes not known here.
    except Exception as error:
        raise RecordError(f"{path}: cannot {verb} ({type(error).__name__}: {error})") from error


def _check_size(path: str, size: int, at_most: int) -> None:
    if size > at_most:
        raise RecordError(f"{path}: {size} bytes, where at most {at_most} are expected")
