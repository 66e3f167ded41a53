# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""The plain loops that instructions.py holds the hand-written instructions against.

Each takes what the function of `superpose.kernels` takes whose work it does, needed or not.
"""

from typing import Any

import numpy as np
from numba import njit
from numba.np.unsafe.ndarray import to_fixed_tuple

from superpose.kernels import small, sparse
from superpose.kernels.compiling import FASTMATH

ZERO, TWO = np.float32(0.0), np.float32(2.0)
APART = 528
"""From one sample's pre-activations to the next."""

fast = njit(fastmath=FASTMATH)


def plain_gradient(n: int, m: int, wide: bool) -> Any:
    """The shape compiled in; a hidden unit as a sum of four inputs at once, or of all."""
    length, size = int(small.length(n)), n * m + n
    room = (2 * m + 1) * length

    @fast
    def add(address, tile, width, work, theta, slope, importance, shape):
        x, lines = tile.reshape(n, length), work[:room].reshape(2 * m + 1, length)
        g = lines[2 * m]
        for j in range(2 * m * length):
            work[j] = ZERO
        if wide:
            add_inputs(lines[:m], x, theta, width)
        else:
            W = to_fixed_tuple(theta, size)
            for k in range(m):
                for t in range(width):
                    total = ZERO
                    for i in range(n):
                        total += W[i * m + k] * x[i, t]
                    lines[k, t] = total
        for i in range(n):
            w = to_fixed_tuple(theta[i * m : (i + 1) * m], m)
            b, double, xi, total = theta[n * m + i], TWO * importance[i], x[i], ZERO
            for t in range(width):
                pre = b
                for k in range(m):
                    pre += w[k] * lines[k, t]
                g_t = ZERO if pre <= ZERO else double * (pre - xi[t])
                g[t] = g_t
                total += g_t
                if not wide:
                    for k in range(m):
                        lines[m + k, t] += w[k] * g_t
            slope[n * m + i] += total
            for k in range(m):
                h, d, wk, total = lines[k], lines[m + k], w[k], ZERO
                for t in range(width):
                    total += g[t] * h[t]
                    if wide:
                        d[t] += g[t] * wk
                slope[i * m + k] += total
        add_dots(slope, x, lines[m : 2 * m], width)

    return add


@fast
def add_inputs(hidden, x, theta, width):
    n, m = len(x), len(hidden)
    for k in range(m):
        h, w = hidden[k], theta[k : n * m : m]
        for i in range(0, n // 4 * 4, 4):
            x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
            w0, w1, w2, w3 = w[i], w[i + 1], w[i + 2], w[i + 3]
            for t in range(width):
                h[t] += w0 * x0[t] + w1 * x1[t] + w2 * x2[t] + w3 * x3[t]
        for i in range(n // 4 * 4, n):
            x0, w0 = x[i], w[i]
            for t in range(width):
                h[t] += w0 * x0[t]


@fast
def add_dots(slope, x, d, width):
    n, m = len(x), len(d)
    for i in range(n):
        for k in range(m):
            xi, dk, total = x[i], d[k], ZERO
            for t in range(width):
                total += xi[t] * dk[t]
            slope[i * m + k] += total


@fast
def plain_blocks(out, weights, source, rows, columns):
    """`products.product` in blocks of two rows (their number is even) and four terms."""
    C, at, by_row, fresh = out
    A, a_at, a_row, a_term = weights
    B, b_at, b_term, terms = source
    for r in range(0, rows, 2):
        one, two = C[at + r * by_row :][:columns], C[at + (r + 1) * by_row :][:columns]
        if fresh:
            for t in range(columns):
                one[t] = ZERO
            for t in range(columns):
                two[t] = ZERO
        a, b = A[a_at + r * a_row :], A[a_at + (r + 1) * a_row :]
        for k in range(0, terms // 4 * 4, 4):
            p, q = k * a_term, b_at + k * b_term
            a0, a1, a2, a3 = a[p], a[p + a_term], a[p + 2 * a_term], a[p + 3 * a_term]
            b0, b1, b2, b3 = b[p], b[p + a_term], b[p + 2 * a_term], b[p + 3 * a_term]
            s0, s1 = B[q:][:columns], B[q + b_term :][:columns]
            s2, s3 = B[q + 2 * b_term :][:columns], B[q + 3 * b_term :][:columns]
            for t in range(columns):
                one[t] += a0 * s0[t] + a1 * s1[t] + a2 * s2[t] + a3 * s3[t]
                two[t] += b0 * s0[t] + b1 * s1[t] + b2 * s2[t] + b3 * s3[t]
        for k in range(terms // 4 * 4, terms):
            s0, a0, b0 = B[b_at + k * b_term :][:columns], a[k * a_term], b[k * a_term]
            for t in range(columns):
                one[t] += a0 * s0[t]
                two[t] += b0 * s0[t]


@fast
def plain_dot_blocks(out, left, right, rows, columns):
    """`products.dots` in blocks of four rows and two columns, of which there are whole ones."""
    S, at, by_row = out
    G, g_at, X, x_at, pairs = left
    H, h_at, D, d_at, size = right
    for k in range(0, columns, 2):
        for r in range(0, rows, 4):
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = ZERO
            for pair in range(pairs):
                A, i = (G, g_at) if pair == 0 else (X, x_at)
                B, j = (H, h_at) if pair == 0 else (D, d_at)
                a, b = A[i + r * size :][:size], A[i + (r + 1) * size :][:size]
                c, d = A[i + (r + 2) * size :][:size], A[i + (r + 3) * size :][:size]
                h0, h1 = B[j + k * size :][:size], B[j + (k + 1) * size :][:size]
                for t in range(size):
                    a0 += a[t] * h0[t]
                    a1 += a[t] * h1[t]
                    b0 += b[t] * h0[t]
                    b1 += b[t] * h1[t]
                    c0 += c[t] * h0[t]
                    c1 += c[t] * h1[t]
                    d0 += d[t] * h0[t]
                    d1 += d[t] * h1[t]
            place = at + r * by_row + k
            for first, second in ((a0, a1), (b0, b1), (c0, c1), (d0, d1)):
                S[place] += first
                S[place + 1] += second
                place += by_row


@fast
def plain_sum(width, lists, work, places):
    start, column, value, first, last = lists
    (W, by_row), (source, by_source), (out, by_out) = places
    for t in range(first, last):
        total, given = work[out + t * by_out :][:width], work[source + t * by_source :][:width]
        for j in range(width):
            total[j] = given[j]
        for e in range(start[t], start[t + 1]):
            row, v = work[W + column[e] * by_row :][:width], value[e]
            for j in range(width):
                total[j] += v * row[j]


@fast
def plain_add(width, lists, work, places):
    start, column, value, first, last = lists
    (slope, by_row), (source, by_source) = places
    for t in range(first, last):
        given = work[source + t * by_source :][:width]
        for e in range(start[t], start[t + 1]):
            row, v = work[slope + column[e] * by_row :][:width], value[e]
            for j in range(width):
                row[j] += v * given[j]


@fast
def plain_trade(width, lists, work, places):
    start, column, value, first, last = lists
    (W, by_row), (source, by_source), (out, by_out), (slope, by_slope), (give, by_give) = places
    for t in range(first, last):
        total, given = work[out + t * by_out :][:width], work[give + t * by_give :][:width]
        begun = work[source + t * by_source :][:width]
        for j in range(width):
            total[j] = begun[j]
        for e in range(start[t], start[t + 1]):
            row, v = work[W + column[e] * by_row :][:width], value[e]
            into = work[slope + column[e] * by_slope :][:width]
            for j in range(width):
                total[j] += v * row[j]
                into[j] += v * given[j]


PLAIN_ROWS = {"sum_rows": plain_sum, "add_to_rows": plain_add, "trade_rows": plain_trade}


@fast
def plain_gather(tile, count, n, start, column, value):
    active, total = np.empty(tile.size + 1, np.int32), 0
    for place in range(tile.size):
        active[total] = place
        total += tile[place] != ZERO
    start[:] = 0
    for e in range(total):
        start[(active[e] & sparse.LAST) + 1] += 1
    for t in range(sparse.TILE):
        start[t + 1] += start[t]
    free = start.copy()
    for e in range(total):
        place = active[e]
        t = place & sparse.LAST
        column[free[t]] = place >> sparse.SHIFT
        value[free[t]] = tile[place]
        free[t] += 1


@fast
def plain_list(pre, size, places, behind):
    for s in range(len(behind)):
        row, count = pre[s * APART :][:size], 0
        for i in range(size):
            if not row[i] <= ZERO:
                places[count] = i
                count += 1
        behind[s] = count


@fast
def plain_list_all(pre, size, places, behind):
    for s in range(len(behind)):
        row, count = pre[s * APART :][:size], 0
        for i in range(size):
            places[count] = i
            count += not row[i] <= ZERO
        behind[s] = count
