"""The sampler of docs/sampler.md once more, in plain integers and NumPy: what kernels must equal.

Written from that page alone, for reading. A line of it is a rule there; nothing is compiled, fused
or shared with the kernels. NumPy rounds each float32 operation by itself, as the page demands.
"""

import math
import zlib
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from superpose.features import Amplitude, Constant, Exponential, Features, HalfNormal

COUNT, FIRST, CELL, MEMBER = range(4)
GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
WHOLE = np.float32(2.0**-31)
OCTAVES, KNOTS = 32, 256


def mix(z: int) -> int:
    """The finaliser of splitmix64, a bijection of 64-bit integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def child(key: int, index: int) -> int:
    return mix((key + GOLDEN * (index + 1)) & MASK)


def model_key(seed: int, run: int) -> int:
    return child(child(0, seed), run)


def step_key(key: int, step: int, purpose: int) -> int:
    return child(key, 4 * step + purpose)


def lane_key(key: int, lane: int) -> int:
    return child(key, lane)


def hash32(counter, key: int) -> np.ndarray:
    """32 random bits for each counter, uint32 like the counters."""
    z = np.atleast_1d(np.asarray(counter, np.uint32)) ^ np.uint32(key % 2**32)
    z = (z ^ (z >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    z = z ^ (z >> np.uint32(15)) ^ np.uint32(key >> 32)
    z = z * np.uint32(0x735A2D97)
    return z ^ (z >> np.uint32(15))


class Integers(NamedTuple):
    """The law of a world as a sampler sees it."""

    on: np.ndarray  # [sets] uint32: a draw u turns a set on iff u <= on
    scale: np.ndarray  # [sets] float32: makes a ratio of a draw that did
    first: np.ndarray  # [sets] uint32: the first set that is on is the first with f <= first
    some: float  # probability that any set is on
    none: float  # that none is
    conditional: bool  # whether empty samples are counted instead of drawn


@cache
def integers(world: Features) -> Integers:
    half = np.maximum(np.rint(world.set_probability * 2.0**31), 1.0)  # (on + 1) / 2
    some, none = [0.0], 1.0
    for q in (half / 2.0**31).tolist():
        some.append(some[-1] + (1.0 - some[-1]) * q)
        none = none * (1.0 - q)
    share = [value / some[-1] * 2.0**32 for value in some[1:]]
    first = np.clip(np.rint(share) - 1.0, 0.0, 2.0**32 - 1.0)
    first[-1] = 2.0**32 - 1.0
    return Integers(
        on=(2.0 * half - 1.0).astype(np.uint32),
        scale=np.array([scale(values) for values in half]),
        first=first.astype(np.uint32),
        some=some[-1],
        none=none,
        conditional=some[-1] < 0.75,
    )


def scale(values: float) -> np.float32:
    """The largest float32 c with c * float32(values) <= 1."""
    values = float(np.float32(values))
    c = np.nextafter(np.float32(1.0 / values), np.float32(2.0))
    while float(c) * values > 1.0:
        c = np.nextafter(c, np.float32(0.0))
    return c


@cache
def binomial_table(world: Features, batch: int) -> np.ndarray:
    """int64 [batch]: P(N <= k) in units of 2**-53, k = 0 … batch - 1."""
    law = integers(world)
    odds = law.some / law.none
    mode = math.floor((batch + 1) * law.some)
    weight = [0.0] * (batch + 1)
    weight[mode] = 1.0
    for k in range(mode, batch):
        weight[k + 1] = weight[k] * ((batch - k) * odds / (k + 1))
    for k in range(mode, 0, -1):
        weight[k - 1] = weight[k] * (k / ((batch - k + 1) * odds))
    total, sums = 0.0, []
    for each in weight:
        total = total + each
        sums.append(total)
    return np.array([math.floor(c / total * 2.0**53) for c in sums[:-1]], np.int64)


def count(world: Features, batch: int, seed: int, run: int, step: int) -> int:
    """How many samples of the batch are drawn: those not empty, or all of them."""
    if not integers(world).conditional:
        return batch
    v = step_key(model_key(seed, run), step, COUNT) >> 11
    return int((binomial_table(world, batch) <= v).sum())


@cache
def knots(amplitude: Exponential | HalfNormal) -> np.ndarray:
    """Magnitudes at the 8,193 ratios whose bits end in 15 zeros, from 2**-32 to 1, float32.

    No entry at scale 1 is so close to a tie that an error of 1,000 ulp in float64 would move it.
    """
    bits = np.arange(OCTAVES * KNOTS + 1, dtype=np.uint32) + np.uint32(95 << 8)
    ratios = (bits << np.uint32(15)).view(np.float32).astype(np.float64)
    ratios[-1] = 1.0 - 2.0**-25
    if isinstance(amplitude, Exponential):
        magnitudes = [amplitude.scale * -math.log(r) for r in ratios]
    else:
        # sqrt(2) erfcinv(r) is the point that a normal number exceeds with probability r / 2.
        magnitudes = [amplitude.scale * -NormalDist().inv_cdf(r / 2) for r in ratios]
    return np.array(magnitudes, np.float64).astype(np.float32)


def magnitude(amplitude: Amplitude, r: np.ndarray) -> np.ndarray:
    """The magnitude of an active feature from a ratio in (0, 1], float32."""
    if isinstance(amplitude, Constant):
        return np.full_like(r, np.float32(amplitude.value))
    if not isinstance(amplitude, Exponential | HalfNormal):
        return r
    bits = r.view(np.uint32)
    at = (bits >> np.uint32(15)).astype(np.int64) - (95 << 8)
    along = (bits & np.uint32(0x7FFF)).astype(np.float32) * np.float32(2.0**-15)
    heights = knots(amplitude)
    rises = np.append(heights[1:] - heights[:-1], np.float32(0.0))
    return heights[at] + along * rises[at]


def value(world: Features, u: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """What an active feature is, from its draw and the scale of the draws that it may have."""
    r = ((u >> np.uint32(1)).astype(np.float32) + np.float32(0.5)) * scales
    size = magnitude(world.amplitude, r)
    negative = (u & np.uint32(1)) == 1
    return np.where(negative, -size, size) if world.signed else size


def batch(world: Features, batch: int, seed: int, run: int, step: int) -> np.ndarray:
    """The batch float32 [batch, n] of one step of one model: drawn samples, then empty ones."""
    x = np.zeros((batch, world.n), np.float32)
    t = np.arange(count(world, batch, seed, run, step), dtype=np.uint32)
    keys = [step_key(model_key(seed, run), step, purpose) for purpose in range(4)]
    law, size = integers(world), world.law.size
    whole = np.full(t.size, WHOLE)
    f = np.maximum(hash32(t, keys[FIRST]), np.uint32(1))
    for s in range(world.sets):
        u = hash32(t, lane_key(keys[CELL], s))
        if law.conditional:
            earlier = f <= law.first[s - 1] if s > 0 else np.zeros(t.size, bool)
            on = np.where(earlier, u <= law.on[s], f <= law.first[s])
            scales = np.where(earlier, law.scale[s], whole)
        else:
            on, scales = u <= law.on[s], np.full(t.size, law.scale[s])
        chosen = (hash32(t, lane_key(keys[MEMBER], s)).astype(np.uint64) * size) >> np.uint64(32)
        for j in range(size):
            i = s * size + j
            if size == 1 or world.law.exclusive:
                here, draw, among = on & ((chosen == j) | (size == 1)), u, scales
            else:
                here, draw, among = on, hash32(t, lane_key(keys[MEMBER], i)), whole
            # Draws that are off may have ratios above 1, which no table has.
            x[: t.size, i][here] = value(world, draw[here], among[here])
    return x


def checksum(array: np.ndarray) -> int:
    """CRC-32 of the numbers as little-endian bytes."""
    return zlib.crc32(array.astype(array.dtype.newbyteorder("<")).tobytes())
