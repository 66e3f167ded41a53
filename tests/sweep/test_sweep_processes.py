"""Worker processes that are killed, drivers that are killed, and nothing lost or left running."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from superpose.sweep import configuration
from superpose.sweep.here import Here
from superpose.sweep.processes import Processes
from superpose.sweep.run import run
from superpose.sweep.store import Sweep
from superpose.sweep.work import Broken, Finished, Ticked

CONFIGURATION = """
seeds = 4
model = {{ n = 2, m = 1 }}
training = {{ steps = {steps}, batch = {batch} }}
shards = {{ models = 4 }}
[axes]
"world.p" = [1.0, 0.5, 0.25, 0.1, 0.05, 0.01]
"""
ENDLESS = {"steps": 2_000_000, "batch": 8192}  # minutes


def make(folder, steps=20, batch=16):
    text = CONFIGURATION.format(steps=steps, batch=batch)
    return Sweep.create(str(folder), configuration.parse(text))


class Watched:
    """An executor of processes that calls `each` with its pool whenever it was listened to."""

    def __init__(self, workers, each):
        self.workers, self.each = workers, each

    def start(self, where):
        self.pool = Processes(self.workers).start(where)
        hear = self.pool.hear

        def heard(timeout):
            events = hear(timeout)
            self.each(self.pool)
            return events

        self.pool.hear = heard
        return self.pool


def _wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _running(path):
    """The processes of which a command line names the path."""
    command = ["ps", "-ww", "-eo", "pid,args"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(path) in line]


def test_killed_workers_are_replaced_and_nothing_is_lost(tmp_path, caplog):
    """The first is killed before it has begun, the second as it begins."""
    killed = []

    def kill(pool):
        for worker in pool._workers:
            if len(killed) < 2 and worker.ready == bool(killed) and worker.shard is not None:
                killed.append(worker.shard)
                worker.process.send_signal(signal.SIGKILL)

    sweep = make(tmp_path / "sweep")
    with caplog.at_level(logging.WARNING, "superpose"):
        outcome = run(sweep, Watched(1, kill))
    assert len(killed) == 2
    assert (outcome.missing, outcome.failed) == (0, {})
    assert any("SIGKILL" in record.getMessage() for record in caplog.records)
    assert sweep.verify() == []
    assert _running(tmp_path) == []
    whole = make(f"memory://{tmp_path.name}")
    run(whole, Here())
    assert _tables(sweep) == _tables(whole)


def _tables(sweep):
    names = [name for name in sweep.folder.names("shards") if name.endswith(".parquet")]
    return {name: sweep.folder.read(name) for name in names}


def test_the_first_signal_lets_a_worker_finish_and_the_sweep_goes_on_later(tmp_path):
    def interrupt(pool):
        if len(sent) < 1 and pool._workers[0].ready:
            sent.append(os.getsid(pool._workers[0].process.pid))
            os.kill(os.getpid(), signal.SIGINT)

    sent, sweep = [], make(tmp_path / "sweep")
    outcome = run(sweep, Watched(1, interrupt))
    assert sent[0] != os.getsid(os.getpid())  # Ctrl-C in a terminal does not reach it
    assert outcome.interrupted
    assert 0 < outcome.done < 6
    assert run(sweep, Here()).missing == 0
    whole = make(f"memory://{tmp_path.name}")
    run(whole, Here())
    assert _tables(sweep) == _tables(whole)


def test_the_second_signal_stops_workers_in_training(tmp_path):
    def interrupt(pool):
        if all(worker.ready for worker in pool._workers):
            os.kill(os.getpid(), signal.SIGINT)

    sweep = make(tmp_path / "sweep", **ENDLESS)
    outcome = run(sweep, Watched(1, interrupt))
    assert outcome.interrupted
    assert outcome.done == 0
    assert _running(tmp_path) == []


DRIVER = """
import sys
from superpose.sweep.processes import Processes
from superpose.sweep.run import run
from superpose.sweep.store import Sweep

class Telling:
    def start(self, where):
        pool = Processes(1).start(where)
        hear = pool.hear
        def heard(timeout):
            events = hear(timeout)
            if any(worker.ready for worker in pool._workers):
                print("training", flush=True)
            return events
        pool.hear = heard
        return pool

run(Sweep.open(sys.argv[1]), Telling())
"""


def test_workers_end_by_themselves_when_the_driver_is_killed(tmp_path):
    folder = tmp_path / "sweep"
    make(folder, **ENDLESS)
    command = [sys.executable, "-c", DRIVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout.readline() == "training\n"
            running = _running("superpose.sweep.worker")
            assert any(str(folder) in line for line in running)
        finally:
            driver.kill()
    _wait_until(lambda: _running(folder) == [])
    again = Sweep.open(str(folder))
    assert again.verify() == []
    assert again.done() == frozenset()


def test_a_worker_that_cannot_start_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    outcome = run(make(tmp_path / "sweep"), Processes(1))
    assert "could not start" in outcome.broken
    assert outcome.done == 0


STRANGE = """#!/bin/sh
echo ready
read number
echo '# compiling something'
printf '["Ticked", 3'
sleep 0.2
echo ', 1]'
echo "a cry for help" >&2
echo '["Finished", 3]'
read number
echo "Segmentation fault" >&2
exit 1
"""


def test_a_pool_hears_lines_in_pieces_notices_and_last_words(tmp_path, monkeypatch, caplog):
    worker = tmp_path / "worker"
    worker.write_text(STRANGE)
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    pool, events = Processes(1).start("nowhere"), []
    with caplog.at_level(logging.INFO, "superpose"):
        pool.submit(3)
        _wait_until(lambda: events.extend(pool.hear(0.1)) or len(events) > 1)
        pool.submit(4)
        _wait_until(lambda: events.extend(pool.hear(0.1)) or len(events) > 2)
    pool.close(now=True)
    assert events[:2] == [Ticked(3, 1), Finished(3)]
    assert (events[2].shard, events[2].again) == (4, True)
    assert events[2].sentence.endswith("Segmentation fault")
    assert [record.getMessage() for record in caplog.records] == ["compiling something"]


def test_closing_waits_for_what_is_in_flight(tmp_path, monkeypatch):
    worker = tmp_path / "worker"
    worker.write_text(
        "#!/bin/sh\necho ready; read n; sleep 0.3; touch done; echo '[\"Finished\", 1]'"
    )
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    monkeypatch.chdir(tmp_path)
    pool = Processes(1).start("nowhere")
    pool.submit(1)
    pool.close(now=False)
    assert (tmp_path / "done").exists()


def test_workers_have_one_thread_each(tmp_path, monkeypatch):
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\nenv | grep THREADS > seen; exit 1")
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERPOSE_THREADS", "3")
    pool, events = Processes().start("nowhere"), []
    assert pool.window == 3
    pool.submit(0)
    _wait_until(lambda: events.extend(pool.hear(0.1)) or events)
    pool.close(now=True)
    assert isinstance(events[0], Broken)
    seen = dict(line.split("=") for line in (tmp_path / "seen").read_text().split())
    assert {"SUPERPOSE_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"} <= seen.keys()
    assert set(seen.values()) == {"1"}


def test_a_sweep_in_memory_is_refused():
    with pytest.raises(ValueError, match=r"Here\(\)"):
        Processes(1).start("memory://sweep")


def test_at_least_one_worker():
    with pytest.raises(ValueError, match="at least 1"):
        Processes(workers=-2)
