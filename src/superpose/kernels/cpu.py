# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""The fused training step on a CPU: draw, forward, backward and AdamW for one model, in cache.

A batch is never materialised. A step counts the samples that are not empty (all features off),
draws only those in tiles of `TILE` samples, and adds up gradients tile by tile; the empty ones
all have the same gradient, added in one go. The last tile is filled up with empty samples, which
the bulk then takes off again, so that every loop has a constant length.

All that a step touches lies in one flat float32 workspace at constant offsets (`Layout`), with
`n`, `m` and the flags compile-time constants: the compiler then knows that nothing overlaps and
vectorises every inner loop, which runs along the samples of a tile.

Random numbers are counter-based: each is a hash of (key, step, what for, counter), so a model's
stream depends on its key alone, never on its neighbours or on the thread that trains it.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from superpose.features import Law
from superpose.models import ToyModel

VERSION = "cpu-1"
"""Changes whenever a result may change in any bit; recorded with every run."""

TILE = 128
BLOCK = 10
ZERO = np.float32(0.0)
WHOLE = np.float32(2.0**-31)
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.AdamW's defaults

# The purposes of random numbers within one step.
COUNT, FIRST, CELL, MEMBER = 0, 1, 2, 3

# Sums may be reordered (that is what lets them vectorise); NaN and infinity keep their meaning,
# so that a diverged model is seen.
# Functions with inline="always" see `n`, `m` and the flags of the kernel as constants; the others
# need not, and compile once.
FASTMATH = {"reassoc", "contract", "nsz"}


@intrinsic
def _hash(typingctx, start, offset, key):
    """32 random bits from the counter start + offset under a 64-bit key.

    An avalanche of two multiplications (xor-shift, multiply, xor-shift and the key's other half,
    multiply, xor-shift), written in 32-bit instructions: numba widens uint32 arithmetic to 64
    bits, which costs three times as much once vectorised.
    """

    def generate(context, builder, signature, args):
        i32 = ir.IntType(32)

        def fold(z, shift):
            return builder.xor(z, builder.lshr(z, i32(shift)))

        counter = builder.add(args[0], builder.trunc(args[1], i32))
        z = builder.xor(counter, builder.trunc(args[2], i32))
        z = builder.mul(fold(z, 16), i32(0x21F0AAAD))
        other = builder.trunc(builder.lshr(args[2], args[2].type(32)), i32)
        z = builder.mul(builder.xor(fold(z, 15), other), i32(0x735A2D97))
        return fold(z, 15)

    return types.uint32(types.uint32, types.intp, types.uint64), generate


@intrinsic
def _float31(typingctx, u):
    """The 31 high bits of u as float32 (AVX2 converts signed integers only)."""

    def generate(context, builder, signature, args):
        half = builder.lshr(args[0], args[0].type(1))
        return builder.sitofp(half, ir.FloatType())

    return types.float32(types.uint32), generate


@njit
def _mix(z):
    """The finaliser of splitmix64: one 64-bit key into another that looks unrelated."""
    z = np.uint64(z)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit
def step_key(key, step, purpose):
    return _mix(np.uint64(key) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(4 * step + purpose + 1))


@njit
def _lane_key(key, lane):
    """The key of one feature or set within a step and purpose."""
    return _mix(key + np.uint64(0x9E3779B97F4A7C15) * np.uint64(lane + 1))


@njit(inline="always")
def _unit(u, scale):
    """Amplitude in (0, 1] from the 31 high bits of a draw that lies below its threshold."""
    return (_float31(u) + np.float32(0.5)) * scale


@njit
def count_nonempty(batch, nonempty, key):
    count = 0
    for t in range(batch):
        count += np.int32(_hash(np.uint32(0), t, key) <= nonempty)
    return count


class Layout(NamedTuple):
    """Offsets into the workspace of one model: a tile (feature-major), then what is learnt."""

    x: int  # [n, TILE] the samples, overwritten by nothing
    g: int  # [n, TILE] derivative by the output's pre-activation
    h: int  # [m, TILE] hidden activations
    dh: int  # [m, TILE] derivative by them
    W: int  # [n, m]
    b: int  # [n]
    W_slope: int  # [n, m] gradient, summed over the batch
    b_slope: int  # [n]
    importance: int  # [n]
    size: int

    @classmethod
    def of(cls, n: int, m: int) -> "Layout":
        lengths = (n * TILE, n * TILE, m * TILE, m * TILE, n * m, n, n * m, n, n)
        return cls(*np.cumsum([0, *lengths]).tolist())


@njit(inline="always")
def _presence(work, at, set_draw, first_u, start, law):
    """Amplitude of one set in each sample of the tile into `work[at:]`, zero when it is off."""
    key, before, s = set_draw
    first, on, scale = law.first[s], law.on[s], law.scale[s]
    for t in range(TILE):
        u = _hash(start, t, key)
        earlier = first_u[t] <= before
        value = _unit(u, scale if earlier else WHOLE)
        present = (u <= on) if earlier else (first_u[t] <= first)
        work[at + t] = value if present else ZERO


@njit(inline="always")
def _spread(work, amplitude, s, sizes, start, key):
    """Give the members of set `s` their amplitudes: to the chosen one, or to each its own."""
    size, exclusive = sizes
    chooser = _lane_key(key, s)
    for j in range(size):
        i = s * size + j
        own = _lane_key(key, i)
        for t in range(TILE):
            if exclusive:
                v = np.uint64(_hash(start, t, chooser))
                chosen = np.int64((v * np.uint64(size)) >> np.uint64(32))
                work[i * TILE + t] = amplitude[t] if j == chosen else ZERO
            else:
                value = _unit(_hash(start, t, own), WHOLE)
                work[i * TILE + t] = value if amplitude[t] > ZERO else ZERO


@njit(inline="always")
def draw_tile(work, n, sizes, samples, law, keys):
    """Draw samples `begin … begin + count` of a step into the tile; the rest of it is empty."""
    begin, count = samples
    size, _ = sizes
    first_u = np.empty(TILE, np.uint32)
    amplitude = np.empty(TILE, np.float32)
    start = np.uint32(begin)
    for t in range(TILE):
        first_u[t] = max(_hash(start, t, keys[FIRST]), np.uint32(1))
    # Draws are at least 1, so none counts as earlier than the first set.
    before = np.uint32(0)
    for s in range(n // size):
        set_draw = (_lane_key(keys[CELL], s), before, s)
        if size == 1:
            _presence(work, s * TILE, set_draw, first_u, start, law)
        else:
            _presence(amplitude, 0, set_draw, first_u, start, law)
            _spread(work, amplitude, s, sizes, start, keys[MEMBER])
        before = law.first[s]
    for i in range(n):
        for t in range(count, TILE):
            work[i * TILE + t] = ZERO


@njit(inline="always")
def _add_product(work, rows, terms, out, weights, source):
    """out[r] += Σ_j weight[r, j] · source[j] over tiles, for r below `rows` and j below `terms`.

    Terms go in blocks of `BLOCK`, which the compiler unrolls, so that a tile of `out` stays in
    registers through a block. `rows` is a run-time number on purpose: as a constant, it makes
    the compiler unroll this loop too, for many seconds and to no gain.
    """
    weight, by_row, by_term = weights
    whole = terms - terms % BLOCK
    for r in range(rows):
        for block in range(0, whole, BLOCK):
            for t in range(TILE):
                s = work[out + r * TILE + t]
                for j in range(BLOCK):
                    w = work[weight + r * by_row + (block + j) * by_term]
                    s += w * work[source + (block + j) * TILE + t]
                work[out + r * TILE + t] = s
        if terms % BLOCK > 0:
            for t in range(TILE):
                s = work[out + r * TILE + t]
                for j in range(terms % BLOCK):
                    w = work[weight + r * by_row + (whole + j) * by_term]
                    s += w * work[source + (whole + j) * TILE + t]
                work[out + r * TILE + t] = s


@njit(inline="always")
def _output_slope(work, at, outputs, output_relu):
    """Turn the pre-activations in `g` into derivatives of the loss, and sum those for b."""
    for i in range(outputs):
        weight = np.float32(2.0) * work[at.importance + i]
        total = ZERO
        for t in range(TILE):
            s = work[at.g + i * TILE + t]
            d = weight * (s - work[at.x + i * TILE + t])
            if output_relu:
                d = d if s > ZERO else ZERO
            work[at.g + i * TILE + t] = d
            total += d
        work[at.b_slope + i] += total


@njit(inline="always")
def _weight_slope(work, at, outputs, units, m):
    """Slope of W[i, k] += Σ_t g[i] h[k] + x[i] dh[k]; two units share a feature's loads."""
    for i in range(outputs):
        for k in range(0, units - units % 2, 2):
            s = ZERO
            r = ZERO
            for t in range(TILE):
                g = work[at.g + i * TILE + t]
                x = work[at.x + i * TILE + t]
                s += g * work[at.h + k * TILE + t] + x * work[at.dh + k * TILE + t]
                r += g * work[at.h + (k + 1) * TILE + t] + x * work[at.dh + (k + 1) * TILE + t]
            work[at.W_slope + i * m + k] += s
            work[at.W_slope + i * m + k + 1] += r
        if m % 2:
            s = ZERO
            for t in range(TILE):
                s += work[at.g + i * TILE + t] * work[at.h + (m - 1) * TILE + t]
                s += work[at.x + i * TILE + t] * work[at.dh + (m - 1) * TILE + t]
            work[at.W_slope + i * m + m - 1] += s


@njit(inline="always")
def add_gradient(work, at, shape, run_time_shape, relu):
    """Add the gradient of Σ_i I_i (x_i − x̂_i)², summed over the tile, to the slopes."""
    n, m = shape
    hidden_relu, output_relu = relu
    # The bounds tell the compiler that nothing of the workspace overlaps (see `_add_product`).
    outputs, units = min(run_time_shape[0], n), min(run_time_shape[1], m)
    for j in range(2 * m * TILE):
        work[at.h + j] = ZERO
    _add_product(work, units, n, at.h, (at.W, 1, m), at.x)
    if hidden_relu:
        for j in range(m * TILE):
            work[at.h + j] = max(work[at.h + j], ZERO)
    for i in range(outputs):
        for t in range(TILE):
            work[at.g + i * TILE + t] = work[at.b + i]
    _add_product(work, outputs, m, at.g, (at.W, m, 1), at.h)
    _output_slope(work, at, outputs, output_relu)
    _add_product(work, units, n, at.dh, (at.W, 1, m), at.g)
    if hidden_relu:
        for j in range(m * TILE):
            work[at.dh + j] = work[at.dh + j] if work[at.h + j] > ZERO else ZERO
    _weight_slope(work, at, outputs, units, m)


@cache
def training_kernel(model: ToyModel, law: Law):
    """The compiled function that trains one model of this shape in place.

    `train(W, b, moments, importance, law, key, rates, batch, decay, first)` updates W `[n, m]`,
    b `[n]` and the AdamW moments `[2, n, m + 1]` (b is the last column) through steps
    `first … first + len(rates)`, with `rates` the learning rate of each.
    """
    # Only plain numbers may be captured: they are what the cache on disk tells kernels apart by.
    n, m = model.n, model.m
    relu = (model.hidden == "relu", model.output == "relu")
    sizes = (law.size, law.exclusive)
    at = Layout.of(n, m)

    @njit(nogil=True, cache=True, fastmath=FASTMATH)
    def train(W, b, moments, importance, law, key, rates, batch, decay, first):
        work = np.zeros(at.size, np.float32)
        keys = np.empty(4, np.uint64)
        # Element by element: numba compiles slices and reshapes for seconds.
        for i in range(n):
            for k in range(m):
                work[at.W + i * m + k] = W[i, k]
            work[at.b + i] = b[i]
            work[at.importance + i] = importance[i]
        for index in range(rates.size):
            step = first + index
            for purpose in range(4):
                keys[purpose] = step_key(key, step, purpose)
            filled = count_nonempty(batch, law.nonempty, keys[COUNT])
            for j in range(at.W_slope, at.importance):
                work[j] = ZERO
            for start in range(0, filled, TILE):
                draw_tile(work, n, sizes, (start, filled - start), law, keys)
                add_gradient(work, at, (n, m), W.shape, relu)
            empty = batch - (filled + TILE - 1) // TILE * TILE
            add_empty(work, n, at, empty, relu[1])
            _adamw(work, moments, (n, m, at), np.float32(1.0 / batch), (rates[index], decay), step)
        for i in range(n):
            for k in range(m):
                W[i, k] = work[at.W + i * m + k]
            b[i] = work[at.b + i]

    return train


@njit(fastmath=FASTMATH)
def add_empty(work, n, at, empty, output_relu):
    """An empty sample has h = 0 and x̂ = g(b): only the bias feels it."""
    for i in range(n):
        b = work[at.b + i]
        if not output_relu or b > ZERO:
            work[at.b_slope + i] += np.float32(2.0 * empty) * work[at.importance + i] * b


@njit(fastmath=FASTMATH)
def _adamw(work, moments, shape, mean, pace, step):
    """One step of torch.optim.AdamW (decay is decoupled, and applies to b as well)."""
    n, m, at = shape
    rate, decay = pace
    fade = np.float32(1.0 - rate * decay)
    size = np.float32(rate / (1.0 - BETA1 ** (step + 1)))
    root = np.float32(1.0 / np.sqrt(1.0 - BETA2 ** (step + 1)))
    for i in range(n):
        for k in range(m + 1):
            at_value = at.W + i * m + k if k < m else at.b + i
            at_slope = at.W_slope + i * m + k if k < m else at.b_slope + i
            d = work[at_slope] * mean
            first = np.float32(BETA1) * moments[0, i, k] + np.float32(1.0 - BETA1) * d
            second = np.float32(BETA2) * moments[1, i, k] + np.float32(1.0 - BETA2) * d * d
            moments[0, i, k] = first
            moments[1, i, k] = second
            change = size * first / (np.sqrt(second) * root + np.float32(EPSILON))
            work[at_value] = work[at_value] * fade - change
