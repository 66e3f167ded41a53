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

PathLike = str | os.PathLike[str]


class RecordError(Exception):
    """A record that cannot be written, or cannot be trusted: where, what is wrong, the remedy."""


def write_bytes(path: PathLike, data: bytes) -> Path:
    """Write one file whole or not at all, making its folder where needed."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    with os_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    return path


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
