"""Hostile files, by someone able to compute digests: refused, and nothing in them is executed."""

import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_sweeps import problems, read

from superpose.records import RecordError
from superpose.records.documents import format_document, parse_document
from superpose.records.manifests import entry_of
from superpose.sweep.done import Done, done_name, format_done
from superpose.sweep.index import INDEX, SWEEP
from superpose.sweep.store import Sweep


class Bomb:
    def __reduce__(self):
        return eval, ("open(__import__('os').environ['CANARY'], 'w')",)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    peak, began = _peak(), time.perf_counter()
    yield
    assert not path.exists(), "something was executed"
    assert _peak() - peak < 2**30
    assert time.perf_counter() - began < 20


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forge(sweep, number, ending, data):
    """Put data into a shard, with a DONE record that says it is ours."""
    record = sweep._shards.record(number)
    files = record.files | {ending: entry_of(data)}
    fields = {name: getattr(record, name) for name in Done.__dataclass_fields__}
    forged = Done(**fields | {"files": files})
    sweep.folder.write(forged.name(ending), data)
    sweep.folder.write(done_name(number), format_done(forged))
    if INDEX in sweep.folder.names():
        sweep.folder.remove(INDEX)


def npz():
    out = io.BytesIO()
    np.savez(out, W=np.array([Bomb()], dtype=object))
    return out.getvalue()


def zip_bomb():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../escape", bytes(50 * 2**20))
    return out.getvalue()


def header(text, body=b""):
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(data)) + data + body


def entries(count):
    return {f"a{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(count)}


TENSORS = {
    "pickle": lambda: pickle.dumps(Bomb()),
    "npz": npz,
    "zip": zip_bomb,
    "empty": lambda: b"",
    "short": lambda: b"\0\0\0",
    "header past the end": lambda: (2**62).to_bytes(8, "little") + b"{}",
    "header of 64 MB": lambda: header(b" " * 2**26),
    "100k entries": lambda: header(entries(100_000)),
    "20k entries": lambda: header(entries(20_000)),
    "deep header": lambda: header(b"[" * 500_000),
    "list header": lambda: header([1, 2]),
    "overflow": lambda: header(
        {"W": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}
    ),
    "huge int": lambda: header(b'{"W": ' + b"9" * 4000 + b"}"),
    "negative": lambda: header({"W": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
    "overlap": lambda: header(
        {
            name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
            for name in ("index", "W", "b")
        },
        bytes(8),
    ),
    "other arrays": lambda: header(
        {"index": {"dtype": "I64", "shape": [1, 1], "data_offsets": [0, 8]}}, bytes(8)
    ),
    "flat index": lambda: header(
        {"index": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_hostile_weights_are_refused(sweep, canary, name):
    forge(sweep, 0, "safetensors", TENSORS[name]())
    with pytest.raises(RecordError):
        Sweep.open(sweep.folder.where).runs(0)


def parquet(table, **options):
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def many_rows():
    """A small file of which the footer claims 2^40 rows."""
    data = parquet(pa.table({"index": pa.array(np.zeros(777, np.int64))}))
    said = struct.pack("<B", 0x16)  # thrift: field of type i64
    old, new = _zigzag(777), _zigzag(2**40)
    length = struct.unpack("<I", data[-8:-4])[0]
    foot = data[-8 - length : -8].replace(said + old, said + new)
    assert foot != data[-8 - length : -8]
    return data[: -8 - length] + foot + struct.pack("<I", len(foot)) + b"PAR1"


def _zigzag(value):
    value <<= 1
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


TABLES = {
    "pickle": lambda _: pickle.dumps(Bomb()),
    "npz": lambda _: npz(),
    "zip": lambda _: zip_bomb(),
    "empty": lambda _: b"",
    "magic": lambda _: b"PAR1" * 4,
    "footer past the end": lambda _: b"PAR1" + b"\xff\xff\xff\x7fPAR1",
    "2^40 rows": lambda _: many_rows(),
    "no rows": lambda table: parquet(table.slice(0, 0)),
    "a row less": lambda table: parquet(table.slice(1)),
    "a row twice": lambda table: parquet(table.take([0, 0, 1])),
    "other order": lambda table: parquet(table.take([2, 1, 0])),
    "less columns": lambda table: parquet(table.drop_columns(["loss"])),
    "other types": lambda table: parquet(
        table.set_column(table.schema.get_field_index("loss"), "loss", table["loss"].cast("string"))
    ),
    "nulls": lambda table: parquet(
        table.set_column(0, "index", pa.array([None, None, None], pa.int64()))
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_hostile_tables_are_refused(sweep, canary, name):
    part = sweep.table().slice(0, 3)
    forge(sweep, 0, "parquet", TABLES[name](part))
    with pytest.raises(RecordError):
        Sweep.open(sweep.folder.where).table()


def test_a_table_that_unpacks_to_far_more_is_refused(sweep, monkeypatch):
    monkeypatch.setattr("superpose.records.formats._UNPACKED_LIMIT", 2**20)
    texts = pa.array(["x" * 2**20] * 3)
    packed = parquet(
        sweep.table().slice(0, 3).append_column("x", texts),
        compression="zstd",
        use_dictionary=False,
    )
    assert len(packed) < 2**14
    forge(sweep, 0, "parquet", packed)
    with pytest.raises(RecordError, match="not what should be here"):
        Sweep.open(sweep.folder.where).table()


DOCUMENTS = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "deep table": b'{"a":' * 50_000,
    "deep inside": b'{"format": "superpose shard", "a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "huge int": b'{"format": ' + b"9" * 100_000 + b"}",
    "not a number": b'{"format": "superpose shard", "version": 1, "digest": NaN}',
    "infinity": b'{"format": "superpose shard", "version": 1, "digest": 1e999}',
    "pickle": pickle.dumps(Bomb()),
    "utf-16": '{"format": "superpose shard"}'.encode("utf-16"),
    "bad utf-8": b'{"format": "\xff"}',
    "large": b" " * (2**25 + 1),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("where", [SWEEP, "rounds/0001.json", done_name(0), INDEX])
def test_hostile_documents_are_refused(sweep, sound, canary, name, where):
    (path := os.path.join(sweep.folder.where, where))  # noqa: PTH118
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(DOCUMENTS[name])
    if where == done_name(0):  # or it would not be read
        sweep.folder.remove(INDEX)
    assert problems(sweep.folder.where)
    if where == INDEX:
        assert Sweep.open(sweep.folder.where).table() == sound.table()
    else:
        assert read(sweep.folder.where, where) is None


LINE = {"bytes": 5, "sha256": "0" * 64}
RECORDS = {
    "another shard": {"shard": 1},
    "no shard": {"shard": -1},
    "huge shard": {"shard": 10**30},
    "a shard that is true": {"shard": True},
    "absolute": {"files": {"/etc/passwd": LINE}},
    "path": {"files": {"../../sweep.json": LINE}},
    "no files": {"files": {}},
    "files are a list": {"files": [1]},
    "no table": {"files": {"safetensors": LINE}},
    "digest is a path": {"files": {"parquet": LINE | {"sha256": "../../../../../etc/passwd"}}},
    "digest is long": {"files": {"parquet": LINE | {"sha256": "0" * 65}}},
    "negative size": {"files": {"parquet": LINE | {"bytes": -1}}},
    "huge size": {"files": {"parquet": LINE | {"bytes": 2**60}}},
    "size in words": {"files": {"parquet": LINE | {"bytes": "5"}}},
    "more about files": {"files": {"parquet": LINE | {"path": "/etc/passwd"}}},
    "an entry is text": {"files": {"parquet": "bytes"}},
    "no time": {"seconds": None},
    "kernel is a list": {"kernel": ["cpu"]},
    "another kernel": {"kernel": "cpu-0"},
    "another identity": {"identity": "0" * 64},
    "unknown key": {"path": "/etc/passwd"},
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_lie_are_refused(sweep, canary, name):
    path = done_name(0)
    content = parse_document(path, sweep.folder.read(path), "superpose shard", 1, "")
    sweep.folder.write(path, format_document(content | RECORDS[name]))
    sweep.folder.remove(INDEX)
    assert problems(sweep.folder.where)
    assert read(sweep.folder.where, "") is None
    assert 0 in Sweep.open(sweep.folder.where).missing()


PLANS = {
    "no configuration": {"configuration": None},
    "no sizes": {"sizes": []},
    "size of nought": {"sizes": [0]},
    "sizes in words": {"sizes": ["3"]},
    "sizes are a number": {"sizes": 3},
    "unknown key": {"configuration": {"modle": {"n": 2}}},
    "code": {"configuration": {"model": {"n": "__import__('os')", "m": 1}}},
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_that_lie_are_refused(sweep, canary, name):
    content = parse_document(SWEEP, sweep.folder.read(SWEEP), "superpose sweep", 1, "")
    sweep.folder.write(SWEEP, format_document(content | PLANS[name]))
    assert problems(sweep.folder.where)
    assert read(sweep.folder.where, SWEEP) is None


ROUNDS = {
    "no cells": {"cells": None},
    "words": {"cells": ["a"]},
    "of the coarse": {"cells": [0]},
    "twice": {"cells": [2, 2]},
    "beyond": {"cells": [5]},
    "before": {"cells": [-1]},
    "huge": {"cells": [10**4000]},
    "half": {"cells": [2.5]},
    "another round": {"round": 2},
    "another sweep": {"configuration": "0" * 64},
}


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_that_lie_are_refused(sweep, canary, name):
    path = "rounds/0001.json"
    content = parse_document(path, sweep.folder.read(path), "superpose round", 1, "")
    sweep.folder.write(path, format_document(content | ROUNDS[name]))
    assert problems(sweep.folder.where)
    assert read(sweep.folder.where, path) is None


@pytest.mark.parametrize("what", ["link", "link to a folder", "pipe", "folder", "sparse"])
@pytest.mark.parametrize("kind", ["DONE.json", ".parquet", "sweep.json"])
def test_what_is_no_plain_file_is_refused(sweep, tmp_path, canary, kind, what):
    (name, *_) = [name for name in sweep.folder.names() if name.endswith(kind)]
    path = tmp_path / "s" / name
    kept = path.rename(tmp_path / "kept")
    if what == "link":
        path.symlink_to(kept)
    elif what == "link to a folder":
        path.symlink_to(tmp_path)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    if kind == "DONE.json":  # or it would not be read
        sweep.folder.remove(INDEX)
    assert problems(sweep.folder.where) or what == "folder"
    assert read(sweep.folder.where, kind) is None or (kind, what) == ("DONE.json", "folder")


def test_a_folder_that_is_a_link_elsewhere_is_refused(sweep, tmp_path):
    (tmp_path / "s" / "shards" / "000000").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "shards" / "000000").symlink_to(tmp_path / "elsewhere")
    assert problems(sweep.folder.where)
    assert 0 in Sweep.open(sweep.folder.where).missing()


@pytest.mark.parametrize("name", ["shards/000000/weights.pkl", "notes.txt", "shards/7/DONE.json"])
def test_strange_files_are_named_and_never_read(sweep, sound, canary, name):
    sweep.folder.write(name, pickle.dumps(Bomb()))
    (said,) = problems(sweep.folder.where)
    assert name in said
    assert Sweep.open(sweep.folder.where).table() == sound.table()
