"""One run of a dictionary beside the truth: what every rule of the confusion map looks at."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from superpose.unmix.firing import Rows, switched_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """From where on a latent counts as this or that; cosines are signed.

    `found`: the cosine above which a latent has a feature in it. `same`: that above which it
    stands for this feature alone, more than the 1/√2 of one half way between two. `part`: the
    component above which a second feature is in it. `trace`: the component above which a missing
    feature is hedged. `disjoint`: the share of its firing that a latent spends together with
    another, up to which both are disjoint, and from which on a feature belongs to its firing.
    `correlated`: the |correlation| above which features are. `least`: how many samples a rate
    is measured on, at least. Raises ValueError unless the shares lie in [0, 1) and `least` is at
    least 1.
    """

    found: float = 0.5
    same: float = 0.8
    part: float = 0.3
    trace: float = 0.2
    disjoint: float = 0.1
    correlated: float = 0.1
    least: int = 10

    def __post_init__(self) -> None:
        for name in ("found", "same", "part", "trace", "disjoint", "correlated"):
            value = getattr(self, name)
            if not (isfinite(value) and 0.0 <= value < 1.0):
                raise ValueError(f"Rules({name}={value!r}): {name} is a share in [0, 1)")
        if self.least < 1:
            raise ValueError(f"Rules(least={self.least!r}): a rate needs at least 1 sample")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Cosines, assignment and firing of one run, with the features of the same samples.

    `unit` are the true directions, `cosine` theirs with each latent, `assignment` the latent of
    each feature in the one-to-one matching, −1 where it has none.
    """

    unit: Float[np.ndarray, "k d_in"]
    cosine: Float[np.ndarray, "k d_sae"]
    assignment: Int[np.ndarray, " k"]
    features: Rows
    latents: Rows
    rules: Rules

    @cached_property
    def on(self) -> Rows:
        """1 where a feature is on."""
        return switched_on(self.features)

    @cached_property
    def called(self) -> Rows:
        """1 where a latent is."""
        return switched_on(self.latents)

    @cached_property
    def positives(self) -> Float[np.ndarray, " k"]:
        """In how many samples each feature is on."""
        return np.bincount(self.features.indices, minlength=len(self.unit)).astype(np.float64)

    @cached_property
    def calls(self) -> Float[np.ndarray, " d_sae"]:
        """In how many samples each latent is."""
        return np.bincount(self.latents.indices, minlength=self.cosine.shape[1]).astype(np.float64)

    @cached_property
    def own(self) -> Float[np.ndarray, " k"]:
        """The cosine of each feature with its assigned latent, 0 where it has none."""
        taken = np.take_along_axis(self.cosine, self.assignment.clip(0)[:, None], 1)[:, 0]
        return np.where(self.assignment < 0, 0.0, taken)

    @cached_property
    def has_latent(self) -> Bool[np.ndarray, " k"]:
        """Whether the assigned latent has the feature in it."""
        return self.own > self.rules.found

    def beyond(
        self, latent: NDArray, feature: NDArray, other: NDArray
    ) -> Float[np.ndarray, " pairs"]:
        r"""The component of each latent along a feature, beyond what another brings with it.

        $d_l \cdot u$ with u the unit vector of the part of $d_{feature}$ orthogonal to
        $d_{other}$: the plain cosine where both features are orthogonal, and 0 for a latent that
        is the other feature, however alike they are. 0 where they are parallel.
        """
        overlap = (self.unit[feature] * self.unit[other]).sum(-1)
        rest = np.sqrt(np.maximum(1.0 - overlap**2, 0.0))
        left = self.cosine[feature, latent] - self.cosine[other, latent] * overlap
        return np.where(rest > 1e-3, left / np.where(rest > 1e-3, rest, 1.0), 0.0)

    def both(self, latent: NDArray, feature: NDArray) -> Float[np.ndarray, " pairs"]:
        """In how many samples the latent and the feature of each pair are on."""
        return overlaps(self.called, latent, self.on, feature)


def overlaps(
    one: Rows, first: NDArray, other: Rows, second: NDArray, at_once: int = 4096
) -> Float[np.ndarray, " pairs"]:
    """The sum over samples of column `first` of one times column `second` of the other."""
    left, right = one.tocsc(), other.tocsc()
    total = np.zeros(len(first))
    for start in range(0, len(first), at_once):
        part = slice(start, start + at_once)
        total[part] = left[:, first[part]].multiply(right[:, second[part]]).sum(0)
    return total
