"""The recipe of a training: how long, how fast, and what is done about latents that stay silent."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class SAETraining:
    """How long and how fast: `samples` in batches, Adam with a linear warm-up and decay.

    `warmup` and `decay` are shares of the training. A latent that has been silent for
    `dead_after` samples is dead; dead latents are counted, and revived until the decay begins.
    `centre` is where the decoder's bias begins: at the "mean" of all samples, or at the "median",
    the point whose mean distance to the samples of the first batch is least.
    Raises ValueError for a value outside its range.
    """

    samples: int = 1_000_000
    batch: int = 512
    lr: float = 5e-3
    warmup: float = 0.05
    decay: float = 0.3
    dead_after: int = 25_000
    centre: Literal["mean", "median"] = "mean"

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "dead_after"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"SAETraining({name}={value!r}): {name} is a whole number of at least 1"
                )
            object.__setattr__(self, name, int(value))
        for name in ("lr", "warmup", "decay"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.integer | np.floating):
                raise ValueError(f"SAETraining({name}={value!r}): {name} is a number")
            object.__setattr__(self, name, float(value))
        if not 0.0 < self.lr < np.inf:
            raise ValueError(f"SAETraining(lr={self.lr!r}): lr is positive and finite")
        if self.centre not in ("mean", "median"):
            raise ValueError(f'SAETraining(centre={self.centre!r}): it is "mean" or "median"')
        if min(self.warmup, self.decay) < 0.0 or not self.warmup + self.decay <= 1.0:
            raise ValueError(
                f"SAETraining(warmup={self.warmup!r}, decay={self.decay!r}): they are shares of "
                "the training, at least 0 and together at most 1"
            )

    @property
    def steps(self) -> int:
        """The number of batches, enough to hold `samples`."""
        return -(-self.samples // self.batch)

    def rate(self, step: int) -> float:
        """The learning rate of one step.

        >>> recipe = SAETraining(samples=100, batch=1, lr=1.0, warmup=0.1, decay=0.2)
        >>> recipe.rate(0), recipe.rate(50), recipe.rate(99)
        (0.1, 1.0, 0.05)
        """
        rise = (step + 1) / max(self.warmup * self.steps, 1.0)
        fall = (self.steps - step) / max(self.decay * self.steps, 1.0)
        return self.lr * min(1.0, rise, fall)
