"""Shards trained in this very process, one after the other."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from superpose.sweep import work
from superpose.sweep.work import Event, Ticked


@dataclass(frozen=True, slots=True)
class Here:
    """Train in this process, one shard at a time on all of its threads.

    The simplest executor: nothing to start, which suits small sweeps and stores in memory.
    """

    def start(self, where: str) -> "InThread":
        """A pool for the sweep in the folder `where`."""
        return InThread(where)


class _Left(BaseException):
    """The shard in training is to be left."""


class InThread:
    """A pool of one thread, so that whoever waits for it hears Ctrl-C meanwhile."""

    window = 1

    def __init__(self, where: str) -> None:
        self._source = work.Source(where)
        self._news: SimpleQueue[Event] = SimpleQueue()
        self._thread: Thread | None = None

    def submit(self, shard: int) -> None:
        """Have a shard trained and written; returns at once."""
        self.close(now=False)  # the thread before has told its end, so this takes no time
        self._thread = Thread(target=self._work, args=(shard,), daemon=True)
        self._thread.start()

    def hear(self, timeout: float) -> Sequence[Event]:
        """What became of the shard since; waits up to `timeout` seconds for the first news."""
        try:
            news = [self._news.get(timeout=timeout)]
        except Empty:
            return []
        while not self._news.empty():
            news.append(self._news.get())
        return news

    def drain(self) -> None:
        """Nothing to let go of: a shard begins when it is submitted."""

    def close(self, *, now: bool) -> None:
        """Wait for the shard in flight, or have it left."""
        thread = self._thread
        if thread is None:
            return
        if now and thread.ident is not None:
            # It is raised when the thread next runs Python, which training does often.
            ident, leave = ctypes.c_ulong(thread.ident), ctypes.py_object(_Left)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, leave)
        thread.join()
        self._thread = None

    def _work(self, shard: int) -> None:
        def tell(models: int) -> None:
            self._news.put(Ticked(shard, models))

        with suppress(_Left):
            self._news.put(work.attempt(self._source, shard, tell))
