"""Rows: tables of samples in memory or on disk, read in slices, and how samples are normalised."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from superpose.unmix.weights import Units

LARGEST = 1e18
"""Values have to be smaller than this, so that their squares are float32."""

_CHUNK = 2**17
_KINDS = (np.float16, np.float32, np.float64)


@runtime_checkable
class Table(Protocol):
    """Samples that can be read in any order: float16, float32 or float64, `[rows, d]`."""

    rows: int
    d: int
    dtype: np.dtype
    in_memory: bool

    def read(self, begin: int, end: int) -> NDArray:
        """The rows from `begin` up to `end`, which are not to be written to."""
        ...

    def place(self, row: int) -> str:
        """Where a row comes from, for errors."""
        ...


class InMemory:
    """A table in memory, which is not copied where it is float16, float32 or float64."""

    in_memory = True

    def __init__(self, array: Tensor | NDArray | Sequence, name: str) -> None:
        self._array, self._name = as_rows(array, name), name
        self.rows, self.d = self._array.shape
        self.dtype = self._array.dtype

    def read(self, begin: int, end: int) -> NDArray:
        """A view of the rows."""
        return self._array[begin:end]

    def place(self, row: int) -> str:
        """The name of the table and the row."""
        return f"{self._name}: row {row:,}"


def as_rows(values: object, name: str) -> NDArray:
    """An array or tensor `[..., d]` as real numbers `[rows, d]`; raises ValueError for others.

    bfloat16 and whole numbers become float32; the other kinds stay as they are.

    >>> as_rows([[[1, 2]], [[3, 4]]], "acts").shape
    (2, 2)
    """
    try:
        array = from_tensor(values) if isinstance(values, Tensor) else np.asarray(values)
        real = array.dtype.kind in "fbiu"
    except (TypeError, ValueError):
        real = False
    if not real:
        raise ValueError(f"{name}: samples are a table of real numbers, [samples, d]")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"{name} has the shape {list(array.shape)}: samples are [samples, d] with at least one "
            "of each; further axes before the last are taken as samples"
        )
    if array.dtype.newbyteorder("=") not in _KINDS:
        array = array.astype(np.float32)
    return array.reshape(-1, array.shape[-1])


def from_tensor(tensor: Tensor) -> NDArray:
    """A tensor as an array; bfloat16, which arrays do not have, becomes float32."""
    tensor = tensor.detach().cpu()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    bits = tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
    return (bits.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    r"""The units of one layer: normalised samples are $(x - centre) / scale$.

    `centre` is the mean and `scale` the root of the mean squared norm about it, times the root of
    the number of layers, so that the mean squared norm of all layers together is 1.
    """

    centre: Float[np.ndarray, " d"]
    scale: float

    def into(self, out: Float32[np.ndarray, "rows d"], rows: Float[np.ndarray, "rows d"]) -> None:
        """Write normalised rows; arithmetic is float64 where the rows are, else float32."""
        if rows.dtype == np.float64:
            np.multiply(rows - self.centre, 1 / self.scale, out=out, casting="same_kind")
        else:
            np.subtract(rows, self.centre.astype(np.float32), out=out)
            np.multiply(out, np.float32(1 / self.scale), out=out)

    def gather(
        self,
        out: Float32[np.ndarray, "rows d"],
        table: Float[np.ndarray, "table d"],
        index: Int64[np.ndarray, " rows"],
    ) -> None:
        """Write the normalised rows of these numbers, few at a time so that they stay in cache."""
        step = max(1, _CHUNK // (4 * table.shape[1]))
        straight = table.dtype == np.float32
        for begin in range(0, len(index), step):
            part = slice(begin, begin + step)
            if straight:
                # No index is out of bounds; to have that checked costs a copy.
                self.into(out[part], np.take(table, index[part], 0, out=out[part], mode="clip"))
            else:
                self.into(out[part], np.take(table, index[part], 0))


def together(units: Sequence[Unit]) -> Units:
    """The units of layers beside one another."""
    return Units(
        np.concatenate([unit.centre for unit in units]),
        np.concatenate([np.full(len(unit.centre), unit.scale) for unit in units]),
    )


class Moments:
    """Mean and mean squared norm about it in one pass, in float64.

    Source: Chan, Golub and LeVeque 1983, the pairwise update.
    """

    def __init__(self, d: int) -> None:
        self.samples, self._mean, self._spread = 0, np.zeros(d), 0.0

    def add(self, rows: Float[np.ndarray, "rows d"]) -> None:
        """Count these samples in."""
        if not len(rows):
            return
        wide = rows.astype(np.float64)
        mean = wide.mean(0)
        wide -= mean
        difference, total = mean - self._mean, self.samples + len(rows)
        np.square(wide, out=wide)
        self._spread += float(wide.sum())
        self._spread += float(np.square(difference).sum()) * self.samples * len(rows) / total
        self._mean += difference * (len(rows) / total)
        self.samples = total

    def unit(self, name: str) -> Unit:
        """The units of one layer; raises ValueError where all samples are equal."""
        if not self._spread > 0:
            raise ValueError(
                f"unmix: all samples of {name} are equal, so there is nothing to un-mix; pass "
                "others"
            )
        return Unit(self._mean, float(np.sqrt(self._spread / self.samples)))


def slices(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Bounds of consecutive slices of a table, 4 MiB of float32 each."""
    step = max(1, 2**20 // width)
    return ((begin, min(begin + step, rows)) for begin in range(0, rows, step))


def wrong_row(rows: Float[np.ndarray, "rows d"]) -> tuple[int, str] | None:
    """The first row with a value that no training can use, and the value in words."""
    # Infinite, NaN or too large: whichever it is, the comparison of the extremes is false.
    if float(rows.min()) > -LARGEST and float(rows.max()) < LARGEST:
        return None
    wide = rows.astype(np.float64)
    row, column = np.argwhere(~(np.abs(wide) < LARGEST))[0].tolist()
    return row, f"{wide[row, column]} in column {column}"


def refuse(place: str, words: str) -> None:
    """Raise the error of a value that is not usable."""
    raise ValueError(
        f"{place} has {words}; values are finite and below {LARGEST:g}: drop or repair such samples"
    )


def philox(seed: int, number: int, part: int = 0) -> np.random.Generator:
    """Random numbers of one epoch or refill, apart from those that initial weights are made of."""
    key = np.array([seed, number], np.uint64)
    counter = np.array([0, 0, part, 1], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def digest(arrays: Iterable[NDArray]) -> str:
    """SHA-256 of the numbers in arrays."""
    found = sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
