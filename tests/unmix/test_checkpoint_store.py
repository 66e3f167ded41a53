"""Checkpoints as files: the last two, whole or not at all, of one training alone."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from superpose.records import RecordError, files
from superpose.unmix import checkpoint
from superpose.unmix.checkpoint import Checkpoints

OF = {"seed": 0, "training": {"lr": 0.1, "samples": 10}, "codes": [{"name": "TopK"}]}


@dataclass
class Counter:
    """A training of numbers: each step adds its number."""

    done: int = 0
    total: float = 0.0

    def state(self):
        inner = {"total": np.array([self.total]), "silent": np.arange(self.done)}
        return {"done": self.done, "members": {"0": inner}}

    def run(self, kept, until, between=lambda done: None, within=lambda done: None):
        if state := kept.load():
            self.done = int(state["done"])
            (self.total,) = state["members"]["0"]["total"]
            assert np.array_equal(state["members"]["0"]["silent"], np.arange(self.done))
        while self.done < until:
            with kept.step(self.done + 1, self.state):
                self.done += 1
                within(self.done)
                self.total += self.done
            between(self.done)
        kept.finish(until, self.state)
        return self


def trained(folder, until=9, of=OF, **calls):
    with Checkpoints(folder, of) as kept:
        return Counter().run(kept, until, **calls)


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "monotonic", iter(range(10**6)).__next__)
    monkeypatch.setattr(checkpoint, "SHARE", 0.0)


def fail(at, error=OSError):
    def call(done):
        if done == at:
            raise error("as told")

    return call


def test_a_finished_training_is_there_and_is_not_done_again(tmp_path):
    assert trained(tmp_path / "c").total == 45
    assert trained(tmp_path / "c", within=fail(1)).total == 45
    assert [each.name for each in (tmp_path / "c").iterdir()] == ["0"]


def test_without_a_folder_nothing_is_kept():
    with Checkpoints(None, {}) as kept:
        assert kept.load() is None
        assert Counter().run(kept, 9).total == 45


def test_two_checkpoints_stay(often, tmp_path):
    trained(tmp_path / "c")
    assert sorted(each.name for each in (tmp_path / "c").iterdir()) == ["0", "1"]


def test_an_exception_between_steps_keeps_the_last_one(tmp_path):
    with pytest.raises(OSError, match="as told"):
        trained(tmp_path / "c", between=fail(4))
    begun = []
    assert trained(tmp_path / "c", within=begun.append).total == 45
    assert begun == [5, 6, 7, 8, 9]


def test_an_exception_within_a_step_keeps_what_was_whole(often, tmp_path):
    with pytest.raises(OSError, match="as told"):
        trained(tmp_path / "c", within=fail(4))
    begun = []
    assert trained(tmp_path / "c", within=begun.append).total == 45
    assert begun[0] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_heard_at_the_end_of_a_step(number, tmp_path, caplog):
    begun = []

    def interrupt(done):
        if done == 3:
            signal.raise_signal(number)
            begun.append("the step goes on")

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "c", within=interrupt)
    assert begun == ["the step goes on"]
    assert "stopping after this step" in caplog.text
    assert signal.getsignal(number) is before
    begun.clear()
    assert trained(tmp_path / "c", within=begun.append).total == 45
    assert begun[0] == 4


def test_a_second_interrupt_stops_at_once(tmp_path):
    def interrupt(done):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "c", within=interrupt)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (OF | {"seed": 1}, "seed was 0 and is now 1;"),
        (OF | {"training": {"lr": 0.2, "samples": 10}}, r"training lr was 0\.1 and is now 0\.2;"),
        (OF | {"codes": [{"name": "L1"}]}, "codes was .*TopK.* and is now .*L1"),
        (OF | {"more": True}, "more was None and is now True"),
    ],
    ids=["seed", "lr", "code", "more"],
)
def test_another_training_is_refused_by_what_differs(of, words, tmp_path):
    trained(tmp_path / "c")
    with pytest.raises(ValueError, match=f"holds another training: {words}.*choose another folder"):
        trained(tmp_path / "c", of=of)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(often, tmp_path, caplog):
    for name in ("arrays.safetensors", "manifest.json"):
        folder = tmp_path / name
        with pytest.raises(OSError, match="as told"):
            trained(folder, between=fail(6))
        newest = max(folder.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:-1])
        begun = []
        assert trained(folder, within=begun.append).total == 45
        assert begun[0] == 6
        assert "going on from" in caplog.text
        caplog.clear()


def test_where_all_are_damaged_nothing_is_begun_anew_unasked(often, tmp_path):
    trained(tmp_path / "c")
    for path in (tmp_path / "c").glob("*/arrays.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(RecordError, match=r"no other checkpoint is sound: remove .* anew"):
        trained(tmp_path / "c")
    for path in (tmp_path / "c").glob("*/manifest.json"):
        path.write_bytes(b"")
    with pytest.raises(RecordError, match="to begin anew"):
        trained(tmp_path / "c")


def test_a_crash_at_any_write_leaves_a_state_that_was_whole(often, tmp_path, monkeypatch):
    """A save is several writes and removals: whichever is the last, a checkpoint is there."""
    plain = files.Path.replace
    count = {"left": 10**9}

    def replace(self, target):
        count["left"] -= 1
        if count["left"] < 0:
            raise SystemExit("killed")
        return plain(self, target)

    monkeypatch.setattr(files.Path, "replace", replace)
    for writes in range(10):
        count["left"] = writes
        folder = tmp_path / str(writes)
        with pytest.raises(SystemExit):
            trained(folder, 5)
        count["left"] = 10**9
        begun = []
        assert trained(folder, 5, within=begun.append).total == 15
        # Three renames make a checkpoint: arrays, the manifest beside its place, and in it.
        assert begun[0] == writes // 3 + 1


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np
from superpose.records import files
from superpose.unmix import checkpoint
checkpoint.EVERY = checkpoint.SHARE = 0.0
plain, count = files.os.fsync, [0]
def fsync(handle):
    count[0] += 1
    if count[0] == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(handle)
files.os.fsync = fsync
from test_checkpoint_store import trained
trained({folder!r}, between=lambda done: None)
"""


def test_a_training_killed_while_saving_goes_on(tmp_path):
    tests = str(Path(__file__).parent)
    code = KILLED.format(tests=tests, at=20, folder=str(tmp_path / "c"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    begun = []
    assert trained(tmp_path / "c", within=begun.append).total == 45
    assert 1 < begun[0] < 9
