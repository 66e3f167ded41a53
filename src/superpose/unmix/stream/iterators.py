"""Batches from iterators, through a buffer that mixes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from superpose.unmix.stream.rows import Moments, Unit, as_rows, digest, philox, refuse, wrong_row
from superpose.unmix.stream.tables import Held

BUFFER = 65_536
"""Samples in the buffer, unless they are too many for `BUFFER_BYTES`."""

BUFFER_BYTES = 2**26

_DIGESTED = 1024


class Iterators:
    """Functions that each return an iterator over chunks `[rows, d]` of the same samples.

    The first buffer is read when the source is made: of it the units are measured, and from it
    samples are held out.
    """

    samples = None

    def __init__(
        self, factories: Sequence[Callable[[], Iterator]], share: float, resumable: bool
    ) -> None:
        self.factories, self.resumable = tuple(factories), resumable
        self._begun: Passage | None = Passage(self.factories)
        first = self._begun.pull(1)
        if not len(first[0]):
            raise ValueError("unmix: the iterator gave no samples; it has to give at least one")
        self.widths = tuple(rows.shape[1] for rows in first)
        self.room = max(1, min(BUFFER, BUFFER_BYTES // (4 * sum(self.widths))))
        rest = self._begun.pull(self.room - 1)
        self._head = [np.concatenate(parts) for parts in zip(first, rest, strict=True)]
        self.held = Held.choose(len(self._head[0]), share)
        self._kept = self.held.kept(0, len(self._head[0]))
        self.memory = 2 * self.room * 4 * sum(self.widths)

    def held_out(self) -> list[NDArray]:
        """The samples held out: some of those that came first."""
        return [rows[~self._kept] for rows in self._head]

    def digest(self) -> dict[str, Any]:
        """What tells these samples from others: the first of them."""
        return {
            "widths": list(self.widths),
            "held out": len(self.held),
            "buffer": self.room,
            "sha256": digest(rows[:_DIGESTED] for rows in self._head),
        }

    def units(self) -> tuple[list[Unit], int]:
        """The units of each iterator, measured on the first buffer."""
        found = []
        for number, rows in enumerate(self._head):
            moments = Moments(rows.shape[1])
            moments.add(rows[self._kept])
            found.append(moments.unit(f"iterator {number + 1}"))
        return found, int(self._kept.sum())

    def passage(self) -> "Passage":
        """The samples from the first on: those read already, where nobody has had them yet."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.give_back(self._head)
        elif self.resumable:
            begun = Passage(self.factories)
        else:
            raise ValueError(
                "unmix: the iterator has come to its end, or was used before, and it comes only "
                "once; train on fewer samples, or pass a function that returns a fresh one"
            )
        begun.skipped = ~self._kept
        return begun

    def feed(self, batch: int, seed: int, state: dict[str, Any] | None) -> "IteratorFeed":
        """The batches from the first on, or from where a state was taken."""
        if state is not None and not self.resumable:
            raise ValueError(
                "unmix: an iterator that can be gone through only once cannot be resumed; pass a "
                "function that returns a fresh one"
            )
        return IteratorFeed(self, batch, seed, state)

    @property
    def shuffling(self) -> str:
        """In which order samples come, in a sentence."""
        again = "" if self.resumable else "; it cannot be resumed, since it comes only once"
        return (
            f"samples are drawn at random from a buffer of {self.room:,}, refilled at half with "
            f"those that come next; each sample comes once in every pass{again}"
        )


class Passage:
    """One pass through iterators that go side by side."""

    def __init__(self, factories: Sequence[Callable[[], Iterator]]) -> None:
        self._iterators = [iter(factory()) for factory in factories]
        self._rest: list[list[NDArray]] = [[] for _ in factories]
        self._read = [0] * len(factories)
        self._widths: list[int | None] = [None] * len(factories)
        self.skipped = np.zeros(0, bool)
        self.pulled = 0

    def give_back(self, parts: Sequence[NDArray]) -> None:
        """Put rows that were pulled in front again."""
        for rest, rows in zip(self._rest, parts, strict=True):
            rest.insert(0, rows)
        self.pulled -= len(parts[0])

    def pull(self, count: int) -> list[NDArray]:
        """The next `count` samples of each iterator, fewer at the end, float32."""
        parts = [self._take(number, count) for number in range(len(self._iterators))]
        if len({len(part) for part in parts}) > 1:
            ends = ", ".join(f"{self.pulled + len(part):,}" for part in parts)
            raise ValueError(
                f"unmix: iterators of the same samples ended after {ends} of them; each has to "
                "give a row for every sample"
            )
        self.pulled += len(parts[0])
        return parts

    def pull_kept(self, count: int) -> list[NDArray]:
        """The next samples but those held out: at most `count`, none at the end."""
        while True:
            begin = self.pulled
            parts = self.pull(count)
            skip = self.skipped[begin : self.pulled]
            if not skip.any():
                return parts
            keep = np.concatenate([~skip, np.ones(self.pulled - begin - len(skip), bool)])
            if keep.any():
                return [part[keep] for part in parts]

    def _take(self, number: int, count: int) -> NDArray:
        rest, found = self._rest[number], []
        while count and (rest or self._next(number)):
            rows = rest.pop(0)
            if len(rows) > count:
                rest.insert(0, rows[count:])
            found.append(rows[:count])
            count -= len(found[-1])
        return np.concatenate(found) if found else np.empty((0, self._widths[number] or 0), "f4")

    def _next(self, number: int) -> bool:
        """Ask an iterator for a chunk; False at its end."""
        for chunk in self._iterators[number]:
            name = f"iterator {number + 1}"
            if not np.size(chunk):  # nothing now, perhaps more later
                continue
            rows = as_rows(chunk, f"what {name} gave")
            if rows.shape[1] != (self._widths[number] or rows.shape[1]):
                raise ValueError(
                    f"{name} gave samples of {rows.shape[1]} values after others of "
                    f"{self._widths[number]}; all have to be of one width"
                )
            if wrong := wrong_row(rows):
                refuse(f"{name}: row {self._read[number] + wrong[0]:,}", wrong[1])
            self._widths[number] = rows.shape[1]
            self._read[number] += len(rows)
            # A copy, because the iterator may write its next chunk to the same place.
            self._rest[number].append(np.array(rows, np.float32))
            return True
        return False


class IteratorFeed:
    """Batches from a buffer; what they hold is a function of the samples' order and the seed."""

    def __init__(
        self, source: Iterators, batch: int, seed: int, state: dict[str, Any] | None
    ) -> None:
        self._source, self._seed = source, seed
        self._room = max(source.room, 2 * batch)
        self._passage = source.passage()
        if state is None:
            self._refills = self._taken = 0
            self._ended = False
            self._buffer = [np.empty((0, width), np.float32) for width in source.widths]
            self._mix()
        else:
            self._restore(state)
        self._whole = self.state_now()

    def _restore(self, state: dict[str, Any]) -> None:
        self._refills, self._taken = int(state["refills"]), int(state["taken"])
        self._ended = bool(state["ended"])
        self._buffer = [state[f"buffer.{k}"].copy() for k in range(len(self._source.widths))]
        self._mix()
        there = int(state["pulled"])
        while (before := self._passage.pulled) < there:
            self._passage.pull(min(self._room, there - before))
            if self._passage.pulled == before:
                raise ValueError(
                    f"unmix: the iterator ended after {before:,} samples where it gave {there:,} "
                    "before; it has to give the same ones each time"
                )

    def state_now(self) -> dict[str, Any]:
        """The state at this very moment, which may be within a batch."""
        return {
            "refills": self._refills,
            "taken": self._taken,
            "ended": self._ended,
            "pulled": self._passage.pulled,
            **{f"buffer.{k}": rows for k, rows in enumerate(self._buffer)},
        }

    def state(self) -> dict[str, Any]:
        """What `Iterators.feed` goes on from."""
        return self._whole

    def fill(self, outs: Sequence[Float32[np.ndarray, "batch _"]], units: Sequence[Unit]) -> None:
        """Write the next batch, normalised, one array an iterator."""
        done = 0
        while done < len(outs[0]):
            left = len(self._order) if self._ended else len(self._order) - self._room // 2
            if self._taken >= left:
                self._refill()
                continue
            index = self._order[self._taken : min(left, self._taken + len(outs[0]) - done)]
            for out, unit, rows in zip(outs, units, self._buffer, strict=True):
                unit.gather(out[done : done + len(index)], rows, index)
            done += len(index)
            self._taken += len(index)
        self._whole = self.state_now()

    def _refill(self) -> None:
        """Fill the buffer with what comes next; at the end of a pass it is emptied first."""
        rest = self._order[self._taken :]
        if self._ended:
            self._passage, self._ended = self._source.passage(), False
        new, missing = [[rows[rest]] for rows in self._buffer], self._room - len(rest)
        while missing and not self._ended:
            parts = self._passage.pull_kept(missing)
            for rows, part in zip(new, parts, strict=True):
                rows.append(part)
            missing -= len(parts[0])
            self._ended = not len(parts[0])
        self._buffer = [np.concatenate(rows) for rows in new]
        if not len(self._buffer[0]):
            raise ValueError(
                "unmix: the function gave an iterator without samples; it has to give a fresh one "
                "each time"
            )
        self._refills += 1
        self._taken = 0
        self._mix()

    def _mix(self) -> None:
        self._order = philox(self._seed, self._refills).permutation(len(self._buffer[0]))

    def close(self) -> None:
        """Let go of the samples."""
        self._buffer = []
