"""Batches from generators, which draw any batch from its number."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from superpose.unmix.stream.rows import Moments, Unit, as_rows, digest, refuse, wrong_row
from superpose.unmix.stream.tables import HELD_OUT

MEASURED = 65_536
"""Samples that the units are measured on."""

# Batches of other numbers than a training has, drawn whatever its seed.
_MEASURING, _HELD_OUT = 2**30, 2**31 - 1
_BATCH = 4096


@runtime_checkable
class Generator(Protocol):
    """What can draw batches: `draw(batch, number, seed).x` is a function of these three alone."""

    def draw(self, batch: int, number: int, seed: int) -> Any:
        """Something with the samples as its `x`, `[batch, d]`."""
        ...


class Generators:
    """Generators of the same samples: equal numbers and seeds draw what belongs together."""

    samples = None
    resumable = True
    memory = 0
    shuffling = (
        "each batch is drawn anew, a function of the seed and its number: nothing is shuffled"
    )

    def __init__(self, generators: Sequence[Generator], share: float) -> None:
        self.generators = tuple(generators)
        self.widths = tuple(rows.shape[1] for rows in self.draw(1, _MEASURING, 0))
        self._held = HELD_OUT if share else 0

    def draw(self, batch: int, number: int, seed: int) -> list[NDArray]:
        """One batch of each generator, as it is; raises ValueError for values of no use."""
        parts = []
        for place, generator in enumerate(self.generators):
            name = f"generator {place + 1}, batch {number:,}"
            rows = as_rows(generator.draw(batch, number, seed).x, name)
            if wrong := wrong_row(rows):
                refuse(f"{name}: row {wrong[0]:,}", wrong[1])
            parts.append(rows)
        return parts

    def held_out(self) -> list[NDArray]:
        """Samples of batches that no training draws."""
        numbers = range(_HELD_OUT, _HELD_OUT - self._held // _BATCH, -1)
        drawn = [self.draw(_BATCH, number, 0) for number in numbers]
        empty = [np.empty((0, width), np.float32) for width in self.widths]
        return [np.concatenate(parts) for parts in zip(*drawn, strict=True)] or empty

    def digest(self) -> dict[str, Any]:
        """What tells this generator from others: some of what it draws."""
        return {"widths": list(self.widths), "sha256": digest(self.draw(256, 0, 0))}

    def units(self) -> tuple[list[Unit], int]:
        """The units of each generator, measured on samples of their own."""
        moments = [Moments(width) for width in self.widths]
        for number in range(_MEASURING, _MEASURING + MEASURED // _BATCH):
            for moment, rows in zip(moments, self.draw(_BATCH, number, 0), strict=True):
                moment.add(rows)
        found = [moment.unit(f"generator {k + 1}") for k, moment in enumerate(moments)]
        return found, MEASURED

    def feed(self, batch: int, seed: int, state: dict[str, Any] | None) -> "GeneratorFeed":
        """The batches from the first on, or from where a state was taken."""
        return GeneratorFeed(self, seed, state)


class GeneratorFeed:
    """Batches drawn one after another."""

    def __init__(self, source: Generators, seed: int, state: dict[str, Any] | None) -> None:
        self._source, self._seed = source, seed
        self._number = 0 if state is None else int(state["number"])

    def state(self) -> dict[str, Any]:
        """What `Generators.feed` goes on from."""
        return {"number": self._number}

    def fill(self, outs: Sequence[Float32[np.ndarray, "batch _"]], units: Sequence[Unit]) -> None:
        """Write the next batch, normalised, one array a generator."""
        parts = self._source.draw(len(outs[0]), self._number, self._seed)
        for out, unit, rows in zip(outs, units, parts, strict=True):
            unit.into(out, rows)
        self._number += 1

    def close(self) -> None:
        """There is nothing to let go of."""
