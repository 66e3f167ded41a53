"""The record that makes a shard one that is done, and the names of its files."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from superpose.records import RecordError
from superpose.records.documents import format_document, parse_document
from superpose.sweep.plan import Shard

DONE = "DONE.json"

REMEDY = "`superpose sweep --out` with this folder trains the shard again"

_VERSION = 1
_TABLE_LIMIT = 2**28
_DATA = re.compile(r"[0-9a-f]{12}\.(parquet|safetensors)")
_SHARD = re.compile(r"shards/(\d{6,18})/([^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The record that makes a shard one that is done: its files, and how they came to be.

    `files` has the size and SHA-256 of each file by its ending, "parquet" and, where weights are
    kept, "safetensors". `identity` says of what these are the results: `identity_of`.
    """

    shard: int
    identity: str
    files: dict[str, dict[str, Any]]
    kernel: str
    processor: str
    attempt: str
    host: str
    seconds: float

    def name(self, ending: str) -> str:
        """The name of one of its files in the sweep's folder: content decides it."""
        return f"{shard_folder(self.shard)}/{self.files[ending]['sha256'][:12]}.{ending}"

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of its files by name, in bytes."""
        return {self.name(ending): entry["bytes"] for ending, entry in self.files.items()}


def shard_folder(number: int) -> str:
    """The folder of a shard."""
    return f"shards/{number:06d}"


def done_name(number: int) -> str:
    """The name of the DONE record of a shard."""
    return f"{shard_folder(number)}/{DONE}"


def identity_of(configuration: str, shard: Shard, kernel: str, processor: str) -> str:
    """Of what a shard holds the results: SHA-256 of all that decides their bits.

    `configuration` is the digest of the configuration as sweep.json has it.
    """
    cells = shard.cells
    whole = isinstance(cells, range) or cells == tuple(range(cells[0], cells[0] + len(cells)))
    # Not the number of the shard, which the way of cutting decides.
    text = json.dumps(
        {
            "configuration": configuration,
            "cells": [cells[0], cells[-1] + 1] if whole else [list(cells)],
            "runs": [shard.runs.start, shard.runs.stop],
            "kernel": kernel,
            "processor": processor,
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def format_done(done: Done) -> bytes:
    """The bytes of a DONE record."""
    return format_document({"format": "superpose shard", "version": _VERSION, **asdict(done)})


def parse_done(where: str, data: bytes) -> Done:
    """The record that `format_done` wrote; raises RecordError for anything else."""
    content = parse_document(where, data, "superpose shard", _VERSION, REMEDY)
    return done_from(where, {k: v for k, v in content.items() if k not in ("format", "version")})


def done_from(where: str, content: Any) -> Done:
    """The record of which these are the fields as JSON values; RecordError for anything else."""
    try:
        done = Done(**content)
        texts = (done.identity, done.kernel, done.processor, done.attempt, done.host)
        sound = (
            type(done.shard) is int
            and 0 <= done.shard < 10**18
            and type(done.seconds) in (int, float)
            and all(isinstance(text, str) for text in texts)
            and {"parquet"} <= done.files.keys() <= {"parquet", "safetensors"}
            and all(_is_entry(entry) for entry in done.files.values())
            and done.files["parquet"]["bytes"] <= _TABLE_LIMIT
        )
    except (TypeError, AttributeError):
        sound, done = False, None
    if not sound or done is None:
        raise RecordError(f"{where}: not laid out as the record of a shard; {REMEDY}")
    return done


def _is_entry(entry: Any) -> bool:
    return (
        entry.keys() == {"bytes", "sha256"}
        and type(entry["bytes"]) is int
        and 0 <= entry["bytes"] < 2**48
        and isinstance(entry["sha256"], str)
        and re.fullmatch("[0-9a-f]{64}", entry["sha256"]) is not None
    )


def number_of(name: str) -> int | None:
    """The number of the shard in whose folder a file is; None of files elsewhere."""
    match = _SHARD.fullmatch(name)
    number = int(match[1]) if match else None
    return number if number is not None and name.startswith(shard_folder(number) + "/") else None


def is_data(name: str) -> bool:
    """Whether a file has the name of a shard's data, such as of an attempt that was killed."""
    return number_of(name) is not None and _DATA.fullmatch(name.rpartition("/")[2]) is not None
