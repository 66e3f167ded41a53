"""The process between a sweep and a Ray cluster: shard numbers in, events out, one line each.

It is started by `cluster.Ray` and ends when its standard input does. Ray handles signals, prints
on standard output, reads the environment and ends the process when the cluster is gone; in a
process of its own none of that reaches whoever called `run`. It holds nothing but the connection:
what trains is imported on the workers alone.
"""

import ipaddress
import json
import os
import signal
import socket
import sys
from collections import Counter
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    TaskCancelledError,
    WorkerCrashedError,
)

if TYPE_CHECKING:
    from superpose.sweep import work

# Twice the cluster's processors are in flight, so that none waits for the driver.
_AHEAD = 2

# How often a shard goes on elsewhere when its machine is lost, which is no fault of the shard.
_LOSSES = 10

_REFRESH = 2.0  # seconds between looks at how many processors there are

# The smallest that Ray starts with; nothing of ours goes through it.
_OBJECT_STORE = 80 * 2**20


class Task(NamedTuple):
    """What a worker is told besides the number of a shard: it must see this very sweep."""

    where: str
    digest: str
    version: str


@cache
def _source(task: Task) -> "work.Source | str":
    """The sweep as this machine sees it, or why it is not the one that is meant."""
    from superpose.sweep import cluster, work

    here = cluster.version()
    if here != task.version:
        return (
            f"superpose {here} is here, and {task.version} where the sweep was started; install "
            "the same on every machine"
        )
    source = work.Source(task.where)
    try:
        digest = source.sweep(0).digest
    except (work.RecordError, OSError, ValueError) as error:
        return f"{error}; every machine must see the sweep's folder under the same name"
    if digest != task.digest:
        return f"{task.where} is another sweep here; every machine must see the same folder"
    return source


def train(task: Task, number: int) -> tuple[str, str]:
    """Train and write one shard on this machine; gives its name and the event as a line."""
    # Ray cancels by an interrupt: what is in training goes on to its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["SUPERPOSE_THREADS"] = "1"
    from superpose.sweep import work

    host, source = socket.gethostname(), _source(task)
    if isinstance(source, str):
        return host, _line("Broken", f"on {host}: {source}")
    event = work.attempt(source, number, lambda models: None)
    if isinstance(event, work.Failed | work.Broken):
        event = event._replace(sentence=f"on {host}: {event.sentence}")
    return host, work.to_json(event)


def _line(kind: str, *fields: str | int) -> str:
    """An event as `work.to_json` writes it."""
    return json.dumps([kind, *fields])


class Bridge:
    """Shards on their way through Ray."""

    def __init__(self, task: Task, most: int | None, lines: TextIO) -> None:
        self._task, self._most, self._lines = task, most, lines
        self._train = ray.remote(num_cpus=1, max_retries=0)(train)
        self._news: SimpleQueue[tuple[int, Future[Any] | None] | str] = SimpleQueue()
        self._flying: dict[int, Any] = {}
        self._losses: Counter[int] = Counter()
        self._window = -1
        self._draining = False

    def serve(self) -> None:
        """Do what standard input says, until it ends."""
        Thread(target=self._listen, daemon=True).start()
        looked = -_REFRESH
        while True:
            if monotonic() - looked >= _REFRESH:
                self._look()
                looked = monotonic()
            try:
                news = self._news.get(timeout=_REFRESH)
            except Empty:
                continue
            if news == "end":
                return
            if news == "drain":
                self._draining = True
                for reference in self._flying.values():
                    ray.cancel(reference)
            elif isinstance(news, tuple):
                self._take_in(*news)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._news.put("drain" if line == "drain\n" else (int(line), None))
        self._news.put("end")

    def _look(self) -> None:
        """Say how many shards may be in flight, as machines come and go."""
        processors = int(ray.cluster_resources().get("CPU", 0))
        window = _AHEAD * processors
        if self._most is not None:
            window = min(window, self._most)
        if window != self._window:
            self._window = window
            if not window:
                self._say("# the cluster has no processors; waiting for machines to join")
            self._say(f"window {window}")

    def _take_in(self, number: int, future: Future[Any] | None) -> None:
        if future is None:
            self._submit(number)
            return
        del self._flying[number]
        host = ""
        try:
            host, line = future.result()
        except NodeDiedError as error:
            self._losses[number] += 1
            if self._draining:
                line = _line("Dropped", number)
            elif self._losses[number] > _LOSSES:
                line = _line("Failed", number, _brief(error), True)
            else:
                self._say(f"# a machine was lost; shard {number} goes on elsewhere")
                self._submit(number)
                return
        except RayError as error:
            line = _failure(number, error)
        self._say(json.dumps([host, line]))

    def _submit(self, number: int) -> None:
        reference = self._train.remote(self._task, number)
        self._flying[number] = reference
        reference.future().add_done_callback(lambda done: self._news.put((number, done)))

    def _say(self, line: str) -> None:
        self._lines.write(f"{line}\n")
        self._lines.flush()


def _failure(number: int, error: RayError) -> str:
    if isinstance(error, TaskCancelledError):
        return _line("Dropped", number)
    if isinstance(error, WorkerCrashedError | OutOfMemoryError):
        return _line("Failed", number, _brief(error), True)
    # The work itself raises nothing, so a worker could not begin it.
    return _line(
        "Broken",
        f"a worker of the cluster could not begin: {_brief(error)}; superpose[ray] must be "
        "installed on every machine, in the same version",
    )


def _brief(error: RayError) -> str:
    """The last line that says something; Ray puts whole tracebacks into its messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def connect(address: str | None, workers: int | None) -> None:
    """Join the cluster at `address`, or start one that this machine alone can reach."""
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is not None:
        ray.init(address=address, **quiet)
        return
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE,
        _node_ip_address="127.0.0.1",
        **quiet,
    )
    where = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(where).is_loopback and os.environ.get("RAY_AUTH_MODE") != "token":
        ray.shutdown()
        raise RuntimeError(
            f"the local Ray listens at {where} without a token, for anyone to run code in; "
            "set RAY_AUTH_MODE=token"
        )


def main() -> None:
    """Serve, as the JSON in the first argument says."""
    # Events have standard output to themselves: what Ray writes there goes with the errors.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    address, workers, *task = json.loads(sys.argv[1])
    try:
        connect(address, workers)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        print("error", " ".join(str(error).split()), file=lines, flush=True)
        return
    with suppress(BrokenPipeError):  # whoever called is gone
        Bridge(Task(*task), workers if address else None, lines).serve()
    ray.shutdown()
