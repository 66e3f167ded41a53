"""Batches from tables, in memory or on disk: each sample once an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray

from superpose.unmix.stream.rows import (
    Moments,
    Table,
    Unit,
    digest,
    philox,
    refuse,
    slices,
    wrong_row,
)

POOL = 2**28
"""Bytes of samples from disk that are mixed at a time."""

BLOCK = 2**20
"""Bytes of consecutive samples that are read from disk at once."""

HELD_OUT = 16_384
"""Samples that are held out at most."""

_SAMPLED = 256


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The samples held out of a table: `count` runs of `length` consecutive ones.

    Runs and not single samples, because those that were recorded beside one another are alike:
    neighbours of what was trained on would be scored too kindly.
    """

    starts: Int64[np.ndarray, " count"]
    length: int

    @classmethod
    def choose(cls, rows: int, share: float) -> "Held":
        """About this share of the rows, at most `HELD_OUT`; the same ones every time."""
        wanted = min(round(share * rows), HELD_OUT) if 0.0 < share < 1.0 else 0
        if share != 0.0 and not 0 < wanted < rows:
            raise ValueError(
                f"held_out={share!r} of {rows} samples: it is a share between 0 and 1 that leaves "
                "at least one sample on either side"
            )
        length = min(max(1, wanted // 64), 128)
        places = philox(0, 0).choice(rows // length, wanted // length, replace=False)
        return cls(np.sort(places).astype(np.int64) * length, length)

    def __len__(self) -> int:
        return len(self.starts) * self.length

    def kept(self, begin: int, end: int) -> Bool[np.ndarray, " rows"]:
        """Which of the rows from `begin` up to `end` are trained on."""
        kept = np.ones(end - begin, bool)
        first = np.searchsorted(self.starts, begin - self.length, side="right")
        for start in self.starts[first : np.searchsorted(self.starts, end)]:
            kept[max(start - begin, 0) : start - begin + self.length] = False
        return kept


class Tables:
    """Tables of the same samples: the layers of the input and those of the target."""

    resumable = True

    def __init__(self, tables: Sequence[Table], share: float = 0.0) -> None:
        first = tables[0]
        for table in tables:
            if table.rows != first.rows:
                raise ValueError(
                    f"{first.place(0).rpartition(':')[0]} has {first.rows:,} samples and "
                    f"{table.place(0).rpartition(':')[0]} {table.rows:,}: they are the same "
                    "samples seen at several places, one for one"
                )
        self.tables = tuple(tables)
        self.widths = tuple(table.d for table in tables)
        self.rows, self.held = first.rows, Held.choose(first.rows, share)
        self.samples = self.rows - len(self.held)
        in_memory = all(table.in_memory for table in tables)
        size = sum(table.d * table.dtype.itemsize for table in tables)
        self.block = self.rows if in_memory else min(self.rows, max(1, BLOCK // size))
        self.mixed = 1 if in_memory else max(1, POOL // (size * self.block))
        self.memory = 0 if in_memory else min(self.rows, self.block * self.mixed) * size

    def held_out(self) -> list[NDArray]:
        """The samples held out, as they are, of each table."""
        return [
            np.concatenate(
                [table.read(start, start + self.held.length) for start in self.held.starts.tolist()]
                or [np.empty((0, table.d), np.float32)]
            )
            for table in self.tables
        ]

    def digest(self) -> dict[str, Any]:
        """What tells these samples from others: all of them in memory, else some of each part."""
        some = np.unique(np.linspace(0, self.rows - 1, _SAMPLED).astype(np.int64)).tolist()
        read = (
            (table.read(begin, end) for begin, end in slices(self.rows, table.d))
            if table.in_memory
            else (table.read(row, row + 1) for row in some)
            for table in self.tables
        )
        return {
            "samples": self.rows,
            "widths": list(self.widths),
            "dtypes": [str(table.dtype) for table in self.tables],
            "held out": len(self.held),
            "block": self.block,
            "sha256": digest(array for arrays in read for array in arrays),
        }

    def feed(self, batch: int, seed: int, state: dict[str, Any] | None) -> "TableFeed":
        """The batches from the first on, or from where a state was taken."""
        return TableFeed(self, batch, seed, state)

    def units(self) -> tuple[list[Unit], int]:
        """The units of each table and the number of samples they were measured on."""
        return [self._unit(table) for table in self.tables], self.samples

    def _unit(self, table: Table) -> Unit:
        moments = Moments(table.d)
        for begin, end in slices(self.rows, table.d):
            rows = table.read(begin, end)
            if wrong := wrong_row(rows):
                refuse(table.place(begin + wrong[0]), wrong[1])
            moments.add(rows[self.held.kept(begin, end)] if len(self.held) else rows)
        return moments.unit(table.place(0).rpartition(":")[0])

    @property
    def shuffling(self) -> str:
        """In which order samples come, in a sentence."""
        reach = self.block * self.mixed
        if reach >= self.rows:
            return f"each epoch is one random permutation of all {self.samples:,} samples"
        return (
            f"each epoch takes blocks of {self.block:,} consecutive samples in random order and "
            f"mixes {self.mixed:,} blocks, {reach:,} samples, at a time; each of "
            f"{self.samples:,} samples comes once an epoch"
        )


class TableFeed:
    """Batches of tables; what a batch holds is a function of the seed and its number alone."""

    def __init__(self, source: Tables, batch: int, seed: int, state: dict[str, Any] | None) -> None:
        self._source, self._seed = source, seed
        self._position = 0 if state is None else int(state["position"])
        self._epoch = self._group = -1
        self._pool: list[NDArray] = []
        most = 0 if source.mixed == 1 else min(source.rows, source.block * source.mixed)
        # Taken once and written over: to ask the system for so much memory again costs as much
        # as to read it.
        self._rooms = [np.empty((most, table.d), table.dtype) for table in source.tables]
        bounds = list(self._blocks())
        self._counts = np.array([int(source.held.kept(*block).sum()) for block in bounds])

    def _blocks(self) -> Iterator[tuple[int, int]]:
        rows, step = self._source.rows, self._source.block
        return ((begin, min(begin + step, rows)) for begin in range(0, rows, step))

    def state(self) -> dict[str, Any]:
        """What `Tables.feed` goes on from."""
        return {"position": self._position}

    def fill(self, outs: Sequence[Float32[np.ndarray, "batch _"]], units: Sequence[Unit]) -> None:
        """Write the next batch, normalised, one array a table."""
        done = 0
        while done < len(outs[0]):
            index = self._ahead(self._position + done, len(outs[0]) - done)
            for out, unit, table in zip(outs, units, self._pool, strict=True):
                unit.gather(out[done : done + len(index)], table, index)
            done += len(index)
        self._position += done

    def _ahead(self, position: int, at_most: int) -> Int64[np.ndarray, " rows"]:
        """The next rows of the pool that holds the sample at this position of the stream."""
        epoch, within = divmod(position, self._source.samples)
        if epoch != self._epoch:
            self._plan(epoch)
        group = int(np.searchsorted(self._ends, within, side="right"))
        if group != self._group:
            self._load(group)
        within -= int(self._ends[group]) - len(self._order)
        return self._order[within : within + at_most]

    def _plan(self, epoch: int) -> None:
        """The order of the blocks in an epoch, and where each group of them ends."""
        self._epoch, self._group = epoch, -1
        self._turn = philox(self._seed, epoch).permutation(len(self._counts))
        mixed = self._source.mixed
        last = np.arange(mixed - 1, len(self._turn) + mixed - 1, mixed).clip(
            max=len(self._turn) - 1
        )
        self._ends = np.cumsum(self._counts[self._turn])[last]

    def _load(self, group: int) -> None:
        """Read the blocks of a group, and permute the samples that are trained on."""
        source = self._source
        begins = (self._turn[group * source.mixed :][: source.mixed] * source.block).tolist()
        bounds = [(begin, min(begin + source.block, source.rows)) for begin in begins]
        kept = np.concatenate([source.held.kept(begin, end) for begin, end in bounds])
        if len(bounds) == 1:
            self._pool = [table.read(*bounds[0]) for table in source.tables]
        else:
            self._pool = [
                _joined(table, bounds, room)
                for table, room in zip(source.tables, self._rooms, strict=True)
            ]
        self._order = philox(self._seed, self._epoch, group + 1).permutation(np.flatnonzero(kept))
        self._group = group

    def close(self) -> None:
        """Let go of the samples."""
        self._pool, self._rooms = [], []


def _joined(table: Table, bounds: list[tuple[int, int]], room: NDArray) -> NDArray:
    """Blocks of a table one behind the other, in the memory given for them."""
    done = 0
    for begin, end in bounds:
        room[done : done + end - begin] = table.read(begin, end)
        done += end - begin
    return room[:done]
