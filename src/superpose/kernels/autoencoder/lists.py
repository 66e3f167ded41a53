"""What follows the selection costs only what is on: entries by sample, then by latent.

Entries = (start, column, value): sample t has those from start[t] to start[t + 1], with increasing
latents column[e] and their numbers value[e]. Turned entries = (begin, sample, number) are the same
latent by latent, with increasing samples.
"""

import numpy as np

from superpose.kernels.autoencoder.compiling import compiled, inner
from superpose.kernels.compiling import FASTMATH

ZERO = np.float32(0.0)


@compiled(fastmath=FASTMATH)
def errors(error, entries, theta, at, totals):
    """error[t] += Σ_e value[e] W[column[e]], W at `at` in theta; gives Σ error².

    Σ_t error[t] is added to `totals`.
    """
    start, column, value = entries
    d = error.shape[1]
    loss = 0.0
    for t in range(len(error)):
        row = error[t]
        add_rows(row, theta, at, (start[t], start[t + 1]), column, value)
        square = ZERO
        for c in range(d):
            square += row[c] * row[c]
            totals[c] += row[c]
        loss += square
    return loss


@compiled(fastmath=FASTMATH)
def begin_errors(error, target, theta, at):
    """error[t] = b − target[t], b at `at` in theta: the error where nothing is on."""
    for t in range(len(error)):
        begin_error(error[t], target[t], theta, at)


@inner(fastmath=FASTMATH)
def begin_error(row, wanted, theta, at):
    """row = b − wanted."""
    at = max(at, 0)
    for c in range(len(row)):
        row[c] = theta[at + c] - wanted[c]


@inner(fastmath=FASTMATH)
def add_rows(row, theta, at, span, column, value):
    """row += Σ_e value[e] W[column[e]] for the entries of a span."""
    d = len(row)
    first, last = span
    whole = last - (last - first) % 4
    for e in range(first, whole, 4):
        p, q = max(at + column[e] * d, 0), max(at + column[e + 1] * d, 0)
        r, s = max(at + column[e + 2] * d, 0), max(at + column[e + 3] * d, 0)
        a, b, g, h = value[e], value[e + 1], value[e + 2], value[e + 3]
        for c in range(d):
            row[c] += (a * theta[p + c] + b * theta[q + c]) + (g * theta[r + c] + h * theta[s + c])
    for e in range(whole, last):
        p, a = max(at + column[e] * d, 0), value[e]
        for c in range(d):
            row[c] += a * theta[p + c]


@compiled(fastmath=FASTMATH)
def nested_errors(error, target, entries, theta, places, totals):
    """What latents of each prefix meet.

    places = (W, b, ends): the error of prefix p is that of the latents below ends[p]. error[p, t]
    becomes the sum of the errors from prefix p on, and error[0] is added to `totals`. Gives the
    sums of all squared errors and of those of the last prefix.
    """
    start, column, value = entries
    prefixes, batch, d = error.shape
    at, b, ends = places
    loss = last = 0.0
    for t in range(batch):
        e, square = start[t], ZERO
        for p in range(prefixes):
            row = error[p, t]
            if p == 0:
                begin_error(row, target[t], theta, b)
            else:
                before = error[p - 1, t]
                for c in range(d):
                    row[c] = before[c]
            first = e
            while e < start[t + 1] and column[e] < ends[p]:
                e += 1
            add_rows(row, theta, at, (first, e), column, value)
            square = ZERO
            for c in range(d):
                square += row[c] * row[c]
            loss += square
        last += square
        for p in range(prefixes - 1, 0, -1):
            row, before = error[p, t], error[p - 1, t]
            for c in range(d):
                before[c] += row[c]
        row = error[0, t]
        for c in range(d):
            totals[c] += row[c]
    return loss, last


@compiled
def turn(entries, turned):
    """Sort entries by latent."""
    start, column, value = entries
    begin, sample, number = turned
    d_sae, last = len(begin) - 1, start[len(start) - 1]
    for k in range(d_sae + 1):
        begin[k] = 0
    for e in range(last):
        begin[column[e] + 1] += 1
    for k in range(d_sae):
        begin[k + 1] += begin[k]
    # While they are filled in, begin[k] is the place of latent k's next entry.
    for t in range(len(start) - 1):
        for e in range(start[t], start[t + 1]):
            place = begin[column[e]]
            sample[place] = t
            number[place] = value[e]
            begin[column[e]] = place + 1
    for k in range(d_sae, 0, -1):
        begin[k] = begin[k - 1]
    begin[0] = 0


@compiled(fastmath=FASTMATH)
def meet(slope, theta, turned, error, g, sizes):
    """g[e] = scale · error[sample] · w, and the slopes of W by these: += g's error · number[e].

    sizes = (W, first, last, scale): latents first … last, whose W is at that place in theta.
    """
    begin, sample, number = turned
    W, first, last, scale = sizes
    d = error.shape[1]
    flat = error.reshape(-1)
    for k in range(first, last):
        at = max(W + k * d, 0)
        whole = begin[k + 1] - (begin[k + 1] - begin[k]) % 4
        for e in range(begin[k], whole, 4):
            p, q = max(sample[e] * d, 0), max(sample[e + 1] * d, 0)
            r, s = max(sample[e + 2] * d, 0), max(sample[e + 3] * d, 0)
            a, b = scale * number[e], scale * number[e + 1]
            y, z = scale * number[e + 2], scale * number[e + 3]
            i, j, m, n = ZERO, ZERO, ZERO, ZERO
            for c in range(d):
                w = theta[at + c]
                i += flat[p + c] * w
                j += flat[q + c] * w
                m += flat[r + c] * w
                n += flat[s + c] * w
                slope[at + c] += (a * flat[p + c] + b * flat[q + c]) + (
                    y * flat[r + c] + z * flat[s + c]
                )
            g[e], g[e + 1], g[e + 2], g[e + 3] = scale * i, scale * j, scale * m, scale * n
        for e in range(whole, begin[k + 1]):
            p, a, i = max(sample[e] * d, 0), scale * number[e], ZERO
            for c in range(d):
                i += flat[p + c] * theta[at + c]
                slope[at + c] += a * flat[p + c]
            g[e] = scale * i


@compiled(fastmath=FASTMATH)
def meet_fixed(theta, turned, error, g, sizes):
    """`meet` where W is held fixed."""
    begin, sample, _ = turned
    W, first, last, scale = sizes
    d = error.shape[1]
    flat = error.reshape(-1)
    for k in range(first, last):
        at = max(W + k * d, 0)
        for e in range(begin[k], begin[k + 1]):
            p, i = max(sample[e] * d, 0), ZERO
            for c in range(d):
                i += flat[p + c] * theta[at + c]
            g[e] = scale * i


@compiled(fastmath=FASTMATH)
def gather(slope, turned, x, g, at):
    """The slopes of E and b_enc, at = (E, b_enc), by slopes g of pre-activations, one an entry."""
    begin, sample, _ = turned
    d = x.shape[1]
    flat = x.reshape(-1)
    for k in range(len(begin) - 1):
        row = max(at[0] + k * d, 0)
        total = ZERO
        for e in range(begin[k], begin[k + 1]):
            total += g[e]
        slope[at[1] + k] += total
        whole = begin[k + 1] - (begin[k + 1] - begin[k]) % 4
        for e in range(begin[k], whole, 4):
            p, q = max(sample[e] * d, 0), max(sample[e + 1] * d, 0)
            r, s = max(sample[e + 2] * d, 0), max(sample[e + 3] * d, 0)
            a, b, y, z = g[e], g[e + 1], g[e + 2], g[e + 3]
            for c in range(d):
                slope[row + c] += (a * flat[p + c] + b * flat[q + c]) + (
                    y * flat[r + c] + z * flat[s + c]
                )
        for e in range(whole, begin[k + 1]):
            p, a = max(sample[e] * d, 0), g[e]
            for c in range(d):
                slope[row + c] += a * flat[p + c]


@compiled(fastmath=FASTMATH)
def finish(slope, theta, at, totals, scale, subtracted):
    """The slope of b_dec: what the errors sum up to, and what the encoder's input loses to it.

    at = (E, W, b_enc, b_dec). Slopes of E were added up with x itself; where b_dec is taken off
    x first, every one of them is too large by that of b_enc times b_dec.
    """
    E, _, b_enc, b_dec = at
    d_out = len(totals)
    for c in range(d_out):
        slope[b_dec + c] = scale * totals[c]
    if not subtracted:
        return
    for k in range(len(slope[b_enc:b_dec])):
        total = slope[b_enc + k]
        if total != ZERO:
            row = max(E + k * d_out, 0)
            for c in range(d_out):
                slope[b_dec + c] -= total * theta[row + c]
                slope[row + c] -= total * theta[b_dec + c]
