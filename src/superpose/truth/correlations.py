"""Features that tend to fire together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, init=False)
class LowRank:
    r"""A Gaussian copula of low rank: feature i fires where $F_i \cdot u + s_i z_i$ is large.

    `factor` F is `[n, rank]`, with rows shorter than 1; u (shared by a sample) and z are normal,
    and $s_i^2 = 1 - \|F_i\|^2$, so the sum is normal and its threshold keeps the probability of
    each feature exactly as it is. The correlation of the sums of two features is $F_i \cdot F_j$.
    Raises ValueError for a factor that is no matrix or has rows of length 1 and more.

    >>> LowRank([[0.6], [0.0]]).spread
    array([0.8, 1. ])
    """

    factor: Float[np.ndarray, "n rank"]

    def __init__(self, factor: Sequence[Sequence[float]] | NDArray) -> None:
        rows = np.array(factor, np.float64)
        if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
            raise ValueError(f"LowRank(factor of shape {list(rows.shape)}): it is [n, rank]")
        longest = float((rows**2).sum(1).max())
        if longest >= 1.0:
            raise ValueError(
                f"LowRank: a row of the factor has the squared length {longest:.4g}, which leaves "
                "nothing of the feature's own; lengths are below 1"
            )
        rows.setflags(write=False)
        object.__setattr__(self, "factor", rows)

    @classmethod
    def random(cls, n: int, rank: int, scale: float, seed: int = 0) -> "LowRank":
        r"""A factor of normal numbers times `scale`; rows with $\|F_i\|^2$ above .99 shrink to it.

        >>> LowRank.random(3, rank=2, scale=0.1).factor.shape
        (3, 2)
        """
        if min(n, rank) < 1 or not 0.0 <= scale < np.inf:
            raise ValueError(
                f"LowRank.random(n={n}, rank={rank}, scale={scale!r}): n and rank are at least 1, "
                "the scale at least 0"
            )
        return cls(capped(scale * np.random.default_rng(seed).standard_normal((n, rank))))

    @property
    def spread(self) -> Float[np.ndarray, " n"]:
        """The deviation of what is a feature's own, s."""
        return np.sqrt(1.0 - (self.factor**2).sum(1))


LARGEST = 0.99
"""Of the variance of a feature's number at most so much is shared."""


def capped(factor: Float[np.ndarray, "n rank"]) -> Float[np.ndarray, "n rank"]:
    """A factor whose rows are shortened where they share more than `LARGEST`."""
    squares = (factor**2).sum(1, keepdims=True)
    return np.where(
        squares > LARGEST, factor * np.sqrt(LARGEST / np.maximum(squares, LARGEST)), factor
    )
