# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""64 numbers at once: which of them reach their bounds, and the largest of several rows of them.

From plain loops the compiler makes neither bits of a mask nor maxima that stay in registers. Each
function is followed by its plain twin.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from superpose.kernels.rows import WORD, lowest_bit, number_of_bits, plain_mask

__all__ = [
    "WORD",
    "largest_of_word",
    "lowest_bit",
    "mask_reached",
    "maxima_of_words",
    "number_of_bits",
    "number_reaching",
    "plain_largest_of_word",
    "plain_mask_reached",
    "plain_maxima_of_words",
    "plain_number_reaching",
]

_WIDE = ir.VectorType(ir.FloatType(), WORD)
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _place(context, builder, kind, array, at):
    """Pointer to the 64 numbers at a place of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _WIDE.as_pointer())


def _larger(builder, a, b):
    """The larger number in each lane."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def mask_reached(typingctx, numbers, at, bounds, place):
    """Bit j is set where numbers[at + j] is not below bounds[place + j]; NaN is not."""

    def generate(context, builder, signature, args):
        kinds = signature.args
        left = builder.load(_place(context, builder, kinds[0], args[0], args[1]), align=4)
        right = builder.load(_place(context, builder, kinds[2], args[2], args[3]), align=4)
        return builder.bitcast(builder.fcmp_unordered(">=", left, right), _I64)

    return types.uint64(numbers, types.intp, bounds, types.intp), generate


def plain_mask_reached(numbers, at, bounds, place):
    """`mask_reached`, plainly."""
    return plain_mask(~(numbers[at : at + WORD] < bounds[place : place + WORD]))


@intrinsic
def number_reaching(typingctx, numbers, at, bound):
    """How many of numbers[at : at + 64] are at least a bound; NaN is not."""

    def generate(context, builder, signature, args):
        left = builder.load(_place(context, builder, signature.args[0], args[0], args[1]), align=4)
        nothing = ir.Constant(_WIDE, ir.Undefined)
        one = builder.insert_element(nothing, args[2], _I32(0))
        same = ir.Constant(ir.VectorType(_I32, WORD), [0] * WORD)
        right = builder.shuffle_vector(one, nothing, same)
        bits = builder.bitcast(builder.fcmp_ordered(">=", left, right), _I64)
        return builder.ctpop(bits)

    return types.int64(numbers, types.intp, types.float32), generate


def plain_number_reaching(numbers, at, bound):
    """`number_reaching`, plainly."""
    return int(np.count_nonzero(numbers[at : at + WORD] >= bound))


@intrinsic
def maxima_of_words(typingctx, out, place, source, words, step):
    """out[place + j] = the largest of numbers[at + 64 step w + j] over w < words >= 1.

    source = (numbers, at).

    Where one of them is NaN, any of them may come out, here and below.
    """

    def generate(context, builder, signature, args):
        kinds = signature.args
        into = _place(context, builder, kinds[0], args[0], args[1])
        numbers, at = cgutils.unpack_tuple(builder, args[2])
        rows = _place(context, builder, kinds[2][0], numbers, at)
        first = builder.load(rows, align=4)
        most = cgutils.alloca_once_value(builder, first)
        with cgutils.for_range(builder, args[3], start=_I64(1)) as loop:
            here = builder.gep(rows, [builder.mul(loop.index, args[4])])
            found = _larger(builder, builder.load(here, align=4), builder.load(most))
            builder.store(found, most)
        builder.store(builder.load(most), into, align=4)
        return context.get_dummy_value()

    intp = types.intp
    return types.void(out, intp, source, intp, intp), generate


def plain_maxima_of_words(out, place, source, words, step):
    """`maxima_of_words`, plainly."""
    numbers, at = source
    rows = [numbers[at + WORD * step * w :][:WORD] for w in range(words)]
    out[place : place + WORD] = np.maximum.reduce(rows)


@intrinsic
def largest_of_word(typingctx, numbers, at):
    """The largest of numbers[at : at + 64]."""

    def generate(context, builder, signature, args):
        value = builder.load(_place(context, builder, signature.args[0], args[0], args[1]), align=4)
        width = WORD
        while width > 1:
            width //= 2
            kind, nothing = ir.VectorType(_I32, width), ir.Constant(value.type, ir.Undefined)
            low, high = (
                builder.shuffle_vector(
                    value, nothing, ir.Constant(kind, list(range(start, start + width)))
                )
                for start in (0, width)
            )
            value = _larger(builder, low, high)
        return builder.extract_element(value, _I32(0))

    return types.float32(numbers, types.intp), generate


def plain_largest_of_word(numbers, at):
    """`largest_of_word`, plainly."""
    return np.maximum.reduce(numbers[at : at + WORD])
