"""Shards: files of samples, read in slices and never whole, but for `.npz`."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from superpose.unmix.stream.rows import as_rows, from_tensor

SUFFIXES = (".npy", ".npz", ".safetensors")

_NAMED = "activations"
_DTYPES = {"F16": np.float16, "BF16": np.float32, "F32": np.float32, "F64": np.float64}


class Shards:
    """A file, or all `.npy`, `.npz` and `.safetensors` files of a folder, sorted by name.

    Raises FileNotFoundError or ValueError, naming the file and the remedy.
    """

    def __init__(self, path: str | Path) -> None:
        self.shards = [_shard(file) for file in _files(Path(path))]
        first = self.shards[0]
        for shard in self.shards:
            if shard.d != first.d:
                raise ValueError(
                    f"{shard.path}: its samples have {shard.d} values, those of {first.path} have "
                    f"{first.d}; keep files of different widths in folders of their own"
                )
        self._ends = np.cumsum([shard.rows for shard in self.shards])
        self.rows, self.d = int(self._ends[-1]), first.d
        self.dtype = np.result_type(*(shard.dtype for shard in self.shards))
        self.in_memory = all(isinstance(shard, _Zipped) for shard in self.shards)

    def read(self, begin: int, end: int) -> NDArray:
        """The rows from `begin` up to `end`, from as many files as they lie in."""
        first = self._number(begin)
        start = begin - int(self._ends[first] - self.shards[first].rows)
        if end <= self._ends[first]:
            return self.shards[first].read(start, start + end - begin)
        rows, done = np.empty((end - begin, self.d), self.dtype), 0
        for shard in self.shards[first:]:
            part = shard.read(start, min(shard.rows, start + end - begin - done))
            rows[done : done + len(part)] = part
            done, start = done + len(part), 0
            if done == len(rows):
                break
        return rows

    def place(self, row: int) -> str:
        """The file and the row in it."""
        number = self._number(row)
        shard = self.shards[number]
        return f"{shard.path}: row {row - int(self._ends[number]) + shard.rows:,}"

    def _number(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))


class _Mapped:
    """A `.npy` file; the system keeps in memory what it has room for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = self._rows()
        (self.rows, self.d), self.dtype = rows.shape, rows.dtype

    def read(self, begin: int, end: int) -> NDArray:
        return self._rows()[begin:end]

    def _rows(self) -> NDArray:
        # Mapped anew for each slice: a folder may have more files than a process may hold open.
        array = np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
        if array.ndim > 2 and not array.flags.c_contiguous:
            raise ValueError(f"{self.path}: in Fortran order; save numpy.ascontiguousarray of it")
        return _checked(array, self.path)


class _Zipped:
    """A `.npz` file, which has no slices to be read and so is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            shapes = {name: content[name].shape for name in content.files}
            self._array = as_rows(content[_choose(shapes, path)], str(path))
        (self.rows, self.d), self.dtype = self._array.shape, self._array.dtype

    def read(self, begin: int, end: int) -> NDArray:
        return self._array[begin:end]


class _Tensors:
    """A `.safetensors` file, of which only the slices asked for are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
            self._name = _choose(shapes, path)
            kind = parts[self._name].get_dtype()
        shape = shapes[self._name]
        if kind not in _DTYPES:
            raise ValueError(f"{path}: holds {kind}; samples are float16, bfloat16, 32 or 64")
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"{path}: {self._name} has the shape {list(shape)}, not [samples, d]")
        self.dtype, self.d = np.dtype(_DTYPES[kind]), shape[-1]
        self.rows = int(np.prod(shape[:-1]))
        self._each = self.rows // shape[0]

    def read(self, begin: int, end: int) -> NDArray:
        first, last = begin // self._each, -(-end // self._each)
        with safe_open(self.path, framework="pt") as file:
            items = from_tensor(file.get_slice(self._name)[first:last])
        return items.reshape(-1, self.d)[begin - first * self._each :][: end - begin]


_READERS: dict[str, Any] = {".npy": _Mapped, ".npz": _Zipped, ".safetensors": _Tensors}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
        if not found:
            raise ValueError(f"{path}: no {', '.join(SUFFIXES)} files in this folder")
        return found
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: samples are read from {', '.join(SUFFIXES)} files and folders")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path, or save one first")
    return [path]


def _shard(path: Path) -> Any:
    try:
        return _READERS[path.suffix](path)
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, SafetensorError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(
            f"{path}: not a readable {path.suffix} file of plain numbers ({error}); save it "
            "again with numpy.save, numpy.savez or safetensors"
        ) from None


def _choose(shapes: dict[str, tuple[int, ...]], path: Path) -> str:
    """The array of the usual name, else the only one, else the only one with several axes."""
    if _NAMED in shapes:
        return _NAMED
    fitting = [name for name, shape in shapes.items() if len(shape) > 1]
    chosen = list(shapes) if len(shapes) == 1 else fitting
    if len(chosen) != 1:
        held = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f'{path}: holds {held or "no arrays"}; name one "{_NAMED}" or keep only one with '
            "several axes"
        )
    return chosen[0]


def _checked(array: NDArray, path: Path) -> NDArray:
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ValueError(f"{path}: holds {array.dtype}; samples are float16, float32 or float64")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{path}: has the shape {list(array.shape)}, not [samples, d]")
    return array.reshape(-1, array.shape[-1])
