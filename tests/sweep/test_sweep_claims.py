"""Claims are hints: of the living, for a while, and never in the way."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from tiny_sweeps import configuration, filled

from superpose.records import RecordError
from superpose.records.folders import Folder
from superpose.sweep import claims
from superpose.sweep.claims import Claims
from superpose.sweep.index import SWEEP


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    where = tmp_path / "sweep" if request.param == "disk" else f"memory://{tmp_path.name}"
    folder = Folder(where)
    folder.write(SWEEP, b"{}")
    return folder


def _claimed(folder, name, **said):
    said = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "beat": time.time(),
        "shards": [1, 2],
    } | said
    folder.write(f"claims/{name}.json", json.dumps(said).encode())


def test_others_see_what_a_runner_has_in_training_until_it_ends(folder):
    mine, theirs = Claims(folder), Claims(folder)
    mine.beat([5, 3])
    assert theirs.others() == {3, 5}
    assert mine.others() == frozenset()
    mine.end()
    assert Claims(folder).others() == frozenset()
    assert folder.names("claims") == {}


def test_a_changed_claim_is_written_after_a_second_an_unchanged_one_after_a_beat(
    tmp_path, monkeypatch
):
    folder, now = Folder(tmp_path), [100.0]
    folder.write(SWEEP, b"{}")
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    mine = Claims(folder)
    times = []
    write = folder.write
    monkeypatch.setattr(folder, "write", lambda *args: (times.append(now[0]), write(*args)))
    for second in range(40):
        now[0] = 100.0 + second / 4
        mine.beat([1])
    mine.beat([2])
    now[0] += 0.5
    mine.beat([3])
    now[0] += claims.BEAT
    mine.beat([3])
    assert times == [100.0, 109.75, 109.75 + 0.5 + claims.BEAT]


def test_a_look_at_the_others_is_kept_for_a_second(folder, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    mine = Claims(folder)
    assert mine.others() == frozenset()
    _claimed(folder, "a")
    assert mine.others() == frozenset()
    now[0] += claims.EVERY_REMOTE
    assert mine.others() == {1, 2}


def test_claims_of_the_dead_and_of_long_ago_do_not_count(folder):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    _claimed(folder, "gone", pid=gone.pid, shards=[1])
    _claimed(folder, "old", host="elsewhere", beat=time.time() - 2 * claims.STALE, shards=[2])
    _claimed(folder, "ahead", host="elsewhere", beat=time.time() + 2 * claims.STALE, shards=[3])
    _claimed(folder, "elsewhere", host="elsewhere", pid=gone.pid, shards=[4])
    _claimed(folder, "here", shards=[5])
    assert Claims(folder).others() == {4, 5}


RUBBISH = {
    "empty": b"",
    "no JSON": b"\x80\x04.",
    "a list": b"[]",
    "no shards": json.dumps({"host": "x", "pid": 1, "beat": time.time()}).encode(),
    "shards of text": json.dumps({"host": "x", "pid": 1, "beat": 1e300, "shards": ["a"]}).encode(),
    "deep": b"[" * 100_000,
    "a huge number": b'{"beat": ' + b"9" * 10_000 + b"}",
    "infinite": b'{"host": "x", "pid": 1, "beat": Infinity, "shards": [1]}',
    "a huge pid": json.dumps(
        {"host": socket.gethostname(), "pid": 2**70, "beat": time.time(), "shards": [9]}
    ).encode(),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_among_the_claims_is_passed_over(folder, kind):
    folder.write("claims/rubbish.json", RUBBISH[kind])
    _claimed(folder, "sound", shards=[7])
    assert Claims(folder).others() == {7}


def test_a_folder_that_cannot_be_written_or_read_is_no_error(folder, monkeypatch):
    def refuse(*_):
        raise RecordError("cannot")

    mine = Claims(folder)
    for name in ("write", "read", "names", "remove"):
        monkeypatch.setattr(folder, name, refuse)
    mine.beat([1])
    assert mine.others() == frozenset()
    mine.end()


def test_nothing_is_claimed_where_the_sweep_is_gone(tmp_path):
    Claims(Folder(tmp_path / "gone")).beat([1])
    assert not (tmp_path / "gone").exists()


def test_claims_of_killed_runners_go_with_other_leftovers(tmp_path):
    sweep = filled(tmp_path / "s", configuration(), [6])
    for name in ("killed", "living"):
        _claimed(sweep.folder, name)
    long_ago = time.time() - 7200
    os.utime(tmp_path / "s" / "claims" / "killed.json", (long_ago, long_ago))
    sweep.reindex()
    assert list(sweep.folder.names("claims")) == ["claims/living.json"]
