"""Codes whose latents are on where they exceed a level of their own: ReLU, JumpReLU and gates.

How many are on is up to the batch: few where a code has learned to be sparse, half of all before.
"""

import numpy as np

from superpose.kernels.autoencoder.compiling import compiled, inner
from superpose.kernels.autoencoder.dense import Dense, learn, pack_down
from superpose.kernels.autoencoder.encoding import CHUNK, Encoder, encode, pack
from superpose.kernels.autoencoder.masks import WORD
from superpose.kernels.autoencoder.prices import price, price_slope
from superpose.kernels.autoencoder.selection import list_reached
from superpose.kernels.compiling import FASTMATH

LISTED_AT_MOST = 0.2
"""The share of latents on above which every latent of a chunk costs less than lists."""

ZERO = np.float32(0.0)


def most_entries(samples: int, dense: Dense, encoder: Encoder) -> int:
    """How many entries `select` lists at most."""
    if len(dense.z) == 0:
        return samples * encoder.d_sae
    return int(LISTED_AT_MOST * encoder.d_sae) * samples + encoder.d_sae


@compiled
def select(given, encoder, entries, room, dense, law):
    """List the pre-activations above their latent's level, and, as 0, those near below it.

    A chunk of samples where too many are on is learned from at once, by `dense.learn`, and its
    lists stay empty. room = (levels, place, spans), levels = (level, bound, half): an array of
    levels, and of what is no more than level − half, up to whole words; near is what is less than
    half from its level. spans[i] becomes the samples from where to where have lists. Gives the
    number of spans, and what `dense.learn` gives, added up.
    """
    x, theta = given[0], given[2]
    levels, place, spans = room
    most = int(np.float64(LISTED_AT_MOST) * encoder.d_sae) if len(dense.z) > 0 else encoder.d_sae
    entries[0][0] = 0
    count, packed = np.int64(0), False
    squared = alone = paid = 0.0
    for first in range(0, len(x), CHUNK):
        size = encode(x, first, theta, encoder)
        last = first + size
        if not _list(encoder, entries, levels, place, (first, last, size * most)):
            for t in range(first, last):
                entries[0][t + 1] = entries[0][first]
            if not packed:
                packed = True
                pack(dense.up, theta, given[4][1], given[4][2], encoder.d_sae, dense.d_out)
                pack_down(dense.down, theta, given[4][1], encoder.d_sae, dense.d_out)
            found = learn(given, first, size, encoder, dense, law)
            squared, alone, paid = squared + found[0], alone + found[1], paid + found[2]
        elif count > 0 and spans[count - 1, 1] == first:
            spans[count - 1, 1] = last
        else:
            spans[count, 0], spans[count, 1] = first, last
            count += 1
    return count, squared, alone, paid


@inner
def _list(encoder, entries, levels, place, span):
    """List the samples of a span = (first, last, most); whether they have no more entries."""
    start, column, value = entries
    level, bound, half = levels
    first, last, most = span
    for t in range(first, last):
        at, e = (t - first) * encoder.by_row, start[t]
        found = list_reached(encoder.pre, at, encoder.width, bound, np.int64(WORD), place)
        for i in range(found):
            k = place[i]
            pre = encoder.pre[at + k]
            above = not pre <= level[k]
            if above or abs(pre - level[k]) < half:
                column[e], value[e] = k, pre if above else ZERO
                e += 1
        start[t + 1] = e
        if e - start[first] > most:
            return False
    return True


@compiled
def prices(value, count, kind):
    """What the first entries cost, added up."""
    total = 0.0
    for e in range(count):
        total += price(value[e], kind)
    return total


@compiled(fastmath=FASTMATH)
def add_prices(g, value, count, kind, weight):
    """g[e] += weight times the slope of the price, for the first entries."""
    for e in range(count):
        g[e] += weight * price_slope(value[e], kind)


@compiled
def count_active(begin, number, active):
    """Count for each latent how many entries are on."""
    for k in range(len(active)):
        for e in range(begin[k], begin[k + 1]):
            active[k] += number[e] > ZERO


@compiled(fastmath=FASTMATH)
def jump(sums, turned, g, level, half):
    """From the slopes by latents, in g, those by pre-activations, and sums by latent.

    sums = (those of entries less than half from their level, how many these are).
    """
    begin, _, number = turned
    by_level, near = sums
    for k in range(len(begin) - 1):
        total = ZERO
        for e in range(begin[k], begin[k + 1]):
            z = number[e]
            if abs(z - level[k]) < half or not z > ZERO:
                near[k] += 1
                total += g[e]
            g[e] = g[e] if z > ZERO else ZERO
        by_level[k] += total


@compiled(fastmath=FASTMATH)
def open_gates(out, gate, begin, gain, shift):
    """Magnitudes of open gates, latent by latent: out[e] = max(gain · gate[e] + shift, 0)."""
    for k in range(len(begin) - 1):
        for e in range(begin[k], begin[k + 1]):
            z = gain[k] * gate[e] + shift[k]
            out[e] = ZERO if z <= ZERO else z


@compiled(fastmath=FASTMATH)
def open_lists(out, entries, gain, shift):
    """Magnitudes of open gates, sample by sample."""
    start, column, gate = entries
    for e in range(start[len(start) - 1]):
        z = gain[column[e]] * gate[e] + shift[column[e]]
        out[e] = ZERO if z <= ZERO else z


@compiled(fastmath=FASTMATH)
def close_gates(sums, begin, opened, given, gain, weight):
    """From slopes by magnitudes and by gates those by pre-activations, and sums by latent.

    sums = (by the gain, by the shift); opened = (gate, magnitude); given = (g, alone), where g
    becomes the slope by the pre-activation; `weight` is the price of a gate.
    """
    gate, magnitude = opened
    g, alone = given
    for k in range(len(begin) - 1):
        by_gain = by_shift = ZERO
        for e in range(begin[k], begin[k + 1]):
            on = ZERO if magnitude[e] <= ZERO else g[e]
            by_shift += on
            by_gain += on * gate[e]
            g[e] = on * gain[k] + alone[e] + weight
        sums[0][k] += by_gain
        sums[1][k] += by_shift
