"""Which features a world has: how often they fire, how large they are, and what they share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from superpose.features import Amplitude, Constant, Features
from superpose.truth.amplitudes import Folded
from superpose.truth.correlations import LowRank
from superpose.truth.forest import Forest
from superpose.truth.nodes import Nodes

_ONE = Constant()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, init=False)
class Firing:
    """Sparse features that are not negative, with laws of their own, correlations and a hierarchy.

    `p` is the probability of each feature to fire: one number for all `n`, or one each; under a
    `forest` (see `Forest`) given that its parent is on and before exclusive siblings compete.
    `amplitude` is a law of the magnitude of an active feature, or `Folded` with parameters for
    each. `correlation` is a `LowRank` copula. Raises ValueError for probabilities outside [0, 1]
    and for lengths that do not fit.

    >>> firing = Firing(p=[0.5, 0.4, 0.4], forest=Forest([-1, 0, 0], exclusive=True))
    >>> firing.probability
    array([0.5 , 0.16, 0.16])
    """

    p: Float[np.ndarray, " n"]
    amplitude: Amplitude | Folded
    correlation: LowRank | None
    forest: Forest | None

    def __init__(
        self,
        *,
        p: float | Sequence[float] | NDArray,
        n: int | None = None,
        amplitude: Amplitude | Folded = _ONE,
        correlation: LowRank | None = None,
        forest: Forest | None = None,
    ) -> None:
        given = np.array(p, np.float64)
        own = np.full(1 if n is None else n, given) if given.ndim == 0 else given
        if own.ndim != 1 or not own.size or (n is not None and len(own) != n):
            raise ValueError(
                f"Firing(p of shape {list(given.shape)}, n={n}): p is one number, or n"
            )
        if not ((own >= 0.0) & (own <= 1.0)).all():
            raise ValueError(
                f"Firing(p from {own.min():g} to {own.max():g}): p is the probability that a "
                "feature fires and lies in [0, 1]"
            )
        own.setflags(write=False)
        values = {"p": own, "amplitude": amplitude, "correlation": correlation, "forest": forest}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_lengths()

    def _check_lengths(self) -> None:
        if isinstance(self.amplitude, Folded) and self.amplitude.kept.shape not in (
            (1,),
            (self.n,),
        ):
            raise ValueError(
                f"Firing: {self.n} features, but magnitudes for {len(self.amplitude.kept)}"
            )
        if self.correlation is not None and len(self.correlation.factor) != self.n:
            raise ValueError(
                f"Firing: {self.n} features, but a factor with {len(self.correlation.factor)} rows"
            )
        if self.forest is not None:
            named = np.sort(self.forest.feature[self.forest.feature >= 0])
            if not np.array_equal(named, np.arange(self.n)):
                raise ValueError(
                    f"Firing: the forest has {len(named)} features, not one node for each of the "
                    f"{self.n}; features without a parent are roots"
                )

    @property
    def n(self) -> int:
        """The number of features."""
        return len(self.p)

    @property
    def probability(self) -> Float[np.ndarray, " n"]:
        """How often each feature is active: exact, but where a forest and correlations meet.

        There it is a mean over 2,048 points of the factors, of the exact probability given each.
        """
        return self.nodes.probability(self.n)

    @property
    def nodes(self) -> Nodes:
        """The features as nodes of a forest, each with its own probability to be above 0."""
        forest = Forest(np.full(self.n, -1)) if self.forest is None else self.forest
        kept = self.amplitude.kept if isinstance(self.amplitude, Folded) else 1.0
        return Nodes.of(forest, self.p, np.broadcast_to(kept, (self.n,)), self.correlation)

    @property
    def mean(self) -> Float[np.ndarray, " n"]:
        """What `Forest(scaled=True)` divides the value of a parent by: the mean of its law.

        For `Folded` that of the normal number, before it is folded.
        """
        return np.broadcast_to(np.asarray(self.amplitude.mean, np.float64), (self.n,)).copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Circles:
    r"""`count` circular features: each lives in a plane, at an angle that is uniform.

    Circle k, active with probability `p`, puts $(r \cos \theta, r \sin \theta)$ into columns 2k and
    2k + 1, so that each has two directions; r follows `amplitude`. No direction of the plane is
    special: the truth is the plane. Raises ValueError for a count below 1 and a `p` outside [0, 1].
    Source: Engels et al., Not All Language Model Features Are Linear (2024).

    >>> Circles(count=2, p=0.1).n
    4
    """

    count: int
    p: float = 0.1
    amplitude: Amplitude = _ONE

    def __post_init__(self) -> None:
        if self.count < 1 or not 0.0 <= self.p <= 1.0:
            raise ValueError(
                f"Circles(count={self.count!r}, p={self.p!r}): at least one, with a p in [0, 1]"
            )

    @property
    def n(self) -> int:
        """The number of columns, two for each circle."""
        return 2 * self.count

    @property
    def probability(self) -> Float[np.ndarray, " n"]:
        """How often each coordinate is not 0."""
        return np.full(self.n, self.p)


@dataclass(frozen=True, slots=True, init=False)
class Together:
    """The features of several worlds in one, side by side and independent of each other.

    Raises ValueError for none.

    >>> Together(Features(n=3), Circles(count=1)).n
    5
    """

    parts: "tuple[Features | Firing | Circles, ...]"

    def __init__(self, *parts: "Features | Firing | Circles") -> None:
        if not parts:
            raise ValueError("Together(): at least one world is needed")
        object.__setattr__(self, "parts", parts)

    @property
    def n(self) -> int:
        """The number of features of all."""
        return sum(part.n for part in self.parts)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where the features of each part begin."""
        return tuple(np.cumsum([0, *(part.n for part in self.parts[:-1])]).tolist())

    @property
    def probability(self) -> Float[np.ndarray, " n"]:
        """How often each feature is active."""
        return np.concatenate([part.probability for part in self.parts])
