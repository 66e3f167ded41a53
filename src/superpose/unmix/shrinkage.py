"""Shrinkage: how much of a feature's amplitude its latent says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from superpose.unmix.detection import Scores, weighted
from superpose.unmix.firing import Rows, in_each_block, picked, switched_on


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    r"""Products of each covered feature's length $a = f \|d\|$ in a sample and its latent z.

    The sums with `both` are over the samples in which both are on.
    """

    covered: Bool[np.ndarray, "runs k"]
    aa: Float[np.ndarray, "blocks k"]
    za: Float[np.ndarray, "blocks runs k"]
    both: Float[np.ndarray, "blocks runs k"]
    a_both: Float[np.ndarray, "blocks runs k"]
    z_both: Float[np.ndarray, "blocks runs k"]
    aa_both: Float[np.ndarray, "blocks runs k"]

    @classmethod
    def count(
        cls,
        features: Rows,
        latents: Sequence[Rows],
        assignment: Int[np.ndarray, "runs k"],
        covered: Bool[np.ndarray, "runs k"],
        summing: Rows,
    ) -> "Slopes":
        """Count on samples whose features, as lengths, and latents are given as rows."""
        sums: dict[str, list[NDArray]] = {name: [] for name in ("za", "both", "a", "z", "aa")}
        for rows, own in zip(latents, assignment, strict=True):
            z = picked(rows, own)
            on, z_on = switched_on(features), switched_on(z)
            a_both = Rows(features.multiply(z_on))
            for name, products in (
                ("za", Rows(z.multiply(features))),
                ("both", Rows(z_on.multiply(on))),
                ("a", a_both),
                ("z", Rows(z.multiply(on))),
                ("aa", Rows(a_both.power(2))),
            ):
                sums[name].append(in_each_block(summing, products))
        stack = {name: np.stack(each, 1) for name, each in sums.items()}
        aa = in_each_block(summing, Rows(features.power(2)))
        return cls(covered, aa, stack["za"], stack["both"], stack["a"], stack["z"], stack["aa"])

    def each(self, weights: Float[np.ndarray, "*draws blocks"]) -> dict[str, NDArray]:
        r"""For each covered feature the regressions of z on a, NaN for the others.

        `shrinkage` is the slope through the origin over all samples, $\sum z a / \sum a^2$: 1 says
        the whole amplitude, less has shrunk. `gain` and `offset` are the line through the samples
        in which both are on: an L1 penalty leaves the gain 1 and lowers the offset.
        """
        za, both, a, z, aa_both = (
            weighted(weights, sums)
            for sums in (self.za, self.both, self.a_both, self.z_both, self.aa_both)
        )
        aa = weighted(weights, self.aa)[..., None, :]
        number = np.where(both > 1, both, np.nan)
        spread = aa_both / number - (a / number) ** 2
        # A feature of one amplitude only has no line.
        line = np.where(spread > 1e-9 * aa_both / number, spread, np.nan)
        gain = (za / number - z * a / number**2) / line
        each = {
            "shrinkage": za / np.where(aa > 0, aa, np.nan),
            "gain": gain,
            "offset": z / number - gain * a / number,
        }
        return {name: np.where(self.covered, values, np.nan) for name, values in each.items()}

    def scores(self, weights: Float[np.ndarray, "*draws blocks"]) -> Scores:
        """The mean slope of the covered features of each run, NaN where none is."""
        slope = self.each(weights)["shrinkage"]
        known = np.isfinite(slope)
        total = np.where(known, slope, 0.0).sum(-1)
        return {"shrinkage": total / np.where(known.any(-1), known.sum(-1), np.nan)}


def soft_threshold(
    amplitude: Float[np.ndarray, "*shape"], coefficient: float
) -> Float[np.ndarray, "*shape"]:
    r"""What an L1 penalty leaves of an amplitude: $(a - \lambda / 2)_+$.

    It minimises $(a - z)^2 + \lambda |z|$, so it is the latent of the best tied encoder of an
    orthonormal dictionary, and what a trained one is held against. In the units in which the
    penalty acted: an autoencoder trained on x / σ with coefficient c has λ = c σ in those of x.
    Source: Tibshirani 1996, section 2.2.

    >>> soft_threshold(np.array([0.05, 0.5, 1.0]), 0.2)
    array([0. , 0.4, 0.9])
    """
    return np.maximum(amplitude - coefficient / 2, 0.0)
