"""Samples drawn from a world's law, a tile at a time: features along rows, samples along columns.

Specified in docs/sampler.md. Nothing here may be compiled with liberties in the order of floating
operations: the stream is the same on every machine.
"""

import numpy as np

from superpose.kernels.cells import HALF, ONE, ZERO, draw_set, halves, with_sign
from superpose.kernels.compiling import inner
from superpose.kernels.hashing import CELL, FIRST, MEMBER, hash32, lane_key, step_key

TILE = 1024
"""Samples that a tile may hold at most."""

EVER, WHOLE = np.uint32(2**32 - 1), np.float32(2.0**-31)
# Of the bits of a ratio: all but the sign, those within a knot, and what those count.
MAGNITUDE, FRACTION, PART = np.uint32(0x7FFFFFFF), np.uint32(0x7FFF), np.float32(2.0**-15)
FIFTEEN, LOWEST = np.uint32(15), 95 << 8  # the knot of 2⁻³²


@inner
def step_keys(key, step, law, keys):
    """Fill in the keys of a step by purpose, of its sets and, where sets have some, of members."""
    purposes, cells, members = keys
    for purpose in range(4):
        purposes[purpose] = step_key(key, step, purpose)
    for s in range(len(cells)):
        cells[s] = lane_key(purposes[CELL], s)
    if law.size > 1 or law.exclusive:
        for i in range(len(members)):
            members[i] = lane_key(purposes[MEMBER], i)


@inner
def count_filled(batch, law, key):
    """How many samples of a batch are drawn: those that are not empty, or all."""
    if not law.conditional:
        return batch
    v = np.int64(key >> np.uint64(11))
    filled = law.guide[v >> 45]
    while filled < batch and law.count[filled] <= v:
        filled += 1
    return filled


@inner
def _draw_words(words, window, key):
    """The hashes of samples `begin … begin + width`, at least 1 each."""
    begin, width = window
    low, high = halves(key)
    for t in range(width):
        words[t] = max(hash32(begin + t, low, high), ONE)


@inner
def _draw_set_after(row, window, key, law, first_u, signed):
    """Draw one set of samples whose first active set is known by `first_u`.

    It is this one where before < first_u <= first; where that is earlier, u decides as above.
    """
    begin, width = window
    on, scale, before, first = law
    low, high = halves(key)
    for t in range(width):
        u = hash32(begin + t, low, high)
        known = first_u[t]
        earlier = known <= before
        present = (earlier & (u <= on)) | ((known > before) & (known <= first))
        factor = scale if earlier else WHOLE
        ratio = (np.float32(np.int32(np.right_shift(u, ONE))) + HALF) * factor
        row[t] = (with_sign(ratio, u) if signed else ratio) if present else ZERO


@inner
def _choose_member(rows, ratio, window, key):
    """Give what an exclusive set drew to its chosen member, of rows `[size, length]`."""
    begin, width = window
    size = len(rows)
    low, high = halves(key)
    for t in range(width):
        chosen = (np.uint64(hash32(begin + t, low, high)) * np.uint64(size)) >> np.uint64(32)
        for j in range(size):
            rows[j, t] = ratio[t] if j == np.int64(chosen) else ZERO


@inner
def _draw_members(rows, ratio, window, keys, signed):
    """Draw each member of a set that is on or off as a whole."""
    width = window[1]
    for j in range(len(rows)):
        row = rows[j, :width]
        draw_set(row, window, keys[j], EVER, WHOLE, signed)
        for t in range(width):
            row[t] = row[t] if ratio[t] != ZERO else ZERO


@inner
def _magnitudes(row, law):
    """Turn signed ratios in (0, 1] into magnitudes of the law, keeping their signs."""
    if law.value >= ZERO:
        for t in range(len(row)):
            x = row[t]
            row[t] = ZERO if x == ZERO else (law.value if x > ZERO else -law.value)
    elif len(law.knots) > 0:
        for t in range(len(row)):
            x = row[t]
            if x != ZERO:
                bits = np.bitwise_and(row[t : t + 1].view(np.uint32)[0], MAGNITUDE)
                j = np.int64(np.right_shift(bits, FIFTEEN)) - LOWEST
                part = np.float32(np.int32(np.bitwise_and(bits, FRACTION))) * PART
                size = law.knots[j] + part * law.rises[j]
                row[t] = size if x > ZERO else -size


@inner
def draw_tile(tile, length, samples, law, keys, scratch):
    """Draw samples `begin … begin + count` of a step into the first columns of a tile.

    Row i of the tile begins at `i * length`. Columns from `count` to `width`, a multiple of
    `LANES`, become empty samples. `scratch` holds `TILE` words and `TILE` numbers.
    """
    begin, count, width = samples
    purposes, cells, members = keys
    first_u, ratio = scratch
    rows, window, size = tile[: len(members) * length], (begin, width), law.size
    rows = rows.reshape(len(members), length)
    if law.conditional:
        # Words of at least 1, so that none counts as earlier than the first set.
        _draw_words(first_u, window, purposes[FIRST])
    before = np.uint32(0)
    for s in range(len(cells)):
        at = max(s * length, 0)
        row = tile[at : at + width] if size == 1 else ratio[:width]
        if law.conditional:
            bounds = (law.on[s], law.scale[s], before, law.first[s])
            _draw_set_after(row, window, cells[s], bounds, first_u, law.signed)
        else:
            draw_set(row, window, cells[s], law.on[s], law.scale[s], law.signed)
        if law.exclusive:
            _choose_member(rows[s * size : (s + 1) * size], ratio, window, members[s])
        elif size > 1:
            of_set = slice(s * size, (s + 1) * size)
            _draw_members(rows[of_set], ratio, window, members[of_set], law.signed)
        before = law.first[s]
    for i in range(len(members)):
        rows[i, count:width] = ZERO
        _magnitudes(rows[i, :count], law)
