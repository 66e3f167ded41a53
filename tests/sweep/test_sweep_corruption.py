"""Whatever happens to the bytes of a sweep: it is seen, and never returned as data."""

import json
import os
import time

import numpy as np
import pytest
from tiny_sweeps import filled, made_up, problems, read, refined

from superpose.records import RecordError
from superpose.records.documents import format_document
from superpose.sweep.done import done_name
from superpose.sweep.index import INDEX, SWEEP
from superpose.sweep.store import Sweep

KINDS = ("sweep.json", "0001.json", "DONE.json", ".parquet", ".safetensors", "index.json")


def damaged(data, rng, flips, cuts):
    for at in rng.integers(0, 8 * len(data), flips):
        bad = bytearray(data)
        bad[at // 8] ^= 1 << at % 8
        yield bytes(bad)
    for length in rng.integers(0, len(data), cuts):
        yield data[:length]
    yield from (data + b"\0", data + data, bytes(len(data)), b"")


def fuzz(sweep, kind, flips, cuts):
    if kind == "DONE.json":  # or it would not be read
        sweep.folder.remove(INDEX)
    where, before = sweep.folder.where, read(sweep.folder.where, kind)
    assert before is not None
    (name, *_) = [name for name in sweep.folder.names() if name.endswith(kind)]
    path, data = os.path.join(where, name), sweep.folder.read(name)  # noqa: PTH118
    unseen, returned, slowest = [], [], 0.0
    for number, bad in enumerate(damaged(data, np.random.default_rng(0), flips, cuts)):
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(bad)
        began = time.perf_counter()
        after = read(where, kind)
        unseen += [] if problems(where) else [number]
        returned += [number] if after is not None and after != before else []
        # Only of a cache may the loss of a byte go by without an error.
        returned += [number] if after is not None and kind != "index.json" else []
        slowest = max(slowest, time.perf_counter() - began)
    assert (unseen, returned) == ([], [])
    assert slowest < 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_every_flip_and_cut_is_seen(sweep, kind):
    fuzz(sweep, kind, 300, 150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_flips_and_cuts_are_seen(sweep, kind):
    fuzz(sweep, kind, 7_000, 3_000)


@pytest.mark.parametrize("kind", ["DONE.json", ".parquet", ".safetensors"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_what_is_damaged_is_missing_and_made_again(sweep, sound, kind, how):
    (name, *_) = [name for name in sweep.folder.names("shards/000001") if name.endswith(kind)]
    data = bytearray(sweep.folder.read(name))
    data[len(data) // 2] ^= 1
    if how == "gone":
        sweep.folder.remove(name)
    else:
        sweep.folder.write(name, bytes(data if how == "flip" else data[:-3]))
    if kind == "DONE.json":  # or it would not be read
        sweep.folder.remove(INDEX)
    again = Sweep.open(sweep.folder.where)
    if (kind, how) != ("DONE.json", "gone"):
        assert read(again.folder.where, ".safetensors" if "safe" in kind else kind) is None
    assert list(again.missing(check=True)) == [1]
    assert not again.is_done(1)
    shard = again.plan.shard(1)
    again.write(shard, made_up(again.plan, shard), 1.0)
    assert list(again.missing(check=True)) == []
    assert again.is_done(1)
    assert problems(again.folder.where) == []
    assert again.table() == sound.table()


def test_a_damaged_round_is_worked_out_again(sweep, sound):
    data = bytearray(sweep.folder.read("rounds/0001.json"))
    data[-10] ^= 1
    sweep.folder.write("rounds/0001.json", bytes(data))
    broken = Sweep.open(sweep.folder.where)
    assert broken.verify()
    for act in (broken.table, broken.paths, lambda: broken.runs(2)):
        with pytest.raises(RecordError, match=r"rounds/0001\.json"):
            act()
    # Its shards are no longer known, but those before are, from which the round follows.
    assert broken.done() == {0}
    mended = broken.begin_round([2])
    assert mended.table() == sound.table()
    assert mended.verify() == []


def test_files_that_changed_places_are_seen(sweep, sound):
    here, there = (sweep.folder.read(done_name(number)) for number in (0, 1))
    sweep.folder.write(done_name(0), there)
    sweep.folder.write(done_name(1), here)
    sweep.folder.remove(INDEX)
    assert len(problems(sweep.folder.where)) >= 2
    assert read(sweep.folder.where, "") is None


def test_files_of_another_sweep_are_seen(sweep, tmp_path):
    other = filled(tmp_path / "other", refined(seed=1), [6])
    for name in other.folder.names("shards"):
        sweep.folder.write(name, other.folder.read(name))
    sweep.folder.remove("rounds/0001.json")
    sweep.folder.remove(INDEX)
    assert problems(sweep.folder.where)
    assert read(sweep.folder.where, "") is None
    assert list(Sweep.open(sweep.folder.where).missing()) == [0]


@pytest.mark.parametrize("name", [SWEEP, "rounds/0001.json", done_name(0), INDEX])
def test_another_version_of_a_format_is_named(sweep, name):
    data = json.loads(sweep.folder.read(name))
    content = {key: value for key, value in data.items() if key != "digest"} | {"version": 2}
    sweep.folder.write(name, format_document(content))
    said = problems(sweep.folder.where)
    assert any("version 2" in problem for problem in said)


def test_undamaged_it_is_sound(sweep):
    assert problems(sweep.folder.where) == []
    assert all(read(sweep.folder.where, kind) is not None for kind in KINDS)
