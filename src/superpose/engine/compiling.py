"""Saying so when training has to wait for the compiler."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from numba.core import event

_log = logging.getLogger("superpose")


class _Announcer(event.Listener):
    """Says once that a kernel is compiled. What is found on disk raises no event."""

    def __init__(self) -> None:
        self.told, self.lock = False, Lock()

    def on_start(self, event: event.Event) -> None:
        function = (event.data or {})["dispatcher"].py_func
        with self.lock:
            if self.told or not function.__module__.startswith("superpose.kernels"):
                return
            self.told = True
        _log.info(
            "compiling the training step for models like this one, which takes some seconds, "
            "or half a minute on a slow machine; the next process finds it on disk"
        )

    def on_end(self, event: event.Event) -> None:
        """Nothing more is said."""


@contextmanager
def announced() -> Iterator[None]:
    """Within, a message of the logger "superpose" at INFO says when a kernel compiles, once."""
    with event.install_listener("numba:compile", _Announcer()):
        yield
