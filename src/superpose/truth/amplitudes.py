"""Magnitudes that differ from feature to feature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    r"""Feature i has the magnitude $\max(m_i + s_i z, 0)$, z normal: 0 is not active.

    `mean` $m$ and `std` $s$ are at least 0 and not both 0, one number or one for each feature. A
    feature that is to fire does so with probability `kept` $= \Phi(m_i / s_i)$ only; given that it
    does, its magnitude is a normal number above 0.
    Raises ValueError for others. Source: the magnitudes of SynthSAEBench.

    >>> Folded(mean=2.0, std=(0.5, 2.0)).kept.round(3)
    array([1.   , 0.841])
    """

    mean: Float[np.ndarray, " n"]
    std: Float[np.ndarray, " n"]

    def __init__(
        self, mean: float | Sequence[float] | NDArray, std: float | Sequence[float] | NDArray = 0.0
    ) -> None:
        means, stds = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(each, np.float64)) for each in (mean, std))
        )
        if means.ndim > 1 or not np.isfinite([means, stds]).all():
            raise ValueError("Folded: mean and std are a number, or one for each feature")
        if (means < 0).any() or (stds < 0).any() or (means + stds <= 0).any():
            raise ValueError(
                f"Folded(mean={mean!r}, std={std!r}): both are at least 0 and one is above 0; a "
                "negative mean is a lower probability"
            )
        for name, value in (("mean", means.copy()), ("std", stds.copy())):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def kept(self) -> Float[np.ndarray, " *n"]:
        """The chance that a magnitude is above 0."""
        with np.errstate(divide="ignore"):
            return ndtr(self.mean / self.std)

    def magnitudes(
        self, u: Float[np.ndarray, " k"], feature: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, " k"]:
        """Magnitudes of some features from numbers that are uniform on (0, 1)."""
        mean, std = (each[feature % len(each)] for each in (self.mean, self.std))
        with np.errstate(divide="ignore"):
            kept = ndtr(mean / std)
        drawn = np.where(std > 0, -ndtri(u * kept), 0.0)
        # What is rounded to 0 was above it: an active feature is never 0.
        return np.maximum(mean + std * drawn, np.finfo(np.float32).tiny)
