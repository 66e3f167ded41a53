"""Latents as detectors of features: counts by blocks of samples, and the scores made of them.

Every score on samples is a function of sums over blocks of consecutive samples. With the blocks
weighted by how often a resample drew them, the same function gives the bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from superpose.statistics import Interval, mean_interval
from superpose.unmix.firing import Rows, in_each_block, picked, switched_on

Scores = dict[str, Float[np.ndarray, "*draws runs"]]
# Resamples that are scored together: ten tables of runs and features for each of them.
_DRAWS = 25


@runtime_checkable
class Sums(Protocol):
    """What was added up over each block of samples, and the scores that follow from it."""

    def scores(self, weights: Float[np.ndarray, "*draws blocks"]) -> Scores:
        """The scores of each run when each block counts so many times, for any number of draws."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """How often a feature was on, its latent was, and both; only covered features can be hit."""

    covered: Bool[np.ndarray, "runs k"]
    hits: Float[np.ndarray, "blocks runs k"]
    calls: Float[np.ndarray, "blocks runs k"]
    positives: Float[np.ndarray, "blocks k"]

    @classmethod
    def count(
        cls,
        features: Rows,
        latents: Sequence[Rows],
        assignment: Int[np.ndarray, "runs k"],
        covered: Bool[np.ndarray, "runs k"],
        summing: Rows,
    ) -> "Hits":
        """Count on samples whose features and latents are given as rows."""
        truth = switched_on(features)
        hits, calls = [], []
        for rows, own in zip(latents, assignment, strict=True):
            called = switched_on(picked(rows, own))
            calls.append(in_each_block(summing, called, np.float32))
            hits.append(in_each_block(summing, Rows(called.multiply(truth)), np.float32))
        positives = in_each_block(summing, truth, np.float32)
        return cls(covered, np.stack(hits, 1), np.stack(calls, 1), positives)

    def each(self, weights: Float[np.ndarray, "*draws blocks"]) -> dict[str, NDArray]:
        """Of every run and feature `precision`, `recall` and `f1`; `frequency` in samples."""
        hits, calls = weighted(weights, self.hits), weighted(weights, self.calls)
        positives = weighted(weights, self.positives)
        precision = np.where(self.covered, share(hits, calls), 0.0)
        recall = np.where(self.covered, share(hits, positives[..., None, :]), 0.0)
        f1 = harmonic(precision, recall)
        return {"precision": precision, "recall": recall, "f1": f1, "frequency": positives}

    def scores(self, weights: Float[np.ndarray, "*draws blocks"]) -> Scores:
        """Means over the features that are ever on."""
        each = self.each(weights)
        seen = each.pop("frequency") > 0
        return {f"firing_{name}": _mean_of(values, seen) for name, values in each.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Correlations:
    """First and second moments of the amplitude of each feature and of one latent for it."""

    z: Float[np.ndarray, "blocks runs k"]
    zz: Float[np.ndarray, "blocks runs k"]
    zf: Float[np.ndarray, "blocks runs k"]
    f: Float[np.ndarray, "blocks k"]
    ff: Float[np.ndarray, "blocks k"]
    samples: Float[np.ndarray, " blocks"]

    @classmethod
    def count(
        cls,
        features: Rows,
        latents: Sequence[Rows],
        assignment: Int[np.ndarray, "runs k"],
        summing: Rows,
    ) -> "Correlations":
        """Count on samples whose features and latents are given as rows."""
        own = [picked(rows, each) for rows, each in zip(latents, assignment, strict=True)]
        return cls(
            np.stack([in_each_block(summing, rows) for rows in own], 1),
            np.stack([in_each_block(summing, Rows(rows.power(2))) for rows in own], 1),
            np.stack([in_each_block(summing, Rows(rows.multiply(features))) for rows in own], 1),
            in_each_block(summing, features),
            in_each_block(summing, Rows(features.power(2))),
            np.diff(summing.indptr).astype(np.float64),
        )

    def each(
        self, weights: Float[np.ndarray, "*draws blocks"]
    ) -> Float[np.ndarray, "*draws runs k"]:
        """|correlation| of each feature with its latent; 0 where one of them never varies."""
        number = (weights @ self.samples)[..., None, None]
        z, zz, zf = (weighted(weights, sums) / number for sums in (self.z, self.zz, self.zf))
        f, ff = (weighted(weights, sums)[..., None, :] / number for sums in (self.f, self.ff))
        return correlation(zf - z * f, zz - z**2, ff - f**2)

    def scores(self, weights: Float[np.ndarray, "*draws blocks"]) -> Scores:
        """The mean over the features that are ever on, with the matching held as it is."""
        return {"mcc_activation": _mean_of(self.each(weights), weighted(weights, self.f) > 0)}


def correlation(covariance: NDArray, one: NDArray, other: NDArray) -> NDArray:
    """|covariance| over the root of both variances, 0 where one of these is 0."""
    scale = np.sqrt(np.maximum(one, 0.0) * np.maximum(other, 0.0))
    return np.abs(covariance) / np.where(scale > 0, scale, np.inf)


def resampled(
    sums: Sequence[Sums], name: str, number: int, resamples: int = 1_000, seed: int = 0
) -> Float[np.ndarray, " resamples"]:
    """Replicas of a score's mean over runs, under resampling of the `number` blocks of samples.

    Dictionaries seen on the same samples are resampled alike with the same seed, so that their
    difference is one of pairs.
    """
    for each in sums:
        if name not in each.scores(np.ones(number)):
            continue
        draws = np.random.default_rng(seed).multinomial(
            number, np.full(number, 1 / number), resamples
        )
        parts = np.split(draws.astype(np.float64), range(_DRAWS, resamples, _DRAWS))
        return np.concatenate([each.scores(part)[name].mean(-1) for part in parts])
    raise ValueError(f"{name} is not a score on samples, so there is nothing to resample")


def coverage_by_decile(features: Mapping[str, NDArray], threshold: float) -> pa.Table:
    """Features that are ever on, in ten groups of equal number by how often: who is found?

    One row a group, the rarest first: `decile`, `features`, the range of frequency in it, and,
    with intervals over the runs, `coverage`, the share with a latent above the threshold, the
    mean largest `cosine`, and `f1` as a detector.
    """
    seen = np.flatnonzero(features["frequency"] > 0)
    order = seen[np.argsort(features["frequency"][seen], kind="stable")]
    rows = []
    for decile, group in enumerate(np.array_split(order, 10), 1):
        if not len(group):
            continue
        frequency = features["frequency"][group]
        row: dict[str, float] = {
            "decile": decile,
            "features": len(group),
            "frequency_low": float(frequency.min()),
            "frequency_high": float(frequency.max()),
        }
        best = features["best"][:, group]
        for name, values in (
            ("coverage", best > threshold),
            ("cosine", best),
            ("f1", features["f1"][:, group]),
        ):
            row |= columns(name, mean_interval(values.mean(-1)))
        rows.append(row)
    return pa.Table.from_pylist(rows)


def columns(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three columns of a table."""
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def weighted(weights: Float[np.ndarray, "*draws blocks"], sums: NDArray) -> NDArray:
    """The sum over blocks, each as often as it counts."""
    flat = sums.reshape(len(sums), -1)
    total = (weights.astype(flat.dtype) @ flat).astype(np.float64)
    return total.reshape(*weights.shape[:-1], *sums.shape[1:])


def share(part: NDArray, whole: NDArray) -> NDArray:
    """part / whole, 0 where there is nothing."""
    return part / np.maximum(whole, 1)


def harmonic(a: NDArray, b: NDArray) -> NDArray:
    """The harmonic mean, 0 where both are."""
    return 2 * a * b / np.where(a + b > 0, a + b, 1.0)


def _mean_of(values: NDArray, seen: NDArray) -> NDArray:
    """Over the features that are seen in a draw, NaN where none is."""
    number = seen.sum(-1)[..., None]
    total = np.where(seen[..., None, :], values, 0.0).sum(-1)
    return total / np.where(number > 0, number, np.nan)
