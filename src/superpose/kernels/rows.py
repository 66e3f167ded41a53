# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""Sums of a few rows of a matrix, and masks of the numbers that are on, in vector instructions.

numba vectorises loops whose length it does not know for long loops, and makes no register of an
array. What is here runs over a handful of rows of a handful of vectors, with the sums in
registers; each function is followed by its plain twin.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from superpose.kernels.compiling import FASTMATH, compiled, inner
from superpose.kernels.lanes import LANES

WORD = 64
"""Numbers that one mask describes."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _pointer(context, builder, array_type, array, index):
    """Address of element `index` of a one-dimensional array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _load(builder, pointer, at):
    """The vector that starts `at` numbers behind the pointer."""
    typed = builder.bitcast(builder.gep(pointer, [at]), _VECTOR.as_pointer())
    return builder.load(typed, align=4)


def _store(builder, vector, pointer, at):
    typed = builder.bitcast(builder.gep(pointer, [at]), _VECTOR.as_pointer())
    builder.store(vector, typed, align=4)


def _splat(builder, number):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _I32(0))
    lanes = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), lanes)


def _fused(builder, a, b, c):
    """a b + c, rounded once."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fma.v{LANES}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _loop(builder, first, last, sums, body):
    """`sums = body(index, sums)` for first ≤ index < last, with the sums in registers."""
    before = builder.block
    head = builder.append_basic_block("head")
    inside = builder.append_basic_block("inside")
    after = builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_I64)
    index.add_incoming(first, before)
    carried = [builder.phi(_VECTOR) for _ in sums]
    for phi, value in zip(carried, sums, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, last), inside, after)
    builder.position_at_end(inside)
    for phi, value in zip(carried, body(index, carried), strict=True):
        phi.add_incoming(value, builder.block)
    index.add_incoming(builder.add(index, _I64(1)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return carried


class _Lists:
    """What the functions on rows share: lists of entries, places in `work`, and the loops."""

    def __init__(self, context, builder, signature, args):
        _, kind, array = signature.args[:3]
        _, lists, work, places = args
        zero = _I64(0)
        lists = cgutils.unpack_tuple(builder, lists)
        start, column, value = (
            _pointer(context, builder, kind[j], lists[j], zero) for j in (0, 1, 2)
        )
        self.builder, self.start, self.column, self.value = builder, start, column, value
        self.first, self.last = lists[3:]
        self.work = _pointer(context, builder, array, work, zero)
        self.places = [
            cgutils.unpack_tuple(builder, place) for place in cgutils.unpack_tuple(builder, places)
        ]

    def lists(self, body):
        """Run body(t) for every list."""

        def one(t, none):
            body(t)
            return none

        _loop(self.builder, self.first, self.last, [], one)

    def entries(self, t, sums, body):
        """`sums = body(value, column, sums)` over the entries of list t, value in all lanes."""
        builder = self.builder

        def one(index, sums):
            value = _splat(builder, builder.load(builder.gep(self.value, [index])))
            column = builder.load(builder.gep(self.column, [index]))
            return body(value, builder.sext(column, _I64), sums)

        ends = [builder.gep(self.start, [at]) for at in (t, builder.add(t, _I64(1)))]
        return _loop(builder, *(builder.load(end) for end in ends), sums, one)

    def row(self, place, column):
        """Pointer to a row of the matrix at a place."""
        at, stride = place
        builder = self.builder
        return builder.gep(self.work, [builder.add(at, builder.mul(column, stride))])

    def line(self, place, t):
        """Pointer to the numbers at a place that belong to list t."""
        return self.row(place, self.builder.sub(t, self.first))

    def loaded(self, pointer, wide):
        return [_load(self.builder, pointer, v) for v in wide]

    def add(self, pointer, value, numbers, wide):
        """Numbers behind the pointer += value · numbers."""
        for each, v in zip(numbers, wide, strict=True):
            total = _fused(self.builder, value, each, _load(self.builder, pointer, v))
            _store(self.builder, total, pointer, v)

    def plus(self, sums, value, pointer, wide):
        """sums + value · the numbers behind the pointer."""
        loads = self.loaded(pointer, wide)
        return [_fused(self.builder, value, *each) for each in zip(loads, sums, strict=True)]

    def store(self, sums, pointer, wide):
        for total, v in zip(sums, wide, strict=True):
            _store(self.builder, total, pointer, v)


@intrinsic(prefer_literal=True)
def _sum_block(typingctx, vectors, lists, work, places):
    """`sum_rows` for a number of vectors that is known when compiled."""
    wide = [_I64(v * LANES) for v in range(vectors.literal_value)]

    def generate(context, builder, signature, args):
        these = _Lists(context, builder, signature, args)
        matrix, source, out = these.places

        def one(t):
            def body(value, column, sums):
                return these.plus(sums, value, these.row(matrix, column), wide)

            sums = these.loaded(these.line(source, t), wide)
            these.store(these.entries(t, sums, body), these.line(out, t), wide)

        these.lists(one)
        return context.get_dummy_value()

    return types.void(vectors, lists, work, places), generate


@intrinsic(prefer_literal=True)
def _add_block(typingctx, vectors, lists, work, places):
    """`add_to_rows` for a number of vectors that is known when compiled."""
    wide = [_I64(v * LANES) for v in range(vectors.literal_value)]

    def generate(context, builder, signature, args):
        these = _Lists(context, builder, signature, args)
        matrix, source = these.places

        def one(t):
            def body(value, column, none):
                these.add(these.row(matrix, column), value, numbers, wide)
                return none

            numbers = these.loaded(these.line(source, t), wide)
            these.entries(t, [], body)

        these.lists(one)
        return context.get_dummy_value()

    return types.void(vectors, lists, work, places), generate


@intrinsic(prefer_literal=True)
def _trade_block(typingctx, vectors, lists, work, places):
    """`trade_rows` for a number of vectors that is known when compiled."""
    wide = [_I64(v * LANES) for v in range(vectors.literal_value)]

    def generate(context, builder, signature, args):
        these = _Lists(context, builder, signature, args)
        matrix, source, out, slope, given = these.places

        def one(t):
            def body(value, column, sums):
                these.add(these.row(slope, column), value, numbers, wide)
                return these.plus(sums, value, these.row(matrix, column), wide)

            numbers = these.loaded(these.line(given, t), wide)
            sums = these.loaded(these.line(source, t), wide)
            these.store(these.entries(t, sums, body), these.line(out, t), wide)

        these.lists(one)
        return context.get_dummy_value()

    return types.void(vectors, lists, work, places), generate


@inner
def _along(place, c):
    return place[0] + c, place[1]


@compiled(fastmath=FASTMATH)
def sum_rows(width, lists, work, places):
    """Line t of out = line t of source + Σ_e value[e] · row column[e] of the matrix.

    lists = (start, column, value, first, last): e runs over start[t] … start[t + 1], and t from
    first to last. places = (matrix, source, out), each as (at, stride) in work; `width` numbers of
    each row and line count, a multiple of `LANES`.
    """
    c = np.int64(0)
    while c < width:
        vectors = (width - c) // LANES
        these = (_along(places[0], c), _along(places[1], c), _along(places[2], c))
        if vectors >= 8:
            _sum_block(8, lists, work, these)
            c += 8 * LANES
        elif vectors >= 4:
            _sum_block(4, lists, work, these)
            c += 4 * LANES
        elif vectors == 3:
            _sum_block(3, lists, work, these)
            c += 3 * LANES
        elif vectors == 2:
            _sum_block(2, lists, work, these)
            c += 2 * LANES
        else:
            _sum_block(1, lists, work, these)
            c += LANES


def plain_sum_rows(width, lists, work, places):
    """`sum_rows`, plainly."""
    start, column, value, first, last = lists
    matrix, source, out = places
    within = np.arange(width)
    for t in range(first, last):
        total = work[source[0] + (t - first) * source[1] + within]
        for e in range(start[t], start[t + 1]):
            total += value[e] * work[matrix[0] + column[e] * matrix[1] + within]
        work[out[0] + (t - first) * out[1] + within] = total


@compiled(fastmath=FASTMATH)
def add_to_rows(width, lists, work, places):
    """Row column[e] of the matrix += value[e] · line t of source, for every entry e of list t.

    As in `sum_rows`, but places = (matrix, source).
    """
    c = np.int64(0)
    while c < width:
        vectors = (width - c) // LANES
        these = (_along(places[0], c), _along(places[1], c))
        if vectors >= 4:
            _add_block(4, lists, work, these)
            c += 4 * LANES
        elif vectors == 3:
            _add_block(3, lists, work, these)
            c += 3 * LANES
        elif vectors == 2:
            _add_block(2, lists, work, these)
            c += 2 * LANES
        else:
            _add_block(1, lists, work, these)
            c += LANES


def plain_add_to_rows(width, lists, work, places):
    """`add_to_rows`, plainly."""
    start, column, value, first, last = lists
    matrix, source = places
    within = np.arange(width)
    for t in range(first, last):
        for e in range(start[t], start[t + 1]):
            row = matrix[0] + column[e] * matrix[1] + within
            work[row] += value[e] * work[source[0] + (t - first) * source[1] + within]


@compiled(fastmath=FASTMATH)
def trade_rows(width, lists, work, places):
    """`sum_rows` and `add_to_rows` over the same entries: places = (three of one, two of other)."""
    c = np.int64(0)
    while c < width:
        vectors = (width - c) // LANES
        these = (
            _along(places[0], c),
            _along(places[1], c),
            _along(places[2], c),
            _along(places[3], c),
            _along(places[4], c),
        )
        if vectors >= 4:
            _trade_block(4, lists, work, these)
            c += 4 * LANES
        elif vectors == 3:
            _trade_block(3, lists, work, these)
            c += 3 * LANES
        elif vectors == 2:
            _trade_block(2, lists, work, these)
            c += 2 * LANES
        else:
            _trade_block(1, lists, work, these)
            c += LANES


def plain_trade_rows(width, lists, work, places):
    """`trade_rows`, plainly."""
    plain_sum_rows(width, lists, work, places[:3])
    plain_add_to_rows(width, lists, work, places[3:])


def _mask(order, array):
    """Signature and code of the mask of `array[at : at + WORD] (order) 0`, NaN included."""

    def generate(context, builder, signature, args):
        wide = ir.VectorType(ir.FloatType(), WORD)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        numbers = builder.load(builder.bitcast(pointer, wide.as_pointer()), align=4)
        bits = builder.fcmp_unordered(order, numbers, ir.Constant(wide, [0.0] * WORD))
        return builder.bitcast(bits, _I64)

    return types.uint64(array, types.intp), generate


@intrinsic
def mask_nonzero(typingctx, array, at):
    """Bit j is set where array[at + j] is not zero."""
    return _mask("!=", array)


@intrinsic
def mask_positive(typingctx, array, at):
    """Bit j is set where array[at + j] is above zero or NaN (so that a NaN goes on being one)."""
    return _mask(">", array)


def plain_mask(on):
    """Bit j of a mask is set where on[j]."""
    return np.uint64(sum(1 << j for j, bit in enumerate(on) if bit))


@intrinsic
def lowest_bit(typingctx, mask):
    """Position of the lowest bit that is set, 64 where none is."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.uint64(types.uint64), generate


@intrinsic
def number_of_bits(typingctx, mask):
    """How many bits are set."""

    def generate(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generate
