"""How to train: the recipe, apart from what is trained on what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to train: AdamW on fresh batches; every field is the notebook's default.

    `schedule` takes the learning rate from `lr` to zero: "constant" (not at all), "linear" or
    "cosine" (a quarter wave). `snapshots` are the numbers of steps after which to keep W and b.
    Raises ValueError for numbers that cannot be.

    >>> Training(steps=4, lr=1.0, schedule="linear").learning_rates()
    array([1.  , 0.75, 0.5 , 0.25])
    """

    steps: int = 10_000
    batch: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    snapshots: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "snapshots", tuple(int(s) for s in self.snapshots))
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Training({name}={value!r}): a whole number of at least 1")
        if not 0.0 < self.lr < np.inf:
            raise ValueError(f"Training(lr={self.lr!r}): the learning rate is positive and finite")
        if not np.isfinite(self.weight_decay):
            raise ValueError(f"Training(weight_decay={self.weight_decay!r}): it is finite")
        if self.schedule not in ("constant", "linear", "cosine"):
            raise ValueError(
                f'Training(schedule={self.schedule!r}): "constant", "linear" or "cosine"'
            )
        if list(self.snapshots) != sorted({s for s in self.snapshots if 0 <= s <= self.steps}):
            raise ValueError(
                f"Training(snapshots={self.snapshots}): increasing numbers of steps "
                f"between 0 and {self.steps}"
            )

    def learning_rates(self) -> Float[np.ndarray, " steps"]:
        """The learning rate of every step, float64."""
        part = np.arange(self.steps) / self.steps
        shape = {
            "constant": np.ones_like(part),
            "linear": 1.0 - part,
            "cosine": np.cos(0.5 * np.pi * part),
        }
        return self.lr * shape[self.schedule]
