"""When a model has trained enough: early stop where its loss no longer falls."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

TOTAL, BEST, STALE = 0, 1, 2
"""Columns of a watch: sum of the losses of this window, best mean so far, windows since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """Stop a model whose loss has not improved for `patience` windows of `window` steps.

    A window improves where the mean of its batch losses is below that of the best window so far
    by more than the share `relative` of it. Every model is judged by its own losses alone, at
    the end of each window, counted from step 0.
    Raises ValueError for numbers that cannot be.

    >>> Plateau(window=100)
    Plateau(window=100, patience=4, relative=0.001)
    """

    window: int = 500
    patience: int = 4
    relative: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("window", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Plateau({name}={value!r}): a whole number of at least 1")
        if not 0.0 <= self.relative < 1.0:
            raise ValueError(
                f"Plateau(relative={self.relative!r}): the share of the best loss by which a "
                "window has to be lower lies in [0, 1)"
            )

    def see(
        self, watch: Float[np.ndarray, "models 3"], losses: Float[np.ndarray, "models steps"]
    ) -> None:
        """Add batch losses, all of one window, to the watch of each model."""
        # One after another, so that the pieces in which losses arrive change no bit.
        running = np.concatenate([watch[:, :1], losses.astype(np.float64)], axis=1)
        watch[:, TOTAL] = np.cumsum(running, axis=1)[:, -1]

    def judge(self, watch: Float[np.ndarray, "models 3"]) -> None:
        """End a window: compare its mean with the best, and begin the next."""
        mean = watch[:, TOTAL] / self.window
        better = mean < watch[:, BEST] * (1.0 - self.relative)
        watch[:, BEST] = np.where(better, mean, watch[:, BEST])
        watch[:, STALE] = np.where(better, 0, watch[:, STALE] + 1)
        watch[:, TOTAL] = 0.0

    def over(self, watch: Float[np.ndarray, "models 3"]) -> Bool[np.ndarray, " models"]:
        """Which models have had enough."""
        return watch[:, STALE] >= self.patience


def new_watch(models: int) -> Float[np.ndarray, "models 3"]:
    """What is known of models at step 0."""
    watch = np.zeros((models, 3))
    watch[:, BEST] = np.inf
    return watch
