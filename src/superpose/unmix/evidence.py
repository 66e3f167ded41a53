"""What is seen of a dictionary on samples: its errors, its latents, the features beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from superpose.unmix.detection import Scores, correlation
from superpose.unmix.firing import (
    Active,
    Rows,
    blocks,
    coded,
    feature_rows,
    has_amplitudes,
    size,
    sparse_rows,
    stacked,
    together,
)
from superpose.unmix.sae import Dictionary


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """Samples, their spread about a fixed centre, squared errors and active latents."""

    samples: Float[np.ndarray, " blocks"]
    total: Float[np.ndarray, "blocks d_in"]
    square: Float[np.ndarray, " blocks"]
    error: Float[np.ndarray, "blocks runs"]
    active: Float[np.ndarray, "blocks runs"]

    def spread(self, weights: Float[np.ndarray, "*draws blocks"]) -> Float[np.ndarray, "*draws"]:
        """Squared distances of all samples from their mean, NaN where all are equal."""
        total = weights @ self.total
        spread = np.asarray(weights @ self.square - (total**2).sum(-1) / (weights @ self.samples))
        return np.where(spread > 0, spread, np.nan)

    def scores(self, weights: Float[np.ndarray, "*draws blocks"]) -> Scores:
        """`l0` and `explained_variance`."""
        number, spread = np.asarray(weights @ self.samples), self.spread(weights)
        return {
            "l0": weights @ self.active / number[..., None],
            "explained_variance": 1.0 - weights @ self.error / spread[..., None],
        }


class ErrorCount:
    """Adds up `Errors` chunk by chunk, and which latents ever fired."""

    def __init__(self, x: Float[Tensor, "samples d_in"], summing: Rows, latents: tuple[int, int]):
        runs, _ = latents
        number = size(summing)[0]
        self.summing, self.x = summing, x
        self.centre = x.double().mean(0)
        self.total, self.square = np.zeros((number, x.shape[1])), np.zeros(number)
        self.error, self.active = np.zeros((number, runs)), np.zeros((number, runs))
        self.fired = np.zeros(latents, bool)

    def add(self, where: slice, z: Tensor, back: Tensor) -> None:
        """One chunk: its latents and reconstruction, [runs, rows, ...]."""
        part = self.x[where].double()
        about = (part - self.centre).cpu().numpy()
        left = ((part - back.double()) ** 2).sum(-1).cpu().numpy()
        on = z > 0
        self.fired |= on.any(-2).cpu().numpy()
        summing = Rows(self.summing[:, where])
        self.total += summing @ about
        self.square += summing @ (about**2).sum(-1)
        self.error += summing @ left.T
        self.active += summing @ on.sum(-1).cpu().numpy().T

    def errors(self) -> Errors:
        """The sums."""
        samples = np.diff(self.summing.indptr).astype(np.float64)
        return Errors(samples, self.total, self.square, self.error, self.active)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One pass over samples: `features` and `latents` are sparse rows, if features are known.

    `fired` says which latents ever did, `summing` adds up rows over blocks of samples.
    """

    errors: Errors
    fired: Bool[np.ndarray, "runs d_sae"]
    summing: Rows
    features: Rows | None = None
    latents: tuple[Rows, ...] = ()
    amplitudes: bool = False

    @classmethod
    def of(
        cls, sae: Dictionary, x: Float[Tensor, "samples d_in"], active: Active | None, k: int
    ) -> "Evidence":
        """Encode and decode every sample once, some at a time."""
        features = None if active is None else feature_rows(active, len(x), k)
        summing = blocks(len(x))
        directions = sae.directions
        runs, d_sae = directions[..., 0, 0].numel(), directions.shape[-2]
        count = ErrorCount(x, summing, (runs, d_sae))
        chunks: list[list[Rows]] = [[] for _ in range(runs)]
        for where, z, back in coded(sae, x):
            count.add(where, z, back)
            if features is not None:
                for kept, own in zip(chunks, z, strict=True):
                    kept.append(sparse_rows(own.clamp(min=0)))
        latents = () if features is None else tuple(stacked(own) for own in chunks)
        amplitudes = active is not None and has_amplitudes(active)
        return cls(count.errors(), count.fired, summing, features, latents, amplitudes)

    def lengths(self, directions: Float[Tensor, "k d_in"]) -> Rows:
        """The length of each feature's part of a sample: its amplitude times that of its row."""
        norms = directions.double().norm(dim=-1).numpy()
        return Rows((self.known @ sparse.diags_array(norms)).astype(np.float32))

    @property
    def known(self) -> Rows:
        """The features."""
        assert self.features is not None
        return self.features


def activation_assignment(features: Rows, latents: Sequence[Rows]) -> Int[np.ndarray, "runs k"]:
    """For each feature the latent of a one-to-one matching of largest total |correlation|.

    Features that are never on and latents that never fire correlate with nothing. −1 where a
    feature has none.
    """
    return np.stack([assign(_correlations(features, rows)) for rows in latents])


def assign(gain: Float[np.ndarray, "k d_sae"]) -> Int[np.ndarray, " k"]:
    """The column of each row in the one-to-one matching of largest sum, −1 where it has none."""
    column = np.full(len(gain), -1)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    column[rows] = columns
    return column


def _correlations(features: Rows, latents: Rows) -> Float[np.ndarray, "k d_sae"]:
    number, k = size(features)
    (f, f_spread), (z, z_spread) = _moments(features), _moments(latents)
    table = np.empty((k, size(latents)[1]), np.float32)
    for where, products in together(features, latents):
        covariance = products / number - np.outer(f[where], z)
        table[where] = correlation(covariance, f_spread[where, None], z_spread)
    return table


def _moments(rows: Rows) -> tuple[NDArray, NDArray]:
    exact = rows.astype(np.float64)
    mean = np.asarray(exact.mean(0))
    return mean, np.asarray(exact.power(2).mean(0)) - mean**2
