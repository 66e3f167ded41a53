"""Checkpoints: a training saved as it goes, so that it goes on bit for bit after any end."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from superpose import __version__, records
from superpose.kernels import streams
from superpose.kernels.autoencoder.compiling import compiled
from superpose.records.files import plain
from superpose.records.manifests import read_manifest

State = Mapping[str, Any]
"""Arrays and numbers by name, or further mappings of them."""

EVERY = 60.0
"""Seconds between two checkpoints at least."""

SHARE = 20.0
"""Training goes on for at least so many times as long as the last checkpoint took."""

_KIND = "checkpoint"
_SLOTS = ("0", "1")
_NAMED = 6
_log = logging.getLogger("superpose")


def identity(
    codes: Sequence[Any], training: Any, seeds: Sequence[int], seed: int, data: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the bits of a training depend on, as plain JSON values.

    `data` is what a stream says of its samples, `Stream.digest()`. The program, the libraries and
    the processor are part of it: on others the sums would be taken in another order.
    """
    described = [{"name": type(code).__name__} | asdict(code) for code in codes]
    return plain(
        {
            "codes": described[0] if len(described) == 1 else described,
            "training": asdict(training),
            "seeds": list(seeds),
            "seed": seed,
            "data": dict(data),
            "program": {
                "superpose": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "kernels": compiled.stamp[:16],
                "processor": streams.processor(),
            },
        }
    )


class Checkpoints:
    """The last two checkpoints of one training, in a folder; none where the folder is None.

    In its `with` statement Ctrl-C (and the signal to terminate) is heard at the end of a step:
    the state is saved, then KeyboardInterrupt raised; a second one is raised at once. Another
    exception, raised between two steps, goes on when the state is saved.
    """

    def __init__(self, folder: str | Path | None, identity: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else Path(folder)
        self._identity = plain(identity)
        self._slot = 0
        self._due = monotonic() + EVERY
        self._saved = -1
        self._whole: tuple[int, Callable[[], State]] | None = None
        self._signals = 0
        self._handlers: dict[int, Any] = {}

    def load(self) -> dict[str, Any] | None:
        """The newest state that is sound, as `capture` gave it, its numbers as arrays.

        None where nothing was saved. Raises ValueError where it is of another training, naming
        what differs, and RecordError where all that is there is damaged, or where nothing can be
        saved: better now than when there is something to lose.
        """
        self._require_writable()
        damaged = []
        for step, slot in self._newest():
            folder = self._path(slot)
            try:
                record = records.load(folder, _KIND)
            except records.RecordError as error:
                damaged.append(str(error))
                continue
            for words in damaged:
                _log.warning("%s; going on from the checkpoint before it", words)
            self._slot, self._saved = 1 - slot, step
            return _nested(record.arrays)
        if damaged:
            raise records.RecordError(
                f"{damaged[0]}; no other checkpoint is sound: remove {self._folder} to begin anew"
            )
        return None

    def _require_writable(self) -> None:
        if not self._folder:
            return
        above = self._folder.absolute()
        place = next(each for each in (above, *above.parents) if each.exists())
        try:
            with TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise records.RecordError(
                f"{self._folder}: no checkpoint can be saved there ({error.strerror or error}); "
                "choose a folder that can be written"
            ) from None

    def _newest(self) -> list[tuple[int, int]]:
        """Steps and slots of the checkpoints there are, the newest first, of this training."""
        found, unreadable = [], []
        for slot in range(len(_SLOTS)) if self._folder else ():
            folder = self._path(slot)
            if not (folder / "manifest.json").is_file():  # never saved, or killed while saving
                continue
            try:
                about = read_manifest(folder)["about"]
                self._require_same(about["of"])
                found.append((int(about["step"]), slot))
            except (records.RecordError, KeyError, TypeError) as error:
                unreadable.append((-1, slot, error))
        for _, slot, error in unreadable:
            if not found:
                raise records.RecordError(
                    f"{self._path(slot)}: not readable as a checkpoint ({error}); remove "
                    f"{self._folder} to begin anew"
                ) from None
            _log.warning("%s; going on from the other checkpoint", error)
        return sorted(found, reverse=True)

    def _require_same(self, there: Any) -> None:
        before, now = dict(_flat(there)), dict(_flat(self._identity))
        names = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
        if not names:
            return
        told = [
            f"{name.replace('/', ' ')} was {_short(before.get(name))} and is now "
            f"{_short(now.get(name))}"
            for name in names[:_NAMED]
        ]
        more = f", and {len(names) - _NAMED} more differ" if len(names) > _NAMED else ""
        raise ValueError(
            f"{self._folder}: holds another training: {'; '.join(told)}{more}; choose another "
            "folder, or remove this one to begin anew"
        )

    @contextmanager
    def step(self, number: int, capture: Callable[[], State]) -> Iterator[None]:
        """A step that is whole at its end: there, `capture()` is saved when it is due."""
        self._whole = None
        yield
        self._whole = (number, capture)
        if self._folder and (self._signals or monotonic() >= self._due):
            self._save()
        if self._signals:
            raise KeyboardInterrupt

    def finish(self, number: int, capture: Callable[[], State]) -> None:
        """Save the end of the training, where that has not been done."""
        self._whole = (number, capture)
        self._save()

    def _save(self) -> None:
        if self._whole is None or self._folder is None or self._whole[0] == self._saved:
            return
        begun, (number, capture) = monotonic(), self._whole
        self._whole = None  # what cannot be saved now is not tried again on the way out
        about = {"of": self._identity, "step": number}
        arrays = {key: np.asarray(value) for key, value in _flat(capture())}
        records.save(self._path(self._slot), kind=_KIND, about=about, arrays=arrays)
        self._saved, self._slot = number, 1 - self._slot
        now = monotonic()
        self._due = now + max(EVERY, SHARE * (now - begun))

    def _path(self, slot: int) -> Path:
        assert self._folder is not None
        return self._folder / _SLOTS[slot]

    def __enter__(self) -> "Checkpoints":
        if self._folder and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt
        _log.warning("stopping after this step, which is saved; once more stops at once")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if error is not None:
            with suppress(records.RecordError):  # the first failure is the one to be told
                self._save()


def _flat(state: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def _nested(arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for path, array in arrays.items():
        *above, name = path.split("/")
        inner = state
        for key in above:
            inner = inner.setdefault(key, {})
        inner[name] = array
    return state


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
