"""Shards trained on the machines of a Ray cluster."""

import json
import logging
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from time import monotonic, sleep
from typing import IO, cast

from superpose import __version__
from superpose.kernels import cpu
from superpose.sweep import work
from superpose.sweep.store import Sweep
from superpose.sweep.work import Broken, Event, Finished, Ticked

_log = logging.getLogger("superpose")

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # no environment is built anew on the workers
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # a cluster that is gone is given up after one minute, not 14
}

_ANSWER = 5.0  # seconds for the first answer of a machine
_SHUTDOWN = 20.0  # seconds for Ray to end
_LAG = 10.0  # seconds until a file written elsewhere is seen here


@dataclass(frozen=True, slots=True)
class Ray:
    """Train on a Ray cluster: the one at `address` ("host:port", or "auto"), or one of its own.

    Without an address a Ray with `workers` processors, all where not given, is started on this
    machine and ended with the pool. It listens to this machine only and asks for a secret token. A
    cluster with an address has been started by someone else and stays; the machine that this runs
    on must be part of it, and every machine must see the sweep's folder under the same name. There
    `workers` bounds the shards in flight. Needs `pip install 'superpose[ray]'`. Raises ValueError
    for workers below 1, other kinds of address, a sweep in memory and a cluster that does not
    answer.

    >>> Ray(workers=0)
    Traceback (most recent call last):
        ...
    ValueError: Ray(workers=0): a whole number of at least 1
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"Ray(workers={self.workers}): a whole number of at least 1")
        if self.address not in (None, "auto"):
            _host_and_port(cast(str, self.address))

    def start(self, where: str) -> "Machines":
        """A pool for the sweep in the folder `where`; takes some seconds."""
        if find_spec("ray") is None:
            raise ValueError("Ray: ray is not installed; pip install 'superpose[ray]'")
        if where.startswith("memory:"):
            raise ValueError(
                f"Ray: other processes cannot see {where}; run it with Here(), or choose a folder"
            )
        environment = os.environ | _SETTINGS
        if self.address is None:
            environment |= {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                # The one way to have Ray's servers listen to this machine only.
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            }
        elif self.address != "auto":
            self._check(environment)
        return Machines(self, Sweep.open(where), environment)

    def _check(self, environment: dict[str, str]) -> None:
        """Look whether anyone answers, for which Ray would wait minutes."""
        host, port = _host_and_port(cast(str, self.address))
        try:
            socket.create_connection((host, port), _ANSWER).close()
        except OSError as error:
            raise ValueError(
                f"Ray(address={self.address!r}): nobody answers there ({error.strerror or error}); "
                "start a cluster with `ray start --head`, or see its address with `ray status`"
            ) from error
        local = host == "localhost" or host.startswith("127.")
        if not local and environment.get("RAY_AUTH_MODE") != "token":
            _log.warning(
                "the cluster at %s is joined without a token (RAY_AUTH_MODE=token): if it asks for "
                "none, whoever reaches its ports can run programs on it",
                self.address,
            )


class Machines:
    """A pool on a Ray cluster, behind a process that holds the connection to it."""

    def __init__(self, chosen: Ray, sweep: Sweep, environment: dict[str, str]) -> None:
        self.window = 0
        self._sweep = sweep
        self._flying: set[int] = set()
        self._hosts = {""}  # which are known to write where this machine reads
        self._joined, self._error = False, ""
        self._rest = b""
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 - until `close`
        about = [chosen.address, chosen.workers, sweep.folder.where, sweep.digest, version()]
        self._process = subprocess.Popen(
            # Not by -m: Ray's workers must find its function in a module, not in __main__.
            [
                sys.executable,
                "-c",
                "from superpose.sweep.bridge import main; main()",
                json.dumps(about),
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver, which decides
        )
        self._stdin = cast(IO[bytes], self._process.stdin)
        self._stdout = cast(IO[bytes], self._process.stdout)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        try:
            self._await(chosen)
        except BaseException:
            self.close(now=True)
            raise

    def submit(self, shard: int) -> None:
        """Have a shard trained and written; returns at once."""
        self._flying.add(shard)
        self._say(str(shard))

    def drain(self) -> None:
        """No more will come: let go of what has not begun, each told of as `Dropped`."""
        self._say("drain")

    def hear(self, timeout: float) -> Sequence[Event]:
        """What became of shards since; waits up to `timeout` seconds for the first news.

        Of the models of a shard in training nothing is heard.
        """
        if not self._selector.select(timeout):
            return []
        data = os.read(self._stdout.fileno(), 2**16)
        if not data:
            return [Broken(f"the connection to the Ray cluster was lost: {self._last_words()}")]
        return [event for line in self._lines(data) for event in self._read(line)]

    def close(self, *, now: bool) -> None:
        """End the connection, and a Ray of its own, after the shards in flight or `now`."""
        broken = False
        while self._flying and not (now or broken):
            broken = any(isinstance(event, Broken) for event in self.hear(1.0))
        if self._process.returncode is None:
            self._stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_SHUTDOWN)
            # Of a Ray of its own something may be left, where it was ended without its consent.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._selector.close()
            self._stdout.close()
            self._noise.close()

    def _await(self, chosen: Ray) -> None:
        """Wait until the cluster is joined."""
        while not self._joined:
            data = os.read(self._stdout.fileno(), 2**16)
            for line in self._lines(data):
                self._read(line)
            if self._error or not data:
                raise ValueError(
                    f"Ray(address={chosen.address!r}): cannot use this cluster: "
                    f"{self._error or self._last_words()}; see docs/cluster.md"
                )

    def _say(self, line: str) -> None:
        with suppress(OSError):  # it has just ended, which `hear` will tell
            self._stdin.write(f"{line}\n".encode())

    def _lines(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in lines]

    def _read(self, line: str) -> list[Event]:
        kind, _, rest = line.partition(" ")
        if kind == "window":
            self.window = int(rest)
            self._joined = True
        elif kind == "error":
            self._error = rest
        elif kind == "#":
            _log.info("%s", rest)
        else:
            host, text = json.loads(line)
            event = work.from_json(text)
            if not isinstance(event, Broken | Ticked):
                self._flying.discard(event.shard)
            return [self._confirmed(host, event)]
        return []

    def _confirmed(self, host: str, event: Event) -> Event:
        """The event, if what the machine `host` writes is seen here; looked at once for each."""
        if not isinstance(event, Finished) or host in self._hosts:
            return event
        until = monotonic() + _LAG
        while not self._sweep.is_done(event.shard):
            if monotonic() > until:
                where = self._sweep.folder.where
                return Broken(
                    f"on {host} shard {event.shard} was written to {where}, and it is not in "
                    f"{where} here; the folder must be one that all machines share"
                )
            sleep(_LAG / 20)
        self._hosts.add(host)
        return event

    def _last_words(self) -> str:
        """What the bridge wrote last."""
        self._noise.seek(0)
        lines = self._noise.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else "no reason was given"


def version() -> str:
    """The version of the library and of its kernels, which must be the same everywhere."""
    return f"{__version__} with kernel {cpu.VERSION}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and "/" not in host and port.isdecimal() and int(port) < 2**16):
        raise ValueError(
            f"Ray(address={address!r}): the address of a cluster is host:port, such as "
            "10.0.0.1:6379, or auto for the one that this machine is part of; a driver outside "
            "of the cluster (ray://) is not supported"
        )
    return host, int(port)
