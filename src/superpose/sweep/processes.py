"""Shards trained by worker processes on this machine, one thread each."""

import logging
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, cast

from superpose.engine.shards import threads
from superpose.sweep import work
from superpose.sweep.work import Broken, Event, Failed

_log = logging.getLogger("superpose")

# Every library that has threads of its own gets one: the processes are the parallel ones.
_ONE_THREAD = {
    f"{name}_THREADS": "1"
    for name in ("SUPERPOSE", "OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "VECLIB_MAXIMUM", "NUMBA_NUM")
}


@dataclass(frozen=True, slots=True)
class Processes:
    """Train in `workers` processes of this machine, one for each core where not given.

    The cores are those that this process may use, or SUPERPOSE_THREADS. Raises ValueError for
    workers below 1 and for a sweep in memory, which other processes cannot see.

    >>> Processes(workers=0)
    Traceback (most recent call last):
        ...
    ValueError: Processes(workers=0): a whole number of at least 1
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"Processes(workers={self.workers}): a whole number of at least 1")

    def start(self, where: str) -> "Workers":
        """A pool for the sweep in the folder `where`."""
        if where.startswith("memory:"):
            raise ValueError(
                f"Processes: other processes cannot see {where}; run it with Here(), or choose a "
                "folder"
            )
        return Workers(where, threads() if self.workers is None else self.workers)


@dataclass(slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    shard: int | None = None
    ready: bool = False
    rest: bytes = b""  # of its output, behind the last whole line
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Workers:
    """A pool of processes, each started when there is a shard for it."""

    def __init__(self, where: str, window: int) -> None:
        self.window = window
        self._where = where
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._told: set[str] = set()

    def submit(self, shard: int) -> None:
        """Have a shard trained and written; returns at once."""
        idle = [worker for worker in self._workers if worker.shard is None]
        worker = idle[0] if idle else self._start()
        worker.shard = shard
        with suppress(OSError):  # where it has just died, `hear` will tell
            worker.stdin.write(f"{shard}\n".encode())

    def hear(self, timeout: float) -> Sequence[Event]:
        """What became of shards since; waits up to `timeout` seconds for the first news."""
        events: list[Event] = []
        for key, _ in self._selector.select(timeout):
            worker = key.data
            if worker not in self._workers:
                continue  # ended by an event before
            data = os.read(key.fd, 2**16)
            if not data:
                self._selector.unregister(key.fileobj)
            if key.fileobj is worker.stdout:
                events += self._read(worker, data) if data else self._ended(worker)
            else:
                worker.errors.extend(data.decode(errors="replace").splitlines())
        return events

    def drain(self) -> None:
        """Nothing to let go of: a shard begins when it is submitted."""

    def close(self, *, now: bool) -> None:
        """End the processes, after the shards in flight or `now`."""
        while not now and any(worker.shard is not None for worker in self._workers):
            self.hear(1.0)
        for worker in self._workers:
            worker.process.kill()  # an idle one has nothing to lose either
        for worker in self._workers:
            self._reap(worker)
        self._workers.clear()
        self._selector.close()

    def _start(self) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "superpose.sweep.worker", self._where],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | _ONE_THREAD,
            start_new_session=True,  # Ctrl-C is for the driver, which decides
        )
        pipes = (process.stdin, process.stdout, process.stderr)
        stdin, stdout, stderr = (cast(IO[bytes], pipe) for pipe in pipes)
        worker = _Worker(process, stdin, stdout, stderr)
        for stream in (worker.stdout, worker.stderr):
            self._selector.register(stream, selectors.EVENT_READ, worker)
        self._workers.append(worker)
        return worker

    def _read(self, worker: _Worker, data: bytes) -> list[Event]:
        *lines, worker.rest = (worker.rest + data).split(b"\n")
        events = []
        for line in lines:
            if line == b"ready":
                worker.ready = True
            elif line.startswith(b"# "):
                self._tell(line[2:].decode())
            else:
                event = work.from_json(line)
                if not isinstance(event, work.Ticked):
                    worker.shard = None
                events.append(event)
        return events

    def _tell(self, notice: str) -> None:
        """Say once what every worker has to say."""
        if notice not in self._told:
            self._told.add(notice)
            _log.info("%s", notice)

    def _ended(self, worker: _Worker) -> list[Event]:
        """What the end of a process means for the shard it had."""
        self._workers.remove(worker)
        code = self._reap(worker)
        if worker.shard is None:
            return []
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; too little memory may be why" if name == "SIGKILL" else ""
            return [Failed(worker.shard, f"its worker process ended by {name}{hint}", True)]
        last = worker.errors[-1] if worker.errors else f"exit code {code}"
        if not worker.ready:
            return [Broken(f"a worker process could not start: {last}")]
        return [Failed(worker.shard, f"its worker process ended: {last}", True)]

    def _reap(self, worker: _Worker) -> int:
        """End a process, with whatever it still had to say about why; gives its exit code."""
        worker.process.kill()
        code = worker.process.wait()
        for stream in (worker.stdout, worker.stderr):
            if stream in self._selector.get_map():
                self._selector.unregister(stream)
        worker.errors.extend(worker.stderr.read().decode(errors="replace").splitlines())
        for stream in (worker.stdin, worker.stdout, worker.stderr):
            stream.close()
        return code
