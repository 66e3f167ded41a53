# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""The innermost loop of drawing, in vector instructions: a hash, a comparison and a ratio a cell.

Most of what dense worlds cost beside products is here, and the vectors of a short row are too few
for the compiler's own loop to get going: written out it takes four fifths of the time.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from superpose.kernels.compiling import inner
from superpose.kernels.hashing import hash32
from superpose.kernels.lanes import INT32, INT64, LANES, VECTOR, everywhere, pointer

ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.uint32(1)
_WORDS = ir.VectorType(INT32, LANES)


@inner
def halves(key):
    """The low and the high 32 bits of a key."""
    return np.uint32(key), np.uint32(key >> np.uint64(32))


@inner
def with_sign(ratio, u):
    """`ratio`, negative where the lowest bit of u is set."""
    return -ratio if np.bitwise_and(u, ONE) else ratio


@inner
def plain_set(row, window, key, on, scale, signed):
    """`draw_set` in a plain loop."""
    begin, width = window
    low, high = halves(key)
    for t in range(width):
        u = hash32(begin + t, low, high)
        ratio = (np.float32(np.int32(np.right_shift(u, ONE))) + HALF) * scale
        row[t] = (with_sign(ratio, u) if signed else ratio) if u <= on else ZERO


@inner
def draw_set(row, window, key, on, scale, signed):
    """Draw one set for samples `begin … begin + width`, a multiple of `LANES`.

    It is on in a sample where the hash u <= on, with a ratio in (0, 1] that is negative, where
    `signed`, if the lowest bit of u is set.
    """
    if signed:
        _draw_set(row, window, key, on, scale, True)
    else:
        _draw_set(row, window, key, on, scale, False)


@intrinsic(prefer_literal=True)
def _draw_set(typingctx, row, window, key, on, scale, signed):
    is_signed = signed.literal_value

    def generate(context, builder, signature, args):
        out = pointer(context, builder, signature, args, 0)
        begin, width = cgutils.unpack_tuple(builder, args[1], 2)
        parts = (args[2], builder.lshr(args[2], INT64(32)))
        low, high = (_everywhere(builder, builder.trunc(part, INT32)) for part in parts)
        threshold, scale = _everywhere(builder, args[3]), everywhere(builder, args[4]).value
        steps = ir.Constant(_WORDS, list(range(LANES)))
        half, zero = (ir.Constant(VECTOR, [number] * LANES) for number in (0.5, 0.0))
        with cgutils.for_range_slice(builder, INT64(0), width, INT64(LANES), INT64) as (t, _):
            start = builder.trunc(builder.add(begin, t), INT32)
            counter = builder.add(_everywhere(builder, start), steps)
            u = _hash(builder, counter, low, high)
            high_bits = builder.sitofp(builder.lshr(u, _words(1)), VECTOR)
            ratio = builder.fmul(builder.fadd(high_bits, half), scale)
            if is_signed:
                bits = builder.xor(builder.bitcast(ratio, _WORDS), builder.shl(u, _words(31)))
                ratio = builder.bitcast(bits, VECTOR)
            drawn = builder.select(builder.icmp_unsigned("<=", u, threshold), ratio, zero)
            place = builder.bitcast(builder.gep(out, [t]), VECTOR.as_pointer())
            builder.store(drawn, place, align=4)
        return context.get_dummy_value()

    pair = types.UniTuple(types.intp, 2)
    kinds = (row, pair, types.uint64, types.uint32, types.float32, signed)
    return types.void(*kinds), generate


def _hash(builder, counter, low, high):
    """`hash32` of a vector of counters."""

    def fold(z, bits):
        return builder.xor(z, builder.lshr(z, _words(bits)))

    z = builder.mul(fold(builder.xor(counter, low), 16), _words(0x21F0AAAD))
    z = builder.mul(builder.xor(fold(z, 15), high), _words(0x735A2D97))
    return fold(z, 15)


def _words(number):
    return ir.Constant(_WORDS, [number] * LANES)


def _everywhere(builder, word):
    empty = ir.Constant(_WORDS, ir.Undefined)
    one = builder.insert_element(empty, word, INT64(0))
    return builder.shuffle_vector(one, empty, _words(0))
