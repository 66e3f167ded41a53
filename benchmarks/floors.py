"""What a training step must cost at least on this machine: operations, random numbers, bytes.

Each is a count divided by a rate that a plain loop reaches here, on one thread. They could overlap
perfectly, so the floor of a step is the largest of the three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import numpy as np
import torch
from numba import njit

from superpose.kernels.hashing import hash32
from superpose.kernels.streams import CONDITIONAL_BELOW

REPEATS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Best of many, per second of processor time."""

    product: float  # floating operations of a large float32 matrix product
    product_by: str  # whose product that was
    hashes: float  # 32-bit hashes of the sampler
    bytes: float  # bytes read or written by a copy within the second-level cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Least µs of a step of one model, by what it spends them on."""

    dense: float  # five products over all samples and features
    needed: float  # the products that active features and non-empty samples need
    random: float
    bytes: float

    @property
    def least(self) -> float:
        """What no kernel that reads this stream can be below."""
        return max(self.needed, self.random, self.bytes)


def measured(repeats: int) -> Rates:
    """The rates of this machine, now."""
    rng = np.random.default_rng(0)
    a, b = (rng.random(shape, np.float32) for shape in ((4096, 128), (128, 1024)))
    one, other = torch.from_numpy(a), torch.from_numpy(b)
    seconds = {
        "NumPy": _best(lambda: a @ b, repeats),
        "PyTorch": _best(lambda: one @ other, repeats),
    }
    by = min(seconds, key=lambda name: seconds[name])
    source, target = np.zeros((2, 2**15), np.float32)
    key, hashes = np.uint64(0x0123456789ABCDEF), np.zeros(2**10, np.uint32)
    _hash_loop(hashes, key)
    return Rates(
        product=2.0 * 4096 * 128 * 1024 / seconds[by],
        product_by=by,
        hashes=REPEATS * hashes.size / _best(lambda: _hash_loop(hashes, key), repeats),
        bytes=REPEATS * 2 * source.nbytes / _best(lambda: _copies(target, source), repeats),
    )


def floor(n: int, m: int, p: float, batch: int, rates: Rates) -> Floor:
    """The floors of a tied model of independent features.

    `dense`: h, x̂, the slope by h and two for the slope by W, 2·n·m operations a sample each.
    `needed`: h and its part of the slope by W for active features (4·m operations each); as much
    again for the outputs, if none is on but theirs; and x̂ for the samples that are not empty,
    from h or as a sum of rows of W·Wᵀ. `bytes`: weights, slope and two moments are read and
    written once, active values written once and read twice.
    """
    some = 1.0 - (1.0 - p) ** n
    filled, active = batch * some, batch * n * p
    outputs = min(2.0 * n * m * filled, 2.0 * n * active + 2.0 * n * n * m)
    draws = filled * (n + 1) if some < CONDITIONAL_BELOW else batch * n
    return Floor(
        dense=10.0 * n * m * batch / rates.product * 1e6,
        needed=(8.0 * m * active + outputs) / rates.product * 1e6,
        random=draws / rates.hashes * 1e6,
        bytes=(32.0 * (n * m + n) + 12.0 * active) / rates.bytes * 1e6,
    )


@njit
def _hash_loop(out, key):
    # Stored, not summed: numba would sum in 64 bits.
    for again in range(REPEATS):
        for t in range(out.size):
            out[t] = hash32(t + again, np.uint32(key), np.uint32(key >> np.uint64(32)))


def _copies(target: np.ndarray, source: np.ndarray) -> None:
    for _ in range(REPEATS):
        np.copyto(target, source)


def _best(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = process_time()
        work()
        times.append(process_time() - start)
    return min(times)
