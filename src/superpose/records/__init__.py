"""Records: folders of results that are written atomically, digested, and verified on reading.

A record is a folder with `arrays.safetensors`, `*.parquet` tables and other files, and a
`manifest.json` that names each with its size and SHA-256. The manifest arrives last, by one
rename: a folder without it is not a record, whatever else it holds.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from superpose.records.files import (
    PathLike,
    RecordError,
    os_errors,
    plain,
    remove_leftovers,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)
from superpose.records.formats import format_arrays, format_table, parse_arrays, parse_table
from superpose.records.manifests import (
    MANIFEST,
    PARTIAL,
    check_name,
    entry_of,
    format_manifest,
    read_manifest,
    verified_file,
    verified_files,
)

ARRAYS = "arrays.safetensors"

__all__ = [
    "Record",
    "RecordError",
    "is_complete",
    "load",
    "remove",
    "save",
    "seal",
    "unseal",
    "verify",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]


@dataclass(frozen=True, slots=True)
class Record:
    """What `load` read and verified: `about` is plain JSON data, arrays are writable copies."""

    folder: Path
    kind: str
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tables: dict[str, pa.Table]


def save(
    folder: PathLike,
    *,
    kind: str,
    about: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
    tables: Mapping[str, pa.Table] | None = None,
) -> Path:
    """Write a record; returns its folder. Equal content makes equal bytes.

    Interrupted at any point it leaves the old record or none, never a mixture. A record already
    there is replaced; files of other origin are neither overwritten nor removed. One writer at
    a time. Raises RecordError.

    >>> import tempfile
    >>> folder = save(f"{tempfile.mkdtemp()}/run", kind="run", about={"seed": 0},
    ...               arrays={"W": np.ones((5, 2))})
    >>> load(folder).arrays["W"].shape
    (5, 2)
    """
    folder = Path(folder)
    contents = {f"{name}.parquet": format_table(table) for name, table in (tables or {}).items()}
    if arrays:
        contents[ARRAYS] = format_arrays(folder / ARRAYS, arrays)
    for name in contents:
        check_name(folder, name)
    entries = {name: entry_of(data) for name, data in contents.items()}
    manifest = format_manifest(kind, about, entries)
    stale = _replaceable(folder, contents)
    with os_errors(folder, "write"):
        remove_leftovers(folder)
    write_bytes(folder / PARTIAL, manifest)
    with os_errors(folder, "write"):
        for name in (MANIFEST, *stale):
            (folder / name).unlink(missing_ok=True)
    for name, data in contents.items():
        write_bytes(folder / name, data)
    _commit(folder)
    return folder


def seal(
    folder: PathLike, *, kind: str, about: Mapping[str, Any], names: Iterable[str] | None = None
) -> Path:
    """Make a record of the files already in a folder, such as a page and its figures.

    Listed are the files of the folder and of its folders, one level deep; a folder that is a
    record itself is verified and listed by its manifest. Hidden files stay out, and so do files
    and folders other than `names` (such as "report.html", "figures/a.svg") where those are given.
    Raises RecordError.
    """
    folder = Path(folder)
    with os_errors(folder, "read"):
        _require_ours(folder, [])
        remove_leftovers(folder)
        entries = {name: entry_of((folder / name).read_bytes()) for name in _to_seal(folder, names)}
    write_bytes(folder / PARTIAL, format_manifest(kind, about, entries))
    _commit(folder)
    return folder


def unseal(folder: PathLike) -> None:
    """Take the manifest of a sealed folder away before its files change. Raises RecordError."""
    folder = Path(folder)
    _require_ours(folder, [])
    with os_errors(folder, "write"):
        (folder / MANIFEST).unlink(missing_ok=True)


def load(folder: PathLike, kind: str | None = None) -> Record:
    """Read a record; every file is verified against its digest before it is parsed.

    Raises RecordError where no record is, where it is of another kind, or where it is damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if kind is not None and manifest["kind"] != kind:
        raise RecordError(
            f"{folder}: this record is of kind {manifest['kind']!r}, not {kind!r}; "
            "pass the folder of another record"
        )
    arrays: dict[str, np.ndarray] = {}
    tables: dict[str, pa.Table] = {}
    for name, data in verified_files(folder, manifest):
        if name == ARRAYS:
            arrays = parse_arrays(folder / name, data)
        elif "/" not in name and name.endswith(".parquet"):
            tables[name.removesuffix(".parquet")] = parse_table(folder / name, data)
    return Record(folder, manifest["kind"], manifest["about"], arrays, tables)


def verify(folder: PathLike, *, apart: Iterable[PathLike] = ()) -> list[str]:
    """Everything wrong with the records in a folder and below it; empty when all are sound.

    Files that no manifest lists are named as unknown; hidden files are not looked at, nor are
    the folders `apart`, which are no records.
    """
    folder, others = Path(folder), {Path(each) for each in apart}
    if not folder.is_dir():
        return [f"{folder}: there is no such folder"]
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
        and not _hidden(path.relative_to(folder))
        and others.isdisjoint(path.parents)
    ]
    problems, known = [], set()
    for path in files:
        if path.name == PARTIAL:
            problems.append(f"{path.parent}: the save was interrupted; save again to complete it")
            known.add(path)
        elif path.name == MANIFEST:
            known.add(path)
            problems += _problems(path.parent, known)
    if not known and not others:
        problems.append(f"{folder}: there is no record here ({MANIFEST} is missing)")
    return problems + [
        f"{path}: unknown, no manifest lists it" for path in files if path not in known
    ]


def is_complete(folder: PathLike, about: Mapping[str, Any] | None = None) -> bool:
    """Whether a sound record is there, and (given `about`) it is about just that."""
    try:
        manifest = read_manifest(Path(folder))
        if about is not None and manifest["about"] != plain(about):
            return False
        return all(True for _ in verified_files(Path(folder), manifest))
    except RecordError:
        return False


def remove(folder: PathLike) -> None:
    """Remove a record: the files its manifest lists, then the folder if nothing else is in it.

    Raises RecordError where no record is.
    """
    folder = Path(folder)
    names = [*read_manifest(folder)["files"]]
    with os_errors(folder, "remove"):
        (folder / MANIFEST).unlink()
        for name in names:
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def write_table(path: PathLike, table: pa.Table) -> Path:
    """Write one Parquet file with page checksums; equal tables make equal bytes."""
    return write_bytes(path, format_table(table))


def _problems(folder: Path, known: set[Path]) -> list[str]:
    """What is wrong with the record in this very folder; adds the files it lists to `known`."""
    try:
        manifest = read_manifest(folder)
    except RecordError as error:
        return [str(error)]
    problems = []
    for name, entry in manifest["files"].items():
        known.add(folder / name)
        try:
            verified_file(folder / name, entry)
        except RecordError as error:
            problems.append(str(error))
    return problems


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_ours(folder: Path) -> bool:
    if (folder / PARTIAL).is_file():
        return True
    with os_errors(folder, "read"):
        path = folder / MANIFEST
        return path.is_file() and b'"superpose"' in path.read_bytes()


def _require_ours(folder: Path, names: list[str]) -> None:
    """Refuse to overwrite what no save of ours put there."""
    for name in [] if _is_ours(folder) else [MANIFEST, *names]:
        if os.path.lexists(folder / name):
            raise RecordError(
                f"{folder / name}: in the way, and not part of a record; "
                "move it or choose another folder"
            )


def _replaceable(folder: Path, contents: Mapping[str, bytes]) -> list[str]:
    """Files of the record now in the folder that the next one will not have."""
    _require_ours(folder, list(contents))
    try:
        old = read_manifest(folder)["files"]
    except RecordError:
        return []
    ours = (name for name in old if name == ARRAYS or name.endswith(".parquet"))
    return [name for name in ours if "/" not in name and name not in contents]


def _to_seal(folder: Path, given: Iterable[str] | None) -> list[str]:
    names = []
    paths = folder.iterdir() if given is None else {folder / name for name in given}
    for path in sorted(paths):
        if _hidden(Path(path.name)) or path.name in (MANIFEST, PARTIAL):
            continue
        if not path.is_dir():
            names.append(path.relative_to(folder).as_posix())
        elif (path / MANIFEST).is_file():
            # What a manifest does not list is not ours to answer for.
            for _ in verified_files(path, read_manifest(path)):
                pass
            names.append(f"{path.name}/{MANIFEST}")
        else:
            inside = (file.relative_to(folder) for file in sorted(path.rglob("*")))
            names += [
                file.as_posix()
                for file in inside
                if not (_hidden(file) or (folder / file).is_dir())
            ]
    for name in names:
        check_name(folder, name)
    return names


def _commit(folder: Path) -> None:
    with os_errors(folder, "write"):
        (folder / PARTIAL).replace(folder / MANIFEST)
        sync_folder(folder)
