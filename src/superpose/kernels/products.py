# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""Matrix products at the machine's pace: blocks of the result stay in vector registers.

From plain loops the compiler keeps one row of a product in registers, never a block of several
rows and columns, so that it loads nearly as often as it multiplies. The two micro-kernels here
are written in LLVM's language instead; beside each stands the plain loop that it equals.
Everything is flat float32 arrays, with places and strides in numbers.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from superpose.kernels.compiling import FASTMATH, compiled
from superpose.kernels.lanes import INT32, INT64, LANES, VECTOR

VECTORS = 2
STEP = VECTORS * LANES
"""The columns of a product come in multiples of this."""

ROWS = 6  # by 2 vectors: 12 sums, 2 vectors of the source and one weight fill AVX2's 16 registers
BAND = 96  # rows of `dots` that go through all columns while they are in the nearer caches


@compiled(fastmath=FASTMATH)
def plain_product(out, weights, source, rows, columns):
    """`product` in plain loops."""
    C, at, by_row, fresh = out
    A, a_at, a_row, a_term = weights
    B, b_at, b_term, terms = source
    for r in range(rows):
        if fresh:
            for t in range(columns):
                C[at + r * by_row + t] = 0
        for k in range(terms):
            a = A[a_at + r * a_row + k * a_term]
            for t in range(columns):
                C[at + r * by_row + t] += a * B[b_at + k * b_term + t]


@compiled(fastmath=FASTMATH)
def product(out, weights, source, rows, columns):
    """C[r, t] (+)= Σ_k A[r, k] B[k, t] for `rows` rows and `columns` columns, a multiple of `STEP`.

    out = (C, at, by_row, fresh): C[r, t] is C[at + r by_row + t], and is set where `fresh`, else
    added to. weights = (A, at, by_row, by_term), source = (B, at, by_term, terms): likewise, with
    at least one term. C overlaps neither A nor B.
    """
    C, at, by_row, fresh = out
    A, a_at, a_row, a_term = weights
    B, b_at, b_term, terms = source
    blocks = (rows + ROWS - 1) // ROWS
    for t in range(0, columns, STEP):
        values = (B, b_at + t, b_term, terms)
        for block in range(blocks):
            r = rows * block // blocks
            size = rows * (block + 1) // blocks - r
            into = (C, at + r * by_row + t, by_row, fresh)
            weight = (A, a_at + r * a_row, a_row, a_term)
            if size == 6:
                _product_block(6, into, weight, values)
            elif size == 5:
                _product_block(5, into, weight, values)
            elif size == 4:
                _product_block(4, into, weight, values)
            elif size == 3:
                _product_block(3, into, weight, values)
            elif size == 2:
                _product_block(2, into, weight, values)
            else:
                _product_block(1, into, weight, values)


@compiled(fastmath=FASTMATH)
def plain_dots(out, left, right, rows, columns):
    """`dots` in plain loops."""
    S, at, by_row = out
    G, g_at, X, x_at, pairs = left
    H, h_at, D, d_at, length = right
    for r in range(rows):
        for k in range(columns):
            total = S[at + r * by_row + k]
            for t in range(length):
                total += G[g_at + r * length + t] * H[h_at + k * length + t]
            if pairs > 1:
                for t in range(length):
                    total += X[x_at + r * length + t] * D[d_at + k * length + t]
            S[at + r * by_row + k] = total


@compiled(fastmath=FASTMATH)
def dots(out, left, right, rows, columns):
    """S[r, k] += Σ_t G[r, t] H[k, t] + X[r, t] D[k, t], without X D where `pairs` is 1.

    out = (S, at, by_row), left = (G, at, X, at, pairs), right = (H, at, D, at, length): rows of
    `length` numbers, a multiple of `LANES`, one after the other.
    """
    blocks = (columns + 3) // 4
    for first in range(0, rows, BAND):
        band = (first, min(first + BAND, rows))
        for block in range(blocks):
            k = columns * block // blocks
            width = columns * (block + 1) // blocks - k
            if width == 4:
                _strip(4, 3, out, left, right, (k, band))
            elif width == 3:
                _strip(3, 4, out, left, right, (k, band))
            elif width == 2:
                _strip(2, 6, out, left, right, (k, band))
            else:
                _strip(1, 8, out, left, right, (k, band))


@njit(inline="always")
def _strip(width, height, out, left, right, sizes):
    """`width` columns of `dots` from column k, in blocks of `height` rows and then one by one."""
    S, at, by_row = out
    G, g_at, X, x_at, pairs = left
    H, h_at, D, d_at, length = right
    k, (begin, end) = sizes
    columns = (H, h_at + k * length, D, d_at + k * length, length)
    whole = end - (end - begin) % height
    for r in range(begin, whole, height):
        beside = (G, g_at + r * length, X, x_at + r * length, pairs)
        _dots_block(height, width, (S, at + r * by_row + k, by_row), beside, columns)
    for r in range(whole, end):
        beside = (G, g_at + r * length, X, x_at + r * length, pairs)
        _dots_block(1, width, (S, at + r * by_row + k, by_row), beside, columns)


@intrinsic(prefer_literal=True)
def _product_block(typingctx, height, out, weights, source):
    """`plain_product` for `height` (a literal) rows and `STEP` columns."""

    def generate(context, builder, signature, args):
        rows, cells = range(height.literal_value), []
        kinds = signature.args
        C, (by_row, fresh) = _unpack(context, builder, kinds[1], args[1])
        A, (a_row, a_term) = _unpack(context, builder, kinds[2], args[2])
        B, (b_term, terms) = _unpack(context, builder, kinds[3], args[3])
        for r in rows:
            row = builder.gep(C, [builder.mul(by_row, INT64(r))])
            cells += [builder.gep(row, [INT64(v * LANES)]) for v in range(VECTORS)]
        loop = _Loop(builder, terms)
        a_at, b_at = loop.carry(A), loop.carry(B)
        sums = [loop.carry(VECTOR(None)) for _ in cells]
        values = [_load(builder, builder.gep(b_at, [INT64(v * LANES)])) for v in range(VECTORS)]
        following = []
        for r in rows:
            a = _spread(builder, builder.load(builder.gep(a_at, [builder.mul(a_row, INT64(r))])))
            before = sums[r * VECTORS : (r + 1) * VECTORS]
            following += [_fused(builder, a, b, c) for b, c in zip(values, before, strict=True)]
        steps = [builder.gep(a_at, [a_term]), builder.gep(b_at, [b_term])]
        loop.repeat([a_at, b_at, *sums], [*steps, *following])
        with builder.if_else(builder.trunc(fresh, ir.IntType(1))) as (anew, onto):
            with anew:
                for cell, total in zip(cells, following, strict=True):
                    _store(builder, cell, total)
            with onto:
                for cell, total in zip(cells, following, strict=True):
                    _store(builder, cell, builder.fadd(_load(builder, cell), total))
        return context.get_dummy_value()

    return types.void(height, out, weights, source), generate


@intrinsic(prefer_literal=True)
def _dots_block(typingctx, height, width, out, left, right):
    """`plain_dots` for `height` rows and `width` columns (literals, width at most 4)."""

    def generate(context, builder, signature, args):
        rows, columns = range(height.literal_value), range(width.literal_value)
        kinds = signature.args
        S, (by_row,) = _unpack(context, builder, kinds[2], args[2])
        G, (X, x_at, pairs) = _unpack(context, builder, kinds[3], args[3])
        H, (D, d_at, length) = _unpack(context, builder, kinds[4], args[4])
        X = _pointer(context, builder, kinds[3][2], X, x_at)
        D = _pointer(context, builder, kinds[4][2], D, d_at)
        over = _Loop(builder, pairs)
        g, h = over.carry(G), over.carry(H)
        sums = [over.carry(VECTOR(None)) for _ in rows for _ in columns]
        along = _Loop(builder, builder.sdiv(length, INT64(LANES)))
        inner = [along.carry(each) for each in sums]
        t = builder.mul(along.index, INT64(LANES))
        at = [builder.add(t, builder.mul(length, INT64(j))) for j in range(max(4, len(rows)))]
        down, across = (
            [builder.gep(g, [at[r]]) for r in rows],
            [builder.gep(h, [at[k]]) for k in columns],
        )
        following = _crossed(builder, down, across, inner)
        along.repeat(inner, following)
        over.repeat([g, h, *sums], [X, D, *following])
        cells = []
        for r in rows:
            row = builder.gep(S, [builder.mul(by_row, INT64(r))])
            cells += [builder.gep(row, [INT64(k)]) for k in columns]
        _add(builder, cells, _totals(builder, following), along=len(columns) == 4)
        return context.get_dummy_value()

    return types.void(height, width, out, left, right), generate


class _Loop:
    """A loop of `count >= 1` turns in LLVM's language, with values carried from turn to turn."""

    def __init__(self, builder, count):
        self.builder, self.count = builder, count
        self.before = builder.block
        self.body = builder.append_basic_block("body")
        builder.branch(self.body)
        builder.position_at_end(self.body)
        self.index = self.carry(INT64(0))

    def carry(self, first):
        """A value that is `first` in the first turn; `repeat` tells what follows it."""
        phi = self.builder.phi(first.type)
        phi.add_incoming(first, self.before)
        return phi

    def repeat(self, carried, following):
        """Close the loop."""
        builder = self.builder
        index = builder.add(self.index, INT64(1))
        after = builder.append_basic_block("after")
        for phi, value in zip([self.index, *carried], [index, *following], strict=True):
            phi.add_incoming(value, builder.block)
        again = builder.cbranch(builder.icmp_signed("<", index, self.count), self.body, after)
        again.set_metadata("llvm.loop", _as_it_is(builder.module))
        builder.position_at_end(after)


def _as_it_is(module):
    """The mark of a loop not to unroll: that takes a third longer to compile, and earns 3 %."""
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    mark = module.add_metadata([disable])
    mark.operands = (mark, disable)
    return mark


def _unpack(context, builder, kind, value):
    """Of a tuple (array, at, …): a pointer to the place, and the rest."""
    array, at, *rest = cgutils.unpack_tuple(builder, value, len(kind))
    return _pointer(context, builder, kind[0], array, at), rest


def _pointer(context, builder, kind, array, at):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _load(builder, pointer, kind=VECTOR):
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=4)


def _store(builder, pointer, value):
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)


def _spread(builder, number):
    """A vector with one number in all lanes."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, number, INT32(0))
    return builder.shuffle_vector(one, nothing, _lanes([0] * LANES))


def _lanes(places):
    return ir.Constant(ir.VectorType(INT32, len(places)), places)


def _fused(builder, a, b, c):
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    name = f"llvm.fmuladd.v{LANES}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _crossed(builder, down, across, sums):
    """sums[r, k] + down[r] across[k], of what is in memory; the shorter side stays in registers."""
    sums, wide = list(sums), len(across)
    if len(down) < wide:
        held = [_load(builder, each) for each in down]
        for k, each in enumerate(across):
            value = _load(builder, each)
            for r, a in enumerate(held):
                sums[r * wide + k] = _fused(builder, a, value, sums[r * wide + k])
    else:
        held = [_load(builder, each) for each in across]
        for r, each in enumerate(down):
            value = _load(builder, each)
            for k, a in enumerate(held):
                sums[r * wide + k] = _fused(builder, a, value, sums[r * wide + k])
    return sums


def _add(builder, cells, fours, along):
    """Add vectors of four to numbers in memory, four at once where they lie `along` a row."""
    if along:
        for cell, four in zip(cells[::4], fours, strict=True):
            _store(builder, cell, builder.fadd(_load(builder, cell, four.type), four))
        return
    for i, cell in enumerate(cells):
        total = builder.extract_element(fours[i // 4], INT32(i % 4))
        builder.store(builder.fadd(builder.load(cell), total), cell)


def _totals(builder, vectors):
    """Sums over lanes, as vectors of four: the first of the first four vectors' sums, and so on."""
    totals = []
    for first in range(0, len(vectors), 4):
        four = vectors[first : first + 4]
        a, b, c, d = (four[min(i, len(four) - 1)] for i in range(4))
        sums = _paired(builder, _paired(builder, a, b), _paired(builder, c, d))
        while sums.type.count > 4:
            half = sums.type.count // 2
            low, high = _lanes([*range(half)]), _lanes([*range(half, 2 * half)])
            sums = builder.fadd(
                builder.shuffle_vector(sums, sums, low), builder.shuffle_vector(sums, sums, high)
            )
        totals.append(sums)
    return totals


def _paired(builder, a, b):
    """Neighbours added up: in each quarter a0 + a1, a2 + a3, b0 + b1, b2 + b3."""
    even, odd = [], []
    for quarter in range(0, LANES, 4):
        places = [quarter, quarter + 2, LANES + quarter, LANES + quarter + 2]
        even += places
        odd += [place + 1 for place in places]
    return builder.fadd(
        builder.shuffle_vector(a, b, _lanes(even)), builder.shuffle_vector(a, b, _lanes(odd))
    )
