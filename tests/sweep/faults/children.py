"""Child processes by fork: what happens to them happens to no one else, and they start at once."""

import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

HANG = 120.0
"""Seconds after which a child counts as hanging."""

Tell = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """What a child told until it ended; `code` is its exit code, or minus the signal."""

    code: int
    told: list[Any]
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self.code == -signal.SIGKILL


class Child:
    """A child that runs `function(tell)`: what it tells is with the parent at once, killed or not.

    An exception is told as its traceback, with exit code 70.
    """

    def __init__(self, function: Callable[[Tell], int | None]) -> None:
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.began = monotonic()
        self.process = os.fork()
        if not self.process:
            os.close(reader)
            _run(function, writer)
        os.close(writer)
        self.reader, self.heard = reader, b""

    def wait(self, kill_after: float | None = None) -> Ended:
        """Hear it out; after `kill_after` seconds, kill it."""
        limit = self.began + (HANG if kill_after is None else kill_after)
        while True:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, limit - monotonic()))
            if not ready:
                os.kill(self.process, signal.SIGKILL)
                limit = monotonic() + HANG
                continue
            part = os.read(self.reader, 1 << 16)
            if not part:
                break
            self.heard += part
        os.close(self.reader)
        _, status = os.waitpid(self.process, 0)
        # The last line may be cut off: nobody heard it, so it promised nothing.
        told = [json.loads(line) for line in self.heard.split(b"\n")[:-1]]
        return Ended(os.waitstatus_to_exitcode(status), told, monotonic() - self.began)


def in_child(function: Callable[[Tell], int | None], kill_after: float | None = None) -> Ended:
    """Run `function(tell)` in a child and hear it out."""
    return Child(function).wait(kill_after)


def _run(function: Callable[[Tell], int | None], writer: int) -> None:
    write = os.write

    def tell(message: Any) -> None:
        write(writer, json.dumps(message).encode() + b"\n")

    try:
        code = function(tell) or 0
    except BaseException:
        tell({"error": traceback.format_exc()[-3000:]})
        code = 70
    os._exit(code)
