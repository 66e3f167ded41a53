"""A worker process: shard numbers in, events out, one JSON line each.

It is started by `processes.Processes` as `python -m superpose.sweep.worker WHERE`, and ends when
its standard input does, which it also does when whoever started it is killed.
"""

import logging
import os
import sys
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TextIO

from superpose.sweep import work


class Lines:
    """Lines to whoever started the worker; the process ends where nobody reads them."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, Lock()

    def say(self, line: str) -> None:
        """Write one line."""
        try:
            with self._lock:
                self._file.write(f"{line}\n")
                self._file.flush()
        except OSError:
            os._exit(1)


class Notices(logging.Handler):
    """What the library has to say goes to whoever started the worker, who shows it once."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Send one notice, as text on one line."""
        self._lines.say("# " + " ".join(record.getMessage().split()))


def serve(where: str, lines: Lines) -> None:
    """Train the shards that standard input names, until it ends."""
    numbers: SimpleQueue[int] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            numbers.put(int(line))
        # A shard in training is left: what is not yet written was told to nobody.
        os._exit(0)

    Thread(target=listen, daemon=True).start()
    logger = logging.getLogger("superpose")
    logger.setLevel(logging.INFO)
    logger.addHandler(Notices(lines))
    lines.say("ready")
    source = work.Source(where)
    while True:
        number = numbers.get()

        def tell(models: int, number: int = number) -> None:
            lines.say(work.to_json(work.Ticked(number, models)))

        lines.say(work.to_json(work.attempt(source, number, tell)))


if __name__ == "__main__":
    # Events have standard output to themselves: what else is written there goes with the errors.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.argv[1], Lines(events))
