"""Activations: one vector a sample, with the token and the label it came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

Names = Sequence[int] | Sequence[str] | NDArray
_SUFFIXES = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Activations:
    """`samples` activation vectors of `d` dimensions, float32, in memory.

    `labels` says what each sample is (a class, a feature), `tokens` what produced it: whole
    numbers or strings, one a sample, kept as arrays. Raises ValueError when `x` is not a
    non-empty table of finite numbers or a length does not fit.

    >>> acts = Activations([[1.0, 0.0], [0.0, 2.0]], labels=["cat", "dog"])
    >>> acts.x.shape, acts.labels[1].item()
    (torch.Size([2, 2]), 'dog')
    """

    x: Float[Tensor, "samples d"]
    tokens: Shaped[np.ndarray, " samples"] | None
    labels: Shaped[np.ndarray, " samples"] | None

    def __init__(
        self,
        x: Tensor | NDArray | Sequence[Sequence[float]],
        tokens: Names | None = None,
        labels: Names | None = None,
    ) -> None:
        table = _finite_table(x)
        object.__setattr__(self, "x", table)
        object.__setattr__(self, "tokens", _one_each("tokens", tokens, len(table)))
        object.__setattr__(self, "labels", _one_each("labels", labels, len(table)))

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def from_file(cls, path: str | Path, labels: Names | str | Path | None = None) -> "Activations":
        """Read a `.npy`, `.npz` or `.safetensors` file; pickled objects are refused.

        Of several arrays the one named "activations" is taken, else the only one with two
        axes. `labels` may be a file of the same kinds, with one array of one axis or one named
        "labels". Raises FileNotFoundError or ValueError, naming the path and the remedy.
        """
        if isinstance(labels, str | Path):
            labels = np.asarray(_choose(_read(Path(labels)), "labels", 1, Path(labels)))
        table = _choose(_read(Path(path)), "activations", 2, Path(path))
        try:
            return cls(table, labels=labels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def split(self, fraction: float, seed: int = 0) -> tuple["Activations", "Activations"]:
        """Two random disjoint parts: about `fraction` of the samples, and the rest.

        >>> train, test = Activations(torch.eye(10)).split(0.8)
        >>> len(train), len(test)
        (8, 2)
        """
        first = round(fraction * len(self)) if 0.0 < fraction < 1.0 else 0
        if not 0 < first < len(self):
            raise ValueError(
                f"split({fraction!r}) of {len(self)} samples: fraction lies between 0 and 1 and "
                "leaves at least one sample on either side"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return self._take(order[:first]), self._take(order[first:])

    def _take(self, index: NDArray) -> "Activations":
        tokens = None if self.tokens is None else self.tokens[index]
        labels = None if self.labels is None else self.labels[index]
        return Activations(self.x[torch.from_numpy(index)], tokens=tokens, labels=labels)


def _finite_table(x: Tensor | NDArray | Sequence[Sequence[float]]) -> Float[Tensor, "samples d"]:
    try:
        table = torch.as_tensor(x).detach()
        real = not table.is_complex()
    except (TypeError, ValueError):
        real = False
    if not real:
        raise ValueError("Activations: x is a table of real numbers, [samples, d]")
    table = table.to(torch.float32)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(
            f"Activations(x of shape {list(table.shape)}): x is [samples, d] with at least one of "
            "each; flatten the other axes into samples"
        )
    wrong = ~torch.isfinite(table)
    if wrong.any():
        row, column = torch.nonzero(wrong)[0].tolist()
        raise ValueError(
            f"Activations: x has {int(table.isnan().sum())} NaN and {int(table.isinf().sum())} "
            f"infinite values, the first at [{row}, {column}]; drop or repair those samples"
        )
    return table.contiguous()


def _one_each(name: str, values: Names | None, samples: int) -> NDArray | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.dtype.kind not in "biuUS":
        raise ValueError(f"Activations: {name} are whole numbers or strings, not {array.dtype}")
    if array.shape != (samples,):
        raise ValueError(
            f"Activations: {name} of shape {list(array.shape)} for {samples} samples; "
            "give one a sample"
        )
    return array


def _read(path: Path) -> dict[str, Tensor | NDArray]:
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path}: arrays are read from {', '.join(_SUFFIXES)} files")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path, or save one first")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"array": content}
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, SafetensorError) as error:
        raise ValueError(
            f"{path}: not a readable {path.suffix} file of plain numbers ({error}); save it "
            "again with numpy.save, numpy.savez or safetensors"
        ) from None


def _choose(
    arrays: dict[str, Tensor | NDArray], name: str, axes: int, path: Path
) -> Tensor | NDArray:
    """The array of that name, else the only one there is, else the only one with so many axes."""
    if name in arrays:
        return arrays[name]
    fitting = [each for each in arrays if arrays[each].ndim == axes]
    chosen = list(arrays) if len(arrays) == 1 else fitting
    if len(chosen) != 1:
        held = ", ".join(f"{each} {list(array.shape)}" for each, array in arrays.items())
        raise ValueError(
            f'{path}: holds {held or "no arrays"}; name one "{name}" or keep only one with '
            f"{axes} axes"
        )
    return arrays[chosen[0]]
