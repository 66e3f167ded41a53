"""Counter-based random bits: a hash of (key, counter). Specified in docs/sampler.md."""

import numpy as np

from superpose.kernels.compiling import inner

COUNT, FIRST, CELL, MEMBER = range(4)
"""What the random bits of a step are for."""

STRIDE = np.uint64(0x9E3779B97F4A7C15)
FIFTEEN, SIXTEEN = np.uint32(15), np.uint32(16)


@inner
def mix(z):
    """The finaliser of splitmix64: one 64-bit key into another that looks unrelated."""
    z = np.uint64(z)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def model_key(seed: int, run: int) -> int:
    """The key of a model's whole stream, from any whole numbers modulo 2⁶⁴."""
    key = 0
    for number in (seed, run):
        key = _mixed((key + int(STRIDE) * (number + 1)) % 2**64)
    return key


def _mixed(z: int) -> int:
    """`mix` in Python's integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


@inner
def step_key(key, step, purpose):
    """The key of one step and purpose."""
    return mix(np.uint64(key) + STRIDE * np.uint64(4 * step + purpose + 1))


@inner
def lane_key(key, lane):
    """The key of one feature or set within a step and purpose."""
    return mix(key + STRIDE * np.uint64(lane + 1))


@inner
def hash32(counter, low, high):
    """32 bits that look unrelated to a counter and to both halves of a key.

    Two multiplications: xor-shift, multiply, xor-shift and the key's other half, multiply,
    xor-shift. NumPy's functions stay at 32 bits where numba's operators widen uint32 to 64, which
    would cost three times as much once vectorised.
    """
    z = np.bitwise_xor(np.uint32(counter), low)
    z = np.multiply(np.bitwise_xor(z, np.right_shift(z, SIXTEEN)), np.uint32(0x21F0AAAD))
    z = np.bitwise_xor(np.bitwise_xor(z, np.right_shift(z, FIFTEEN)), high)
    z = np.multiply(z, np.uint32(0x735A2D97))
    return np.bitwise_xor(z, np.right_shift(z, FIFTEEN))
