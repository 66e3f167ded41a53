"""Hints of who trains which shards, so that runners on one folder rarely do the same twice.

A runner writes `claims/<host>-<pid>-<token>.json` now and then and removes it at its end. Nothing
depends on claims: a shard trained twice is the same shard, and one that is claimed by a runner of
which nothing is heard is done by another. Those of killed runners go when the sweep is reindexed.
"""

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from superpose.records import RecordError
from superpose.records.folders import Folder
from superpose.sweep.index import SWEEP

EVERY, EVERY_REMOTE = 1.0, 10.0
"""Seconds between two looks at the claims of others, and between writes of changed ones."""

BEAT = 15.0
"""Seconds after which an unchanged claim is written again."""

STALE = 90.0
"""Seconds without a beat after which a runner is taken for dead; clocks may differ by less."""

_RUBBISH = (ValueError, TypeError, KeyError, OverflowError, RecursionError)


class Claims:
    """The claims of one runner on a sweep's folder, and its view of those of others."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._host = socket.gethostname()
        plain = "".join(c if c.isalnum() else "-" for c in self._host)[:40] or "host"
        self._name = f"claims/{plain}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._every = EVERY_REMOTE if "://" in folder.where else EVERY
        self._mine: list[int] = []
        self._beaten = self._looked = -STALE
        self._others: frozenset[int] = frozenset()

    def beat(self, shards: Iterable[int]) -> None:
        """Say that this runner lives and has these shards in training; often called, rarely done.

        What cannot be written is left: a full disk will be heard of where it matters. Nor is
        anything written where the sweep is gone, such as from a folder that was moved.
        """
        mine, now = sorted(shards), time.monotonic()
        if now - self._beaten < (BEAT if mine == self._mine else self._every):
            return
        self._mine, self._beaten = mine, now
        said = {"host": self._host, "pid": os.getpid(), "beat": time.time(), "shards": mine}
        with suppress(RecordError):
            if self._folder.has(SWEEP):
                self._folder.write(self._name, json.dumps(said).encode())

    def others(self) -> frozenset[int]:
        """The shards that other runners, as far as they are alive, have in training."""
        if time.monotonic() - self._looked >= self._every:
            self._others = self._read()
            self._looked = time.monotonic()
        return self._others

    def end(self) -> None:
        """Take the claims back."""
        with suppress(RecordError):
            self._folder.remove(self._name)

    def _read(self) -> frozenset[int]:
        claimed: set[int] = set()
        with suppress(RecordError):
            names = [name for name in self._folder.names("claims") if name != self._name]
            for name in names:
                # It may be gone by now, or be anything: it is a hint.
                with suppress(RecordError, *_RUBBISH):
                    said = json.loads(self._folder.read(name))
                    if self._lives(said):
                        claimed.update(map(int, said["shards"]))
        return frozenset(claimed)

    def _lives(self, said: dict[str, Any]) -> bool:
        if abs(time.time() - said["beat"]) > STALE:
            return False
        return said["host"] != self._host or _is_running(said["pid"])


def _is_running(pid: int) -> bool:
    if sys.platform == "win32":  # where signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
