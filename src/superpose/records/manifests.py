"""Manifests: what a record holds, with the size and SHA-256 of every file."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from superpose.records.documents import format_document, parse_document
from superpose.records.files import RecordError, os_errors

VERSION = 1
MANIFEST = "manifest.json"
PARTIAL = "manifest.json.partial"

_LIMIT = 64 * 2**20
_KEYS = {"format", "version", "kind", "about", "files"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")


def format_manifest(kind: str, about: Mapping[str, Any], entries: Mapping[str, Any]) -> bytes:
    return format_document(
        {
            "format": "superpose",
            "version": VERSION,
            "kind": kind,
            "about": about,
            "files": entries,
        }
    )


def entry_of(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        state = "its save was interrupted" if (folder / PARTIAL).is_file() else "nothing was saved"
        raise RecordError(f"{folder}: there is no record here ({MANIFEST} is missing: {state})")
    with os_errors(path, "read"), path.open("rb") as file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise RecordError(
            f"{path}: not a file of superpose, it is too large; make the record again"
        )
    manifest = parse_document(str(path), data, "superpose", VERSION, "make the record again")
    _check_manifest(path, manifest)
    return manifest


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    files = manifest.get("files")
    sound = (
        manifest.keys() == _KEYS
        and isinstance(manifest["kind"], str)
        and isinstance(manifest["about"], dict)
        and isinstance(files, dict)
        and all(
            isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"}
            for entry in files.values()
        )
    )
    if not sound or not isinstance(files, dict):
        raise RecordError(f"{path}: not laid out as a manifest; make the record again")
    for name in files:
        check_name(path, name)


def check_name(path: Path, name: str) -> None:
    parts = name.split("/")
    if len(parts) > 2 or name in (MANIFEST, PARTIAL) or not all(map(_NAME.fullmatch, parts)):
        raise RecordError(
            f"{path}: {name!r} is not a name for a file in a record; use letters, digits and "
            "_ . + = - with at most one folder"
        )


def verified_files(folder: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of each file listed; raises RecordError at the first that is not so."""
    for name, entry in manifest["files"].items():
        yield name, verified_file(folder / name, entry)
        if name.endswith("/" + MANIFEST):
            below = (folder / name).parent
            for inner, data in verified_files(below, read_manifest(below)):
                yield f"{below.name}/{inner}", data


def verified_file(path: Path, entry: dict[str, Any]) -> bytes:
    if not path.is_file():
        raise RecordError(f"{path}: missing; make the record again")
    with os_errors(path, "read"):
        size = path.stat().st_size
        data = path.read_bytes() if size == entry["bytes"] else b""
    if size != entry["bytes"] or entry_of(data) != entry:
        raise RecordError(f"{path}: damaged, its digest does not match; make the record again")
    return data
