"""What a world's law and a model's seed are to a kernel: integers."""

import hashlib
from typing import NamedTuple

import numpy as np
from numba.core.registry import cpu_target

from superpose.features import Features, Uniform


class Thresholds(NamedTuple):
    """A world's law as 32-bit integers: a draw u of 32 random bits decides by comparison."""

    nonempty: np.uint32  # a sample has an active set when u <= nonempty
    first: np.ndarray  # [sets] its first active set is the first s with u <= first[s]
    on: np.ndarray  # [sets] a later set is on when u <= on[s]
    scale: np.ndarray  # [sets] float32, turns the u of a later set into its amplitude


def is_uniform(world: Features) -> bool:
    """Whether active features are uniform on (0, 1], the one amplitude law that kernels draw."""
    return world.amplitude == Uniform() and not world.signed


def thresholds(world: Features) -> Thresholds:
    """The law of `world` rounded to multiples of 2⁻³²."""
    q = world.set_probability
    survive = np.concatenate([[1.0], np.cumprod(1.0 - q)])
    # 1 - survive[-1] would lose the digits of a small p, and q = 1 has the logarithm -inf.
    with np.errstate(divide="ignore"):
        some = -np.expm1(np.log1p(-q).sum())
    first = np.cumsum(q * survive[:-1]) / some
    first[-1] = 1.0
    on = _threshold(q)
    return Thresholds(
        nonempty=_threshold(np.array([some]))[0],
        first=_threshold(first),
        on=on,
        scale=(2.0 / (on.astype(np.float64) + 1.0)).astype(np.float32),
    )


def _threshold(p: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(p * 2.0**32) - 1.0, 0.0, 2.0**32 - 1.0).astype(np.uint32)


def processor() -> str:
    """The processor that numba compiles for, with a digest of its features.

    Results are bit-equal for one `VERSION` on one processor as named here.
    """
    codegen = cpu_target.target_context.codegen()  # pyright: ignore
    name, features = codegen.magic_tuple()[1:]
    return f"{name} {hashlib.sha256(features.encode()).hexdigest()[:8]}"


def stream_key(seed: int, run: int) -> int:
    """The 64-bit key of model `run` of a stack: a function of (seed, run) alone."""
    return int(np.random.SeedSequence([seed, run]).generate_state(1, np.uint64)[0])
