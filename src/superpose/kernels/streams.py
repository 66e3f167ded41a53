"""What a world's law and a model's seed are to a kernel: tables of integers.

Specified in docs/sampler.md: every table follows from the law by the basic operations of IEEE
arithmetic in a fixed order (the knots of an amplitude law by correct rounding), so that another
implementation can reproduce a stream bit for bit.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.core.registry import cpu_target
from scipy.sparse import csr_array

from superpose.features import Constant, Exponential, Features, Finite, HalfNormal
from superpose.kernels import hashing

OCTAVES, SEGMENTS = 32, 256
"""An amplitude's quantiles are tabulated from 2⁻³² to 1, so many knots an octave."""

CONDITIONAL_BELOW = 0.75
"""Where fewer samples than this have an active feature, only those are drawn."""


class Tables(NamedTuple):
    """A world's law: a draw u of 32 random bits decides by comparison.

    Arrays that a law does not need are empty.
    """

    size: int  # members of a set
    exclusive: bool  # one of a set's members is on, or all
    signed: bool
    conditional: bool  # empty samples are counted, not drawn
    count: np.ndarray  # [batch] the non-empty ones are as many as there are entries <= v
    guide: np.ndarray  # [256] that number for the least v of the same high 8 bits
    first: np.ndarray  # [sets] its first active set is the first s with u <= first[s]
    on: np.ndarray  # [sets] a later set is on when u <= on[s]
    scale: np.ndarray  # [sets] float32, turns the u of a set that is on into a ratio in (0, 1]
    value: np.float32  # what a constant amplitude is; -1 for the others
    knots: np.ndarray  # [8193] magnitudes at the knots of the ratio, or empty: the ratio itself
    rises: np.ndarray  # [8193] from each knot to the next
    start: np.ndarray  # [T + 1] of a finite set of points: where each begins,
    column: np.ndarray  # the features that are not zero in it
    entry: np.ndarray  # and their values


@lru_cache(maxsize=128)
def tables(world: Features, batch: int) -> Tables:
    """The law of `world` for batches of `batch` samples."""
    if isinstance(world.law, Finite):
        return _finite(world.law.points.matrix)
    on, probability = _rounded(world.set_probability)
    some, none = _some_and_none(probability)
    conditional = bool(some[-1] < CONDITIONAL_BELOW)
    first = np.clip(np.rint(some[1:] / some[-1] * 2.0**32) - 1.0, 0.0, 2.0**32 - 1.0)
    first[-1] = 2.0**32 - 1.0
    knots, rises = _knots(world)
    count = _binomial(batch, some[-1], none) if conditional else np.empty(0, np.int64)
    return Tables(
        size=world.law.size,
        exclusive=world.law.exclusive and world.law.size > 1,
        signed=world.signed,
        conditional=conditional,
        count=count,
        guide=np.searchsorted(count, np.arange(256) << 45, side="right"),
        first=first.astype(np.uint32),
        on=on,
        scale=_scale((on.astype(np.float64) + 1.0) / 2.0),
        value=np.float32(world.amplitude.value if isinstance(world.amplitude, Constant) else -1.0),
        knots=knots,
        rises=rises,
        start=np.empty(0, np.int64),
        column=np.empty(0, np.int32),
        entry=np.empty(0, np.float32),
    )


def _finite(points: csr_array) -> Tables:
    return Tables(
        size=1,
        exclusive=False,
        signed=False,
        conditional=False,
        count=np.empty(0, np.int64),
        guide=np.empty(0, np.int64),
        first=np.empty(0, np.uint32),
        on=np.empty(0, np.uint32),
        scale=np.empty(0, np.float32),
        value=np.float32(-1.0),
        knots=np.empty(0, np.float32),
        rises=np.empty(0, np.float32),
        start=points.indptr.astype(np.int64),
        column=points.indices.astype(np.int32),
        entry=points.data.astype(np.float32),
    )


def _rounded(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, which are odd so that a draw's lowest bit is fair, and what they make of p."""
    on = np.clip(2.0 * np.rint(p * 2.0**31) - 1.0, 1.0, 2.0**32 - 1.0)
    return on.astype(np.uint32), (on + 1.0) / 2.0**32


def _some_and_none(p: np.ndarray) -> tuple[np.ndarray, float]:
    """The probability that one of the first s sets is on, for s = 0 … sets, and that none is."""
    some, none = [0.0], 1.0
    for q in p.tolist():
        some.append(some[-1] + (1.0 - some[-1]) * q)
        none *= 1.0 - q
    return np.array(some), none


def _scale(values: np.ndarray) -> np.ndarray:
    """The largest float32 whose product with float32(values) is at most 1."""
    rounded = values.astype(np.float32).astype(np.float64)
    scale = (1.0 / rounded).astype(np.float32)
    too_large = scale.astype(np.float64) * rounded > 1.0
    return np.where(too_large, np.nextafter(scale, np.float32(0.0)), scale).astype(np.float32)


def _binomial(batch: int, some: float, none: float) -> np.ndarray:
    """The distribution function of Binomial(batch, some) in units of 2⁻⁵³."""
    odds, mode = some / none, int((batch + 1) * some)
    weight = np.zeros(batch + 1)
    weight[mode] = 1.0
    for k in range(mode, batch):
        weight[k + 1] = weight[k] * ((batch - k) * odds / (k + 1))
    for k in range(mode, 0, -1):
        weight[k - 1] = weight[k] * (k / ((batch - k + 1) * odds))
    total = np.cumsum(weight)
    return np.floor(total[:-1] / total[-1] * 2.0**53).astype(np.int64)


def _knots(world: Features) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes at the knots and the rises between them; empty where no table is needed."""
    if not isinstance(world.amplitude, Exponential | HalfNormal):
        return np.empty(0, np.float32), np.empty(0, np.float32)
    index = np.arange(OCTAVES * SEGMENTS + 1, dtype=np.uint32)
    ratio = (((95 << 8) + index) << 15).view(np.float32).astype(np.float64)
    ratio[-1] = 1.0 - 2.0**-25  # a feature of a ratio of 1 is active too
    knots = world.amplitude.magnitudes(ratio).astype(np.float32)
    return knots, np.append(np.diff(knots), np.float32(0.0))


def stream_key(seed: int, run: int) -> int:
    """The 64-bit key of model `run` of a stack: a function of (seed, run) alone."""
    return hashing.model_key(seed, run)


def processor() -> str:
    """The processor that numba compiles for, with a digest of its features.

    Results are bit-equal for one kernel version on one processor as named here.
    """
    codegen = cpu_target.target_context.codegen()  # pyright: ignore
    name, features = codegen.magic_tuple()[1:]
    return f"{name} {hashlib.sha256(features.encode()).hexdigest()[:8]}"
