"""The stream: normalised batches, the next one prepared while one is trained on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from superpose.activations import Activations
from superpose.unmix.stream.generators import Generator, Generators
from superpose.unmix.stream.iterators import Iterators
from superpose.unmix.stream.rows import InMemory, Unit, together
from superpose.unmix.stream.shards import Shards
from superpose.unmix.stream.tables import Tables
from superpose.unmix.weights import aligned


class Batch(NamedTuple):
    """Samples and what they are to be turned into: for an autoencoder the same array."""

    x: Float32[np.ndarray, "batch d_in"]
    target: Float32[np.ndarray, "batch d_out"]


@runtime_checkable
class Feed(Protocol):
    """What fills batches, one after another."""

    def fill(self, outs: Sequence[NDArray], units: Sequence[Unit]) -> None:
        """Write the next batch, normalised, one array a layer."""
        ...

    def state(self) -> dict[str, Any]:
        """Where it is: after the last batch that was filled to its end."""
        ...

    def close(self) -> None:
        """Let go of the samples."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where samples come from: `layers` of them are the input, those behind it the target."""

    origin: Tables | Iterators | Generators
    layers: int

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes of the layers of the input."""
        return self.origin.widths[: self.layers]

    @property
    def written(self) -> tuple[int, ...]:
        """The sizes of the layers that are reconstructed: the target's, or else the input's."""
        return self.origin.widths[self.layers :] or self.widths

    def held_out(self) -> tuple[Float[Tensor, "held d_in"], Float[Tensor, "held d_out"]]:
        """The samples held out of training, in units of their own, and their targets.

        The input again where there is no target; layers stand beside one another.
        """
        parts = [torch.from_numpy(part).float() for part in self.origin.held_out()]
        x = torch.cat(parts[: self.layers], 1)
        return x, torch.cat(parts[self.layers :], 1) if parts[self.layers :] else x

    def digest(self) -> dict[str, Any]:
        """What tells these samples from others, as plain JSON values."""
        return {"layers": self.layers, **self.origin.digest()}


def source(data: Any, target: Any = None, held_out: float = 0.0) -> Source:
    """Samples from wherever they are, with a share of them held out of training.

    `data` is Activations, a tensor or an array `[samples, d]`, the path of a `.npy`, `.npz` or
    `.safetensors` file or of a folder of such files, a function that returns an iterator over
    arrays `[rows, d]`, such an iterator itself, or something that draws batches, such as a
    world; or a sequence of these, the layers of a crosscoder. `target` is of the same sort, and
    what a transcoder turns `data` into. Of files and arrays `held_out` is a share of the samples,
    at most 16,384, in short runs all over; of iterators a share of the first buffer; a generator
    draws 16,384 others. Raises ValueError or FileNotFoundError for what cannot be samples.

    >>> found = source(torch.eye(40), held_out=0.05)
    >>> found.origin.samples, found.held_out()[0].shape
    (38, torch.Size([2, 40]))
    """
    if isinstance(data, Source):
        return data
    layers = _layers(data)
    targets = [] if target is None else _layers(target)
    names = [f"layer {k + 1}" for k in range(len(layers))] if len(layers) > 1 else ["acts"]
    parts = [_part(each, name) for each, name in zip(layers, names, strict=True)]
    parts += [_part(each, "target") for each in targets]
    return Source(_origin(parts, held_out), len(layers))


def open(
    data: Any, batch: int, seed: int, target: Any = None, state: dict[str, Any] | None = None
) -> "Stream":
    """The stream of batches of some samples (see `source`), a function of them and the seed.

    With the `state` of another stream of the same samples, batch and seed it goes on where that
    one was, bit for bit.

    >>> with open(torch.eye(40), batch=8, seed=0) as stream:
    ...     stream.batch().x.shape, stream.shuffling
    ((8, 40), 'each epoch is one random permutation of all 40 samples')
    """
    return Stream(source(data, target), batch, seed, state)


class Stream:
    """Normalised batches, float32; the next is prepared by a thread while one is in use.

    A batch is valid until the next is asked for: there are two, and they are used in turn. They
    and `memory` bytes of samples are all that the stream holds. Its units were measured in float64
    on `measured` samples, and `shuffling` says in which order samples come. To be used in a `with`
    statement, at whose end the thread ends.
    """

    def __init__(
        self, source: Source, batch: int, seed: int, state: dict[str, Any] | None = None
    ) -> None:
        self.source, origin = source, source.origin
        state = {} if state is None else state
        self._units, self.measured = _units_of(state) if state else _measured(source)
        after = self._units[source.layers :]
        self.units = together(self._units[: source.layers])
        self.target_units = together(after) if after else self.units
        written = source.written
        self.layers = written if len(written) > 1 else ()
        self.d_in, self.d_out = len(self.units.centre), len(self.target_units.centre)
        self.samples, self.shuffling = origin.samples, origin.shuffling
        self.resumable, self.memory = origin.resumable, origin.memory
        self._batches = [_empty_batch(batch, self.d_in, self.d_out, bool(after)) for _ in range(2)]
        inner = {key[5:]: each for key, each in state.items() if key.startswith("feed.")}
        self._feed: Feed = origin.feed(batch, seed, inner or None)
        self._thread = ThreadPoolExecutor(1, "superpose-stream")
        self._next = 0
        self._ahead: Future[None] | None = None
        if "ahead.x" in state:
            self._take_over(state)

    def batch(self) -> Batch:
        """The next batch; whatever went wrong with it in the thread is raised here."""
        if self._ahead is None:
            self._ahead = self._thread.submit(self._fill, self._batches[self._next])
        self._ahead.result()
        found, self._next = self._batches[self._next], 1 - self._next
        self._ahead = self._thread.submit(self._fill, self._batches[self._next])
        return found

    def state(self) -> dict[str, Any]:
        """Where the stream is, as plain values and arrays, for `open(…, state=…)`.

        The batch that was prepared ahead is part of it. Raises ValueError for an iterator that
        comes only once.
        """
        if not self.resumable:
            raise ValueError(
                "unmix: an iterator that can be gone through only once cannot be resumed; pass a "
                "function that returns a fresh one"
            )
        state: dict[str, Any] = {"measured": self.measured, "parts": len(self._units)}
        ahead = self._ahead
        # A stream that was closed may have left the next batch unbegun.
        if ahead is not None and not ahead.cancelled() and ahead.exception() is None:
            x, target = self._batches[self._next]
            state["ahead.x"] = x.copy()
            if target is not x:
                state["ahead.target"] = target.copy()
        state |= {f"feed.{key}": each for key, each in self._feed.state().items()}
        for number, unit in enumerate(self._units):
            state[f"centre.{number}"] = unit.centre
            state[f"scale.{number}"] = unit.scale
        return state

    def digest(self) -> dict[str, Any]:
        """What tells the samples from others, as plain JSON values."""
        return self.source.digest()

    def close(self) -> None:
        """End the thread and let go of the samples."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._feed.close()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _fill(self, batch: Batch) -> None:
        layers, widths = self.source.layers, [len(unit.centre) for unit in self._units]
        outs = np.split(batch.x, np.cumsum(widths[: layers - 1]), axis=1)
        if layers < len(widths):
            outs += np.split(batch.target, np.cumsum(widths[layers:-1]), axis=1)
        self._feed.fill(outs, self._units)

    def _take_over(self, state: dict[str, Any]) -> None:
        """Take the batch that another stream had prepared for the one it is to give next."""
        x, target = self._batches[self._next]
        x[:] = state["ahead.x"]
        if target is not x:
            target[:] = state["ahead.target"]
        self._ahead = Future()
        self._ahead.set_result(None)


def _layers(data: Any) -> list[Any]:
    """The layers of some data: a sequence of tables, or of what gives tables, else one."""
    if not isinstance(data, Sequence) or isinstance(data, str):
        return [data]
    if data and all(isinstance(each, Activations) or not _is_table_row(each) for each in data):
        return list(data)
    return [data]


def _is_table_row(value: Any) -> bool:
    return not callable(value) and not isinstance(value, str | Path) and np.ndim(value) == 1


def _part(data: Any, name: str) -> Any:
    """One layer: a table, a generator, a factory of iterators or an iterator."""
    if isinstance(data, Activations):
        return InMemory(data.x, name)
    if isinstance(data, str | Path):
        return Shards(data)
    if isinstance(data, Tensor | np.ndarray | Sequence):
        return InMemory(data, name)
    if isinstance(data, Generator | Iterator) or callable(data):
        return data
    # What can be gone through again, such as a loader of data.
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        return data.__iter__
    raise ValueError(
        f"{name} is a {type(data).__name__}: pass a tensor or array [samples, d], a path, a "
        "function that returns an iterator over such arrays, or something that draws batches"
    )


def _origin(parts: list[Any], held_out: float) -> Tables | Iterators | Generators:
    if all(isinstance(part, InMemory | Shards) for part in parts):
        return Tables(parts, held_out)
    if all(isinstance(part, Generator) for part in parts):
        return Generators(parts, held_out)
    if any(isinstance(part, InMemory | Shards | Generator) for part in parts):
        raise ValueError(
            "unmix: all layers and the target are tables (in memory or in files), or all are "
            "iterators, or all draw batches; of different sorts they cannot be kept in step"
        )
    factories = [_once(part) if isinstance(part, Iterator) else part for part in parts]
    again = not any(isinstance(part, Iterator) for part in parts)
    return Iterators(factories, held_out, again)


def _once(iterator: Iterator) -> Callable[[], Iterator]:
    return lambda: iterator


def _measured(source: Source) -> tuple[list[Unit], int]:
    """The units of all layers, their scales such that the mean squared norm of all is 1."""
    units, samples = source.origin.units()
    counts = [source.layers] * source.layers + [len(units) - source.layers] * len(units)
    found = [
        Unit(unit.centre, unit.scale * count**0.5)
        for unit, count in zip(units, counts, strict=False)
    ]
    return found, samples


def _units_of(state: dict[str, Any]) -> tuple[list[Unit], int]:
    count = int(state["parts"])
    units = [Unit(state[f"centre.{k}"], float(state[f"scale.{k}"])) for k in range(count)]
    return units, int(state["measured"])


def _empty_batch(batch: int, d_in: int, d_out: int, two: bool) -> Batch:
    x = aligned((batch, d_in))
    return Batch(x, aligned((batch, d_out)) if two else x)
