"""Running a sweep: everything once, whatever fails, interrupts or runs beside it."""

import errno
import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from superpose.kernels import cpu
from superpose.records import RecordError
from superpose.sweep import configuration, refinement, words, work
from superpose.sweep.here import Here
from superpose.sweep.run import ATTEMPTS, run
from superpose.sweep.store import Sweep
from superpose.sweep.work import Broken, Dropped, Failed, Finished, Ticked

CONFIGURATION = """
seeds = 4
model = { n = 2, m = 1 }
training = { steps = 20, batch = 16 }
shards = { models = 4 }
[axes]
"world.p" = [1.0, 0.5, 0.25, 0.1, 0.05, 0.01]
"""
SHARDS, MODELS = 6, 24


def make(where, **more):
    return Sweep.create(str(where), configuration.parse(CONFIGURATION + more.pop("text", "")))


@pytest.fixture
def sweep(tmp_path):
    return make(f"memory://{tmp_path.name}-{os.urandom(4).hex()}")


@pytest.fixture(scope="module")
def expected():
    whole = make(f"memory://whole-{os.urandom(4).hex()}")
    run(whole, Here())
    return whole.table()


@dataclass
class Scripted:
    """An executor whose pool does what the script says becomes of (shard, attempt)."""

    script: object = lambda shard, attempt: None  # None: it is trained
    window: int = 2
    submitted: list = field(default_factory=list)
    closed: list = field(default_factory=list)
    drained: int = 0

    def start(self, where):
        self.source, self.events = work.Source(where), []
        return self

    def submit(self, shard):
        self.submitted.append(shard)
        self.events.append(shard)

    def hear(self, timeout):
        """One shard at a time; None from `hold` keeps those in flight as they are."""
        if not self.events:
            time.sleep(min(timeout, 0.01))
            return []
        shard = self.events.pop(0)
        said = self.script(shard, self.submitted.count(shard))
        if said == "hold":
            self.events.append(shard)
            time.sleep(0.01)
            return [Ticked(shard, 1)]
        return [work.attempt(self.source, shard, lambda models: None) if said is None else said]

    def drain(self):
        self.drained += 1

    def close(self, *, now):
        self.closed.append(now)


def failing(shards, sentence, again, times=10**9):
    def script(shard, attempt):
        return Failed(shard, sentence, again) if shard in shards and attempt <= times else None

    return script


def test_everything_is_trained_once_and_told(sweep, expected):
    told = []
    outcome = run(sweep, Here(), lambda *numbers: told.append(numbers))
    assert (outcome.done, outcome.missing) == (SHARDS, 0)
    assert (outcome.models, outcome.planned) == (MODELS, MODELS)
    assert not (outcome.failed)
    assert not (outcome.interrupted)
    assert not (outcome.broken)
    assert not (outcome.resumable)
    assert told[0] == (0, MODELS, 0)
    assert told[-1] == (MODELS, MODELS, 0)
    assert sorted(told) == told
    assert sweep.table().equals(expected)
    assert sweep.folder.names("claims") == {}


def test_what_is_there_is_not_trained_again(sweep):
    run(sweep, Here())
    executor, told = Scripted(), []
    outcome = run(sweep, executor, lambda *numbers: told.append(numbers))
    assert outcome.missing == 0
    assert executor.submitted == []
    assert told == [(MODELS, MODELS, 0)]


def test_a_shard_done_by_another_meanwhile_is_not_trained_again(sweep, monkeypatch):
    run(sweep, Here())
    monkeypatch.setattr(work, "train", lambda *_, **__: pytest.fail("trained again"))
    assert work.attempt(work.Source(sweep.folder.where), 3, lambda models: None) == Finished(3)


def test_a_passing_failure_is_tried_three_times_then_named_and_the_rest_goes_on(sweep):
    executor = Scripted(failing({2}, "its worker was killed", again=True))
    outcome = run(sweep, executor)
    assert outcome.failed == {2: "its worker was killed"}
    assert Counter(executor.submitted) == dict.fromkeys(range(SHARDS), 1) | {2: ATTEMPTS}
    assert (outcome.done, outcome.missing) == (SHARDS - 1, 1)
    assert outcome.resumable
    assert list(sweep.missing()) == [2]


def test_a_failure_that_passes_leaves_no_trace(sweep, expected):
    outcome = run(sweep, Scripted(failing({0, 5}, "it was killed", again=True, times=2)))
    assert outcome.missing == 0
    assert outcome.failed == {}
    assert sweep.table().equals(expected)


def test_a_failure_for_good_is_not_tried_again(sweep):
    executor = Scripted(failing({1, 4}, "ValueError: no", again=False))
    outcome = run(sweep, executor)
    assert outcome.failed == {1: "ValueError: no", 4: "ValueError: no"}
    assert max(Counter(executor.submitted).values()) == 1
    assert outcome.done == SHARDS - 2
    assert not outcome.resumable


def test_where_nothing_can_be_written_it_stops_at_once(sweep):
    executor = Scripted(lambda shard, attempt: Broken("the disk is full"))
    outcome = run(sweep, executor)
    assert outcome.broken == "the disk is full"
    assert len(executor.submitted) == 2
    assert executor.closed == [True]
    assert outcome.resumable
    assert outcome.done == 0


ERRORS = [
    (RecordError("x: damaged"), Failed(0, "x: damaged", False)),
    (MemoryError(), Failed(0, "out of memory", True)),
    (ValueError("no"), Failed(0, "ValueError: no", False)),
    (OSError(errno.ECONNRESET, "reset"), Failed(0, "[Errno 104] reset", True)),
    (OSError(errno.ENOSPC, "full"), Broken("[Errno 28] full")),
    (PermissionError("denied"), Broken("denied")),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_every_error_of_a_shard_becomes_an_event(sweep, monkeypatch, number):
    error, event = ERRORS[number]

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(work, "train", refuse)
    assert work.attempt(work.Source(sweep.folder.where), 0, lambda models: None) == event


CAUSES = {"ENOSPC": True, "EDQUOT": True, "EIO": True, "EACCES": True, "EMFILE": True}
CAUSES |= {"EROFS": True, "ETIMEDOUT": False, "EAGAIN": False}


@pytest.mark.parametrize("name", CAUSES)
def test_a_store_that_cannot_be_written_is_told_from_one_that_hesitates(sweep, monkeypatch, name):
    def refuse(*_):
        number = getattr(errno, name)
        raise RecordError("cannot write") from OSError(number, os.strerror(number))

    monkeypatch.setattr(Sweep, "write", refuse)
    event = work.attempt(work.Source(sweep.folder.where), 0, lambda models: None)
    wanted = Broken("cannot write") if CAUSES[name] else Failed(0, "cannot write", True)
    assert event == wanted


def test_no_sweep_there_means_that_no_shard_can_be_done(tmp_path):
    event = work.attempt(work.Source(str(tmp_path / "none")), 0, lambda models: None)
    assert isinstance(event, Broken)
    assert "none" in event.sentence


@pytest.mark.parametrize(
    "event", [Ticked(1, 2), Finished(3), Dropped(4), ERRORS[0][1], ERRORS[4][1]]
)
def test_events_survive_the_way_through_a_pipe(event):
    line = work.to_json(event)
    assert "\n" not in line
    assert work.from_json(line.encode()) == event


def interrupting(*signals, hold=False):
    """Send this process signals when the first shard is in flight, one at a time."""
    left = list(signals)

    def script(shard, attempt):
        if left:
            os.kill(os.getpid(), left.pop(0))
        return "hold" if hold else None

    return script


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_shards_in_training_finish(sweep, expected, number):
    before = signal.getsignal(number)
    executor = Scripted(interrupting(number))
    outcome = run(sweep, executor)
    assert outcome.interrupted
    assert outcome.resumable
    assert (outcome.done, len(executor.submitted)) == (2, 2)
    assert executor.drained == 1
    assert signal.getsignal(number) is before
    assert run(sweep, Here()).missing == 0
    assert sweep.table().equals(expected)


def test_the_second_signal_leaves_them(sweep):
    executor = Scripted(interrupting(signal.SIGINT, signal.SIGTERM, hold=True))
    outcome = run(sweep, executor)
    assert outcome.interrupted
    assert outcome.done == 0
    assert executor.closed == [True]


def test_the_third_signal_does_not_wait_for_the_loop(sweep):
    def hear(timeout):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    executor = Scripted()
    executor.hear = hear
    with pytest.raises(KeyboardInterrupt):
        run(sweep, executor)
    assert executor.closed == [True]


def test_here_a_shard_in_training_is_left_at_the_second_signal(tmp_path):
    text = CONFIGURATION.replace("steps = 20, batch = 16", "steps = 2_000_000, batch = 8192")
    endless = Sweep.create(f"memory://{tmp_path.name}-endless", configuration.parse(text))
    # Two of a kind would count as one where they come at once.
    for after, number in ((0.5, signal.SIGINT), (0.8, signal.SIGTERM)):
        threading.Timer(after, os.kill, (os.getpid(), number)).start()
    outcome = run(endless, Here())
    assert outcome.interrupted
    assert outcome.done == 0


def test_a_shard_let_go_before_it_began_waits_again(sweep):
    dropped = Scripted(lambda shard, attempt: Dropped(shard) if attempt < 6 else None)
    outcome = run(sweep, dropped)
    assert outcome.missing == 0
    assert outcome.failed == {}


def test_shards_that_another_runner_has_in_training_come_last(sweep):
    others = {"host": "elsewhere", "pid": 1, "beat": time.time(), "shards": [0, 1, 2]}
    sweep.folder.write("claims/elsewhere-1-00000000.json", json.dumps(others).encode())
    executor = Scripted(window=1)
    outcome = run(sweep, executor)
    assert outcome.missing == 0
    assert set(executor.submitted[:3]) == {3, 4, 5}


def test_runners_start_at_different_places(tmp_path):
    orders = set()
    for number in range(4):
        executor = Scripted()
        run(make(f"memory://{tmp_path.name}-{number}"), executor)
        orders.add(tuple(executor.submitted))
    assert len(orders) > 1


def test_several_runners_on_one_folder_end_with_everything_once(tmp_path, expected):
    sweep = make(tmp_path)
    outcomes = []
    runners = [
        threading.Thread(target=lambda: outcomes.append(run(Sweep.open(str(tmp_path)), Here())))
        for _ in range(3)
    ]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert [outcome.missing for outcome in outcomes] == [0, 0, 0]
    assert sweep.verify() == []
    assert sweep.table().equals(expected)


def test_a_damaged_shard_is_trained_again(tmp_path, expected):
    sweep = make(tmp_path)
    run(sweep, Here())
    path = sorted(tmp_path.glob("shards/000002/*.parquet"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert sweep.verify() != []
    told = []
    outcome = run(Sweep.open(str(tmp_path)), Here(), lambda *numbers: told.append(numbers))
    assert outcome.missing == 0
    assert told[0] == (MODELS - 4, MODELS, 0)
    again = Sweep.open(str(tmp_path))
    assert again.verify() == []
    assert again.table().equals(expected)


REFINED = """
seeds = 3
model = { n = 2, m = 1 }
training = { steps = 60, batch = 64, lr = 0.05 }
shards = { models = 6 }
refine = { measure = "loss", level = 0.01, axes = ["world.p"], width = 0.2 }
[axes]
"world.p" = { log = [1.0, 0.001], count = 3 }
"""


def test_a_refined_sweep_is_run_round_by_round_to_its_end(tmp_path):
    sweep = Sweep.create(str(tmp_path), configuration.parse(REFINED))
    told = []
    outcome = run(sweep, Here(), lambda *numbers: told.append(numbers))
    refined = Sweep.open(str(tmp_path))
    assert len(refined.plan.rounds) > 1
    assert refinement.next_round(refined) == ()
    assert outcome.missing == 0
    assert outcome.models == refined.plan.models == len(refined.table())
    assert outcome.models > sweep.plan.models
    assert told[-1] == (outcome.models, outcome.models, 0)
    rounds, grid = len(refined.plan.rounds), 3 * refined.plan.grid
    assert outcome.rounds == (rounds, grid)
    said = words.describe_outcome(outcome, "there")["refinement"]
    assert said == {"rounds": rounds, "models of the whole grid": grid}
    line = words.progress_line(outcome, "there")
    assert line.endswith(f"{rounds} rounds; the whole fine grid has {grid:,}")
    # The file of a round that is damaged is worked out again.
    table, path = refined.table(), tmp_path / "rounds" / "0001.json"
    path.write_bytes(path.read_bytes()[:-2])
    assert run(Sweep.open(str(tmp_path)), Here()).missing == 0
    again = Sweep.open(str(tmp_path))
    assert again.verify() == []
    assert again.table().equals(table)


def test_a_sweep_of_another_kernel_is_read_but_not_gone_on_with(sweep, monkeypatch):
    run(sweep, Scripted(), lambda done, *_: None)
    monkeypatch.setattr(cpu, "VERSION", "cpu-99")
    assert run(Sweep.open(sweep.folder.where), Scripted()).missing == 0
    sweep.folder.remove("shards/000000/DONE.json")
    with pytest.raises(ValueError, match=r"begun with kernel cpu-\d+, but .* has cpu-99"):
        run(Sweep.open(sweep.folder.where), Scripted())


def test_a_refined_sweep_interrupted_between_rounds_is_not_complete(tmp_path):
    text = (
        CONFIGURATION.split("[axes]")[0] + '[axes]\n"world.p" = { log = [1.0, 0.01], count = 2 }\n'
        '[refine]\nmeasure = "represented"\naxes = ["world.p"]\nwidth = 0.1\n'
    )
    sweep = Sweep.create(f"memory://{tmp_path.name}-refined", configuration.parse(text))
    executor = Scripted(lambda shard, attempt: os.kill(os.getpid(), signal.SIGINT))
    outcome = run(sweep, executor)
    assert outcome.interrupted
    assert outcome.missing == 0
    assert not outcome.complete
    assert outcome.resumable
    assert run(sweep, Scripted()).complete
