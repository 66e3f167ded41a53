"""Ray: machines, workers and drivers that come and go, and every shard there once in the end."""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from superpose.sweep import cluster, configuration
from superpose.sweep.cluster import Machines, Ray
from superpose.sweep.here import Here
from superpose.sweep.run import run
from superpose.sweep.store import Sweep
from superpose.sweep.work import Broken, Dropped, Failed, Finished, from_json

needs_ray = pytest.mark.skipif(
    cluster.find_spec("ray") is None or not Path("/proc").is_dir(),
    reason="needs ray (pip install 'superpose[ray]') on Linux",
)

CONFIGURATION = """
seeds = 4
model = {{ n = 5, m = 2 }}
training = {{ steps = {steps}, batch = 64 }}
shards = {{ models = 4 }}
[axes]
"world.p" = {{ log = [1.0, 0.01], count = {cells} }}
"""


def make(folder, steps=20, cells=6):
    text = CONFIGURATION.format(steps=steps, cells=cells)
    return Sweep.create(str(folder), configuration.parse(text))


def _wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _processes():
    """Every process that has not ended, with its parent and its command."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if state != "Z":
            found[int(folder.name)] = int(parent), command
    return found


def _family(pid):
    """A process and those that it started, and those that they did."""
    parents = {child: parent for child, (parent, _) in _processes().items()}
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


# What Ray is asked for, and what it does not get.


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"workers": 0}, "at least 1"),
        ({"address": "10.0.0.1"}, "host:port"),
        ({"address": ":6379"}, "host:port"),
        ({"address": "10.0.0.1:port"}, "host:port"),
        ({"address": "10.0.0.1:70000"}, "host:port"),
        ({"address": "ray://10.0.0.1:10001"}, "not supported"),
        ({"address": ""}, "host:port"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, law):
    with pytest.raises(ValueError, match=law):
        Ray(**options)


def test_a_sweep_in_memory_is_refused():
    with pytest.raises(ValueError, match="other processes cannot see"):
        Ray().start("memory://sweep")


def test_without_ray_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'superpose\[ray\]'"):
        Ray().start(str(tmp_path))


def test_an_address_where_nobody_answers_is_told_at_once(tmp_path, caplog):
    sweep = make(tmp_path / "sweep")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(ValueError, match=f"127.0.0.1:{port}.*nobody answers"):
        run(sweep, Ray(f"127.0.0.1:{port}"))


@pytest.mark.parametrize("mode", ["", "token"])
def test_a_cluster_joined_without_a_token_is_warned_of(mode, monkeypatch, caplog):
    monkeypatch.setattr(cluster.socket, "create_connection", lambda *_: SimpleNamespace(close=int))
    Ray("10.0.0.1:6379")._check({"RAY_AUTH_MODE": mode})
    assert ("without a token" in caplog.text) == (mode != "token")


def test_a_folder_that_is_not_shared_is_noticed(monkeypatch, tmp_path):
    """What another machine has written must be there here; looked at once for each machine."""
    monkeypatch.setattr(cluster, "_LAG", 0.1)
    sweep, seen = make(tmp_path / "sweep"), []
    pool = object.__new__(Machines)
    pool._hosts, pool._flying = {""}, set()
    pool._sweep = SimpleNamespace(folder=sweep.folder, is_done=lambda shard: seen.append(shard))
    line = json.dumps(["far", json.dumps(["Finished", 3])])
    (event,) = pool._read(line)
    assert isinstance(event, Broken)
    assert "on far shard 3" in event.sentence
    assert "all machines share" in event.sentence
    pool._sweep.is_done = lambda shard: seen.append(shard) or True
    assert pool._read(line) == [Finished(3)]
    before = len(seen)
    assert pool._read(line) == [Finished(3)]
    assert len(seen) == before


# What a worker of the cluster does.


@pytest.fixture
def worker(monkeypatch):
    """`bridge.train`, without what it does to its process."""
    bridge = pytest.importorskip("superpose.sweep.bridge", exc_type=ImportError)
    monkeypatch.setenv("SUPERPOSE_THREADS", "1")
    monkeypatch.setattr(bridge.signal, "signal", lambda *_: None)
    bridge._source.cache_clear()
    return lambda *task: from_json(bridge.train(bridge.Task(*task), 0)[1])


def test_a_worker_trains_a_shard_of_the_sweep_that_is_meant(worker, tmp_path):
    sweep = make(tmp_path / "sweep")
    there = sweep.folder.where
    assert worker(there, sweep.digest, cluster.version()) == Finished(0)
    assert sweep.done() == {0}


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"where": "/no/such/folder"}, "every machine must see the sweep's folder"),
        ({"digest": "0" * 64}, "is another sweep here"),
        ({"version": "0.0.1 with kernel cpu-0"}, "install the same on every machine"),
    ],
    ids=["where", "digest", "version"],
)
def test_a_worker_that_sees_something_else_says_so(worker, tmp_path, change, law):
    sweep = make(tmp_path / "sweep")
    task = {"where": sweep.folder.where, "digest": sweep.digest, "version": cluster.version()}
    event = worker(*(task | change).values())
    assert isinstance(event, Broken)
    assert event.sentence.startswith(f"on {socket.gethostname()}: ")
    assert law in event.sentence
    assert not sweep.done()


def test_what_may_pass_is_tried_again_and_what_may_not_is_not():
    bridge = pytest.importorskip("superpose.sweep.bridge", exc_type=ImportError)
    from ray import exceptions

    died = from_json(bridge._failure(3, exceptions.WorkerCrashedError()))
    assert isinstance(died, Failed)
    assert (died.shard, died.again) == (3, True)
    assert from_json(bridge._failure(3, exceptions.TaskCancelledError())) == Dropped(3)
    alien = bridge._failure(3, exceptions.RaySystemError("no module named superpose"))
    assert "no module named superpose" in from_json(alien).sentence
    assert isinstance(from_json(alien), Broken)


# A Ray of its own.


def _listening(pids):
    """The addresses, in hexadecimal, at which some processes wait for others."""
    sockets = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(handle.readlink()).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    rows = [
        row.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for row in Path(table).read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


@needs_ray
def test_a_ray_of_its_own(tmp_path):
    """It is for this machine only, lets go of what has not begun, and leaves nothing running."""
    sweep = make(tmp_path / "sweep", steps=20_000)
    pool = Ray(workers=1).start(sweep.folder.where)
    family = _family(pool._process.pid)
    try:
        assert len(family) > 3
        # 127.0.0.1, as such and in its IPv6 form
        assert _listening(family) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        assert _listening(family)
        assert pool.window == 2
        for shard in range(6):
            pool.submit(shard)
        events = []
        _wait_until(lambda: events.extend(pool.hear(1.0)) or events)
        assert events[0] == Finished(events[0].shard)
        pool.drain()
        _wait_until(lambda: events.extend(pool.hear(1.0)) or len(events) == 6)
        assert {event.shard for event in events} == set(range(6))
        assert {type(event) for event in events} == {Finished, Dropped}
        assert sweep.done() == {event.shard for event in events if isinstance(event, Finished)}

        # A connection that breaks is told, and Ray ends as well.
        pool.submit(next(iter(sweep.missing())))
        family = _family(pool._process.pid)
        pool._process.kill()
        (event,) = pool.hear(60.0)
        assert isinstance(event, Broken)
        assert "connection to the Ray cluster was lost" in event.sentence
    finally:
        pool.close(now=True)
    _wait_until(lambda: not family & _processes().keys(), 30)


# A cluster of two nodes.


@dataclass
class Nodes:
    """The cluster of `ray_nodes.py`, which does as it is told."""

    process: subprocess.Popen
    address: str
    drivers: list[subprocess.Popen] = field(default_factory=list)

    def do(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster._SETTINGS.items():
            patch.setenv(name, value)
        # As for one that we start: for this machine, with a token.
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        nodes = Nodes(process, process.stdout.readline().strip())
        yield nodes
        for driver in nodes.drivers:  # those of tests that failed
            driver.kill()
            driver.wait()
        process.stdin.close()
        process.stdout.close()
        assert process.wait(60) == 0


def _driver(sweep, nodes):
    command = ["-m", "superpose.cli", "sweep", "--out", sweep.folder.where, "--quiet"]
    driver = subprocess.Popen(
        [sys.executable, *command, "--executor", "ray", "--address", nodes.address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    nodes.drivers.append(driver)
    return driver


def _kill_driver(driver, sweep):
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    of_it = ("superpose.sweep.bridge", sweep.folder.where)
    _wait_until(
        lambda: not any(all(part in text for part in of_it) for _, text in _processes().values())
    )


def _same_as_undisturbed(sweep, tmp_path):
    whole = Sweep.create(str(tmp_path / "whole"), sweep.plan.configuration)
    run(whole, Here())
    assert sweep.verify() == []
    assert len(sweep.done()) == sweep.plan.shards
    assert sweep.table().equals(whole.table())
    assert sweep.table(["index"])["index"].to_pylist() == list(range(sweep.plan.models))


@needs_ray
def test_machines_and_drivers_come_and_go(tmp_path, nodes):
    """A worker, a node and the driver are killed, a node joins: all shards are there once."""
    sweep = make(tmp_path / "sweep", steps=60_000, cells=20)
    driver = _driver(sweep, nodes)
    _wait_until(lambda: len(sweep.done()) >= 2)
    assert "killed" in nodes.do("kill")
    nodes.do("lose")
    nodes.do("add")
    done = len(sweep.done())
    _wait_until(lambda: len(sweep.done()) >= min(done + 2, sweep.plan.shards))
    _kill_driver(driver, sweep)
    kept = sweep.done()
    assert kept

    outcome = run(sweep, Ray(nodes.address))
    assert outcome.missing == 0
    assert kept <= sweep.done()
    _same_as_undisturbed(sweep, tmp_path)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_in_whatever_order(tmp_path, nodes, seed):
    """Workers, nodes and drivers die at random moments, three of each seed."""
    chance = random.Random(seed)
    sweep = make(tmp_path / "sweep", steps=60_000, cells=60)
    driver = _driver(sweep, nodes)
    for what in chance.choices(["kill", "lose", "driver"], k=3):
        goal = min(len(sweep.done()) + chance.randint(1, 8), sweep.plan.shards)
        _wait_until(lambda goal=goal: len(sweep.done()) >= goal)
        time.sleep(chance.random())
        if what == "driver":
            _kill_driver(driver, sweep)
            driver = _driver(sweep, nodes)
        else:
            nodes.do(what)
            if what == "lose":
                nodes.do("add")
    assert driver.wait(300) == os.EX_OK
    _same_as_undisturbed(sweep, tmp_path)
