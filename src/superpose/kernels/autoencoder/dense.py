"""A chunk of samples where too many latents are on for lists: every latent of every sample.

Five products with the micro-kernel instead of one. It serves codes that decide themselves how
many latents are on (`reached`), which early in training are half of all.
"""

from typing import NamedTuple

import numpy as np

from superpose.kernels.autoencoder.compiling import compiled, inner
from superpose.kernels.autoencoder.encoding import CHUNK, DEPTH, PANEL, UNIT, Encoder, aligned
from superpose.kernels.autoencoder.prices import GATE, JUMP, price, price_slope
from superpose.kernels.compiling import FASTMATH
from superpose.kernels.products import STEP, product

ZERO, NIL = np.float32(0.0), np.int64(0)


class Dense(NamedTuple):
    """What a chunk works with beside the encoder."""

    down: np.ndarray  # [d_out / STEP, d_sae, STEP] W
    up: np.ndarray  # [d_sae / STEP, d_out + 1, STEP] W, its rows along the panels
    z: np.ndarray  # [CHUNK, by_row] latents
    g: np.ndarray  # [CHUNK, by_row] slopes by latents, then by pre-activations
    error: np.ndarray  # [CHUNK, d_out + STEP]
    alone: np.ndarray  # [CHUNK, by_row] slopes by gates
    d_in: int
    d_out: int


def room(encoder: Encoder, d_in: int, d_out: int, gates: bool) -> Dense:
    """Room for a chunk; empty where whole vectors do not fit, so that only lists serve."""
    serves = d_in % STEP == 0 and d_out % STEP == 0
    chunk = CHUNK * encoder.by_row if serves else 0
    matrix = encoder.d_sae * d_out if serves else 0
    return Dense(
        aligned(matrix),
        aligned(-(-encoder.d_sae // STEP) * STEP * (d_out + 1) if serves else 0),
        aligned(chunk),
        aligned(chunk),
        aligned(CHUNK * (d_out + STEP)),
        aligned(chunk if gates else 0),
        d_in,
        d_out,
    )


@compiled
def pack_down(panels, theta, at, d_sae, d_out):
    """panels[p, k, j] = W[k, p STEP + j], W at `at` in theta."""
    for p in range(d_out // STEP):
        for k in range(d_sae):
            for j in range(STEP):
                panels[(p * d_sae + k) * STEP + j] = theta[at + k * d_out + p * STEP + j]


@compiled
def down(error, z, dense, count, sizes):
    """error[t] += Σ_k z[t, k] W[k]; sizes = (from row to row of z, d_sae)."""
    by_row, d_sae = sizes
    stride = np.int64(dense.d_out + STEP)
    for first in range(0, dense.d_out, STEP):
        panel = (first // STEP) * d_sae * STEP
        for k in range(0, d_sae, DEPTH):
            product(
                (error, np.int64(first), stride, count < 0),
                (z, np.int64(k), by_row, UNIT),
                (dense.down, panel + k * STEP, PANEL, min(DEPTH, d_sae - k)),
                count,
                PANEL,
            )


@compiled
def up(g, error, dense, count, sizes):
    """g[t, k] = Σ_c error[t, c] W[k, c]; sizes = (from row to row of g, d_sae)."""
    by_row, d_sae = sizes
    d_out = dense.d_out
    for first in range(0, d_sae, STEP):
        for k in range(0, d_out, DEPTH):
            product(
                (g, np.int64(first), by_row, k == 0),
                (error, np.int64(k), np.int64(d_out + STEP), UNIT),
                (dense.up, first * (d_out + 1) + k * STEP, PANEL, min(DEPTH, d_out - k)),
                count,
                PANEL,
            )


@compiled
def across(slope, at, weights, by_row, source, sizes):
    """slope[k] += Σ_t weights[t, k] source[t]; sizes = (rows of slope, their length)."""
    rows, d = sizes
    product((slope, at, d, rows < 0), (weights, NIL, UNIT, by_row), source, rows, d)


@inner(fastmath=FASTMATH)
def begin(error, target, first, count, theta, b):
    """error[t] = b − target[first + t], rows STEP longer than they need be."""
    d = target.shape[1]
    for t in range(count):
        wanted = target[first + t]
        row = error[t * (d + STEP) : t * (d + STEP) + d]
        for c in range(d):
            row[c] = theta[b + c] - wanted[c]


@inner(fastmath=FASTMATH)
def total(error, count, d, totals):
    """Σ error²; the errors themselves are added to `totals`."""
    loss = 0.0
    for t in range(count):
        row, square = error[t * (d + STEP) : t * (d + STEP) + d], ZERO
        for c in range(d):
            square += row[c] * row[c]
            totals[c] += row[c]
        loss += square
    return loss


@compiled
def learn(given, first, count, encoder, dense, law):
    """Add the slopes of a chunk whose pre-activations are in `encoder`, and count what is on.

    given = (x, target, theta, slope, at, totals), at = (E, W, b_enc, b_dec); law = (kind, vectors,
    numbers, sums, active), as `activate` and `back` have them. Gives the squared error, that of
    gates alone, and what the latents cost before the coefficient.
    """
    x, target, theta, slope, at, totals = given
    kind, vectors, numbers, sums, active = law
    by_row, d_sae, d_out, error = encoder.by_row, encoder.d_sae, dense.d_out, dense.error
    sizes, alone = (by_row, d_sae), 0.0
    paid = activate(dense.z, encoder.pre, active, (count, by_row, d_sae), kind, vectors)
    if kind == GATE:
        begin(error, target, first, count, theta, at[3])
        down(error, encoder.pre, dense, count, sizes)
        alone = total(error, count, d_out, np.zeros(d_out, np.float32))
        up(dense.alone, error, dense, count, sizes)
    begin(error, target, first, count, theta, at[3])
    down(error, dense.z, dense, count, sizes)
    squared = total(error, count, d_out, totals)
    up(dense.g, error, dense, count, sizes)
    values = dense.g, dense.alone, dense.z, encoder.pre
    back(values, (slope[at[2] : at[3]], *sums), (count, by_row, d_sae), kind, vectors, numbers)
    for c in range(len(error)):
        error[c] *= numbers[0]
    across(
        slope, at[1], dense.z, by_row, (error, NIL, d_out + STEP, np.int64(count)), (d_sae, d_out)
    )
    rows = x.reshape(-1), np.int64(first * dense.d_in), dense.d_in, np.int64(count)
    across(slope, at[0], dense.g, by_row, rows, (d_sae, dense.d_in))
    return squared, alone, paid


@compiled(fastmath=FASTMATH)
def activate(z, pre, active, sizes, kind, vectors):
    """Latents from pre-activations, counted by latent; gives what they cost before the coefficient.

    vectors = (level, gain, shift), one number a latent: a latent is on above its level.
    """
    count, by_row, d_sae = sizes
    level, gain, shift = vectors
    paid = 0.0
    for t in range(count):
        row, out = pre[t * by_row : t * by_row + d_sae], z[t * by_row : t * by_row + d_sae]
        cost = ZERO
        for k in range(d_sae):
            out[k] = ZERO if row[k] <= level[k] else row[k]
        if kind == GATE:
            for k in range(d_sae):
                row[k] = out[k]
                cost += out[k]
                opened = gain[k] * row[k] + shift[k]
                out[k] = ZERO if opened <= ZERO or row[k] <= ZERO else opened
        elif kind != JUMP:
            for k in range(d_sae):
                cost += price(out[k], kind)
        paid += cost
        for k in range(d_sae):
            active[k] += np.int64(out[k] > ZERO)
    return paid


@compiled(fastmath=FASTMATH)
def back(given, sums, sizes, kind, vectors, numbers):
    """From slopes by latents those by pre-activations, in g, with sums over samples by latent.

    given = (g, alone, z, pre): the errors' dot products with rows of W, those of gates alone,
    latents and pre-activations. sums = (by b_enc, by the first extra, by the second, near).
    numbers = (scale of the dot products, price of a latent, half a bandwidth).
    """
    g, alone, z, pre = given
    by_bias, by_first, by_second, near = sums
    count, by_row, d_sae = sizes
    level, gain, _ = vectors
    scale, cost, half = numbers
    for t in range(count):
        at = t * by_row
        slope, on, raw = g[at : at + d_sae], z[at : at + d_sae], pre[at : at + d_sae]
        if kind == GATE:
            gates = alone[at : at + d_sae]
            for k in range(d_sae):
                own = ZERO if on[k] <= ZERO else scale * slope[k]
                by_second[k] += own
                by_first[k] += own * raw[k]
                own = own * gain[k] + (ZERO if raw[k] <= ZERO else scale * gates[k] + cost)
                slope[k] = own
                by_bias[k] += own
        elif kind == JUMP:
            for k in range(d_sae):
                close = abs(raw[k] - level[k]) < half
                own = scale * slope[k]
                by_first[k] += own if close else ZERO
                near[k] += np.int64(close)
                own = ZERO if on[k] <= ZERO else own
                slope[k] = own
                by_bias[k] += own
        else:
            for k in range(d_sae):
                own = scale * slope[k] + cost * price_slope(on[k], kind)
                own = ZERO if on[k] <= ZERO else own
                slope[k] = own
                by_bias[k] += own
