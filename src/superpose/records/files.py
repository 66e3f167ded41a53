"""Single files: written whole or not at all, and every failure said in one sentence."""

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

_REMEDY = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.ENOTDIR: "a file is where a folder should be; choose another folder",
    errno.EEXIST: "a file is where a folder should be; choose another folder",
    errno.EISDIR: "a folder is where a file should be; choose another name",
}

# What file systems say that have no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}

PathLike = str | os.PathLike[str]


class RecordError(Exception):
    """A record that cannot be written, or cannot be trusted: where, what is wrong, the remedy."""


def write_bytes(path: PathLike, data: bytes) -> Path:
    """Write one file whole or not at all, making its folder where needed."""
    path = Path(path)
    with os_errors(path, "write"), _temporary(path, data) as temporary:
        temporary.replace(path)
        sync_folder(path.parent)
    return path


def create_bytes(path: PathLike, data: bytes) -> bool:
    """Write one file whole, only where nothing is; False, and no change, where something is.

    Of several processes that create the same file at once just one is told True. File systems
    without hard links cannot promise that: there the last one stays.
    """
    path = Path(path)
    with os_errors(path, "write"), _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
            created = True
        except FileExistsError:
            created = False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            created = not os.path.lexists(path)
            if created:
                temporary.replace(path)
        temporary.unlink(missing_ok=True)
        # Also of a file that another process made: who is told False may rely on it as well.
        sync_folder(path.parent)
    return created


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a file beside `path`, on disk; taken away where it was not moved."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    make_folder(path.parent)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where needed, so that they outlast a power loss."""
    if folder.exists():
        return
    # One at a time from the top: of those found there, the last may be all that a killed process
    # had made, its name not yet on disk.
    above = folder.parent
    make_folder(above)
    with suppress(PermissionError):  # a folder that may not be read was not made by us
        sync_folder(above.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(above)


def write_text(path: PathLike, text: str) -> Path:
    """Write one UTF-8 file whole or not at all, its line ends as given."""
    return write_bytes(path, text.encode())


def write_json(path: PathLike, value: Any) -> Path:
    """Write JSON with sorted keys; NaN and infinities, which JSON lacks, become null."""
    return write_text(path, pretty_json(plain(value)))


def plain(value: Any) -> Any:
    """JSON data of plain Python types; what JSON cannot say raises TypeError."""
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(
        f"{type(value).__name__} is not JSON data; pass numbers, text, lists and mappings with "
        "text keys (dataclasses.asdict turns a dataclass into one)"
    )


def pretty_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n"


def remove_leftovers(folder: Path) -> None:
    """Temporary files of writes that were killed."""
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def os_errors(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0, "choose a place where you may do so")
        raise RecordError(f"{path}: cannot {verb} ({error.strerror or error}); {remedy}") from error
