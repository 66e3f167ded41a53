"""Random codes: unit directions at random, read by a threshold."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from scipy import stats

from superpose.experiments.capacity.points import POINTS, Progress, check, row_of

_DIMS = (*range(16, 64, 4), *range(64, 128, 8), *range(128, 256, 16), *range(256, 513, 32))
_BLOCK = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCodes:
    r"""Random unit directions whose features are read by a threshold on each $W_i \cdot h$.

    An active feature is uniform on [`lowest`, 1] (1 by default: binary) and the threshold is
    `lowest` / 2, half way between off and the weakest on. A code of n directions does when the
    whole support comes out right, no feature missed and none invented, in all but a share
    `error` of the samples. `active` are the k, exact or expected (p = k/n, independently);
    `densities` the p held fixed. `samples` are drawn for each number of active features up to
    `most`, more count as failures; codes are searched up to `limit` directions.
    Raises ValueError for numbers that cannot be.
    """

    dims: Sequence[int] = _DIMS
    active: Sequence[int] = (1, 2, 4)
    densities: Sequence[float] = (0.002, 0.005, 0.01)
    error: float = 0.05
    lowest: float = 1.0
    samples: int = 400
    most: int = 12
    limit: int = 10_000
    seeds: int = 8

    def __post_init__(self) -> None:
        check("RandomCodes", self.error, self.dims, self.seeds)
        if not (0 < self.lowest <= 1 and max(self.active, default=1) <= self.most < self.limit):
            raise ValueError(
                f"RandomCodes(active={tuple(self.active)}, most={self.most}, limit={self.limit}, "
                f"lowest={self.lowest:g}): k <= most < limit, and the weakest feature is in (0, 1]"
            )
        if self.samples * self.error < 1:
            raise ValueError(
                f"RandomCodes(samples={self.samples}, error={self.error:g}): the error allowed is "
                "less than one sample; take more"
            )


def random_codes(config: RandomCodes, seed: int = 0, progress: Progress | None = None) -> pa.Table:
    """The largest n at which random codes recover supports, for every law, m and seed of a code."""
    rows, done = [], 0
    number = np.arange(1, config.most + 1)
    for m in config.dims:
        for code in range(config.seeds):
            rng = np.random.default_rng([seed, m, code])
            ends = first_failures(config, m, rng)
            n = sizes(config.limit)
            failed = np.stack([np.searchsorted(np.sort(each), n, "right") for each in ends])
            for law, value in laws_of(config):
                at = largest(law, value, n, failed / config.samples, number, config.error)
                rows.append({"source": "codes", "seed": code} | row_of(law, value, m, at))
            done += 1
            if progress:
                progress(done, len(config.dims) * config.seeds)
    return pa.Table.from_pylist(rows, POINTS)


def first_failures(
    config: RandomCodes, m: int, rng: np.random.Generator
) -> Int[np.ndarray, "most samples"]:
    """The number of directions at which each sample is first read wrongly, K = 1 … `most` active.

    Directions are exchangeable, so the K active ones of a sample may be drawn by themselves and
    the rest of the code be common to all: the sample fails at K if a feature of its own is
    missed, at K + j if the j-th of the rest is the first to be called. So one pass over a code
    gives the failures at every n. Beyond `limit` stands for none.
    """
    threshold = np.float32(config.lowest / 2)
    end = np.full((config.most, config.samples), config.limit + 1)
    hidden = np.empty((config.most, config.samples, m), np.float32)
    for row, K in enumerate(range(1, config.most + 1)):
        W = _directions(rng, config.samples, K, m)
        x = 1 - (1 - config.lowest) * rng.random((config.samples, K, 1), np.float32)
        hidden[row] = (x * W).sum(1)
        missed = (W @ hidden[row][:, :, None] <= threshold).any((1, 2))
        end[row, missed] = K
    going = np.argwhere(end > config.limit)
    for before in range(0, config.limit, _BLOCK):
        W = _directions(rng, min(_BLOCK, config.limit - before), m)
        called: Bool[np.ndarray, "going block"] = hidden[*going.T] @ W.T > threshold
        wrong = called.any(1)
        row, sample = going[wrong].T
        end[row, sample] = (row + 1) + before + called[wrong].argmax(1) + 1
        going = going[~wrong]
        if not going.size:
            break
    return end


def _directions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    W = rng.standard_normal(shape, np.float32)
    return W / np.linalg.norm(W, axis=-1, keepdims=True)


def laws_of(config: RandomCodes) -> Iterator[tuple[str, float]]:
    """The laws that are asked of codes, each with its k or p."""
    for k in config.active:
        yield "exactly k", k
        yield "expected k", k
    for p in config.densities:
        yield "fixed p", p


def sizes(limit: int) -> Int[np.ndarray, " sizes"]:
    """Numbers of features to look at: one per cent apart, and all the small ones."""
    return np.unique(np.geomspace(1, limit, int(100 * math.log(limit)) + 2).round().astype(int))


def largest(
    law: str,
    value: float,
    n: Int[np.ndarray, " sizes"],
    failed: Float[np.ndarray, "most sizes"],
    number: Int[np.ndarray, " most"],
    error: float,
) -> float:
    """The last size before the share of failures, given for each number active, exceeds `error`.

    More than `most` active count as failures. NaN where none does or all do.
    """
    if law == "exactly k":
        share = failed[int(value) - 1]
    else:
        p = np.minimum(value / n, 1.0) if law == "expected k" else np.full(n.size, value)
        weight = stats.binom.pmf(number[:, None], n, p)
        share = (weight * failed).sum(0) + stats.binom.sf(number[-1], n, p)
    possible = n >= (1 if law == "fixed p" else value)
    n, share = n[possible], share[possible]
    (over,) = np.nonzero(share > error)
    return float(n[over[0] - 1]) if over.size and over[0] else math.nan
