# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context of its definition)
"""The small way through a step: a shape known when compiled, samples along the lanes of vectors.

All weights and the sums of their slopes are registers or lie on the stack, and one loop over the
samples computes everything; for the larger shapes the slopes by the weights, two products over
the samples, are left to `products.dots`. LLVM is given the vectors as such: it has nothing to find
out, which
makes code that is several times faster and compiles in well under a second.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from superpose.kernels.compiling import compiled
from superpose.kernels.lanes import (
    FLOAT,
    INT64,
    LANES,
    VECTOR,
    Lanes,
    constant,
    everywhere,
    load,
    magnitude,
    multiply_add,
    pointer,
    where_positive,
)
from superpose.kernels.products import dots
from superpose.models import ToyModel

HIDDEN_RELU, OUTPUT_RELU, UNTIED, ABSOLUTE, PENALISED, WITH_LOSS, APART = 1, 2, 4, 8, 16, 32, 64

SUMMED_AT_MOST = 64
"""Weights of a matrix up to which the loop sums their slopes itself; it has 16 registers."""


def variant(model: ToyModel, penalised: bool, with_loss: bool) -> int:
    """What is compiled in besides the shape, as one number: the bits above."""
    return (
        HIDDEN_RELU * (model.hidden == "relu")
        + OUTPUT_RELU * (model.output == "relu")
        + UNTIED * (not model.tied)
        + ABSOLUTE * (model.target == "abs")
        + PENALISED * bool(penalised)
        + WITH_LOSS * bool(with_loss)
        + APART * (model.n * model.m > SUMMED_AT_MOST)
    )


class Weights(NamedTuple):
    """A model's numbers: one for each sample of a vector, or plain ones."""

    W_in: Any  # [n][m]
    W_out: Any  # [n][m]
    b: Any  # [n]
    double: Any  # [n] twice the importance
    l1: Any


class Slopes(NamedTuple):
    """Derivatives of a sample's loss by h and by the pre-activations, and twice the loss."""

    hidden: list  # h [m]
    by_hidden: list  # [m]
    by_output: list  # [n]
    loss: Any  # None where it is not asked for


def sample_slopes(x: list, weights: Weights, variant: int) -> Slopes:
    """One step's forward and backward pass for samples x [n], in any arithmetic.

    With NumPy arrays it is the plain twin of what is compiled.
    """
    hidden = _encode(x, weights.W_in, variant & HIDDEN_RELU)
    by_output, by_hidden, loss = [], _penalty_slopes(hidden, weights.l1, variant), None
    for i, W in enumerate(weights.W_out):
        pre = weights.b[i]
        for h, w in zip(hidden, W, strict=True):
            pre = multiply_add(h, w, pre)
        # Without the loss, an output that is off needs no error: its slope is zero whatever it is.
        rectified = variant & OUTPUT_RELU and variant & WITH_LOSS
        out = where_positive(pre, pre) if rectified else pre
        error = out - (magnitude(x[i]) if variant & ABSOLUTE else x[i])
        slope = weights.double[i] * error
        if variant & WITH_LOSS:
            loss = _add_product(slope, error, loss)
        slope = where_positive(pre, slope) if variant & OUTPUT_RELU else slope
        by_output.append(slope)
        by_hidden = [_add_product(slope, w, d) for w, d in zip(W, by_hidden, strict=True)]
    if variant & HIDDEN_RELU:
        by_hidden = [where_positive(h, d) for h, d in zip(hidden, by_hidden, strict=True)]
    if variant & WITH_LOSS and variant & PENALISED:
        for h in hidden:
            loss = multiply_add(weights.l1 + weights.l1, magnitude(h), loss)
    return Slopes(hidden, by_hidden, by_output, loss)


def _add_product(a: Any, b: Any, total: Any) -> Any:
    """a·b more than a total that may not have begun."""
    return a * b if total is None else multiply_add(a, b, total)


def _encode(x: list, W_in: Any, relu: int) -> list:
    """The hidden activations."""
    hidden = [x[0] * w for w in W_in[0]]
    for each, W in zip(x[1:], W_in[1:], strict=True):
        hidden = [multiply_add(each, w, s) for w, s in zip(W, hidden, strict=True)]
    return [where_positive(h, h) for h in hidden] if relu else hidden


def _penalty_slopes(hidden: list, l1: Any, variant: int) -> list:
    """Derivatives of l1 |h|."""
    if not variant & PENALISED:
        return [None] * len(hidden)
    return [where_positive(h, l1) - where_positive(l1 - l1 - h, l1) for h in hidden]


_NUMBERS = types.CPointer(types.float32)
_GRADIENT = types.float32(
    _NUMBERS, types.intp, _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS, types.float32
)


@cache
def gradient(n: int, m: int, variant: int) -> CFunc:
    """The compiled `gradient(tile, width, work, theta, slope, importance, l1)` of one shape."""
    # Only plain numbers may be captured: they are what the cache on disk tells shapes apart by.

    def add(tile, width, work, theta, slope, importance, l1):
        return _emitted(tile, width, work, theta, slope, importance, l1, n, m, variant)

    return compiled.callback(add, _GRADIENT)


@intrinsic(prefer_literal=True)
def _emitted(typingctx, tile, width, work, theta, slope, importance, l1, n, m, variant):
    shape, flags = (n.literal_value, m.literal_value), variant.literal_value

    def generate(context, builder, signature, args):
        sums, loss = _emit_loop(builder, args[:7], shape, flags)
        matrices = shape[0] * shape[1] * (2 if flags & UNTIED else 1)
        for index, total in enumerate(sums, matrices if flags & APART else 0):
            total.add_total(args[4], index)
        twice = cgutils.alloca_once_value(builder, FLOAT(0.0))
        if loss is not None:
            loss.add_total(twice, 0)
        return builder.fmul(builder.load(twice), FLOAT(0.5))

    return types.float32(*_GRADIENT.args, n, m, variant), generate


@intrinsic
def _call(typingctx, gradient, tile, width, work, theta, slope, importance, l1):
    def generate(context, builder, signature, args):
        tile, work, theta, slope, importance = (
            pointer(context, builder, signature, args, k) for k in (1, 3, 4, 5, 6)
        )
        given = [tile, args[2], work, theta, slope, importance, args[7]]
        kind = ir.FunctionType(FLOAT, [each.type for each in given])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), given)

    kinds = (types.intp, tile, types.intp, work, theta, slope, importance, types.float32)
    return types.float32(*kinds), generate


def work_size(n: int, m: int) -> int:
    """The length of `work`: h and slopes by h, each `[m, width]`, and by outputs, `[n, width]`."""
    return (2 * m + n) * length(n) if n * m > SUMMED_AT_MOST else 0


@compiled(forceinline=True)
def add_gradient(gradient, tile, width, work, theta, slope, importance, l1, shape, tied):
    """Add the gradient of the loss over a tile to `slope`; give the loss.

    `gradient` is the address of a function made above. The tile is `[n width]`, its width a
    multiple of `LANES`. `theta` and `slope` hold W, b (or W_in, W_out, b) one after
    the other. The loss is 0 where the variant is without.
    """
    loss = _call(gradient, tile, width, work, theta, slope, importance, l1)
    n, m = shape
    if n * m > SUMMED_AT_MOST:
        # Numbers rather than literals, each of which would have `dots` compiled again.
        zero, one = np.intp(0), np.intp(1)
        dh, g = m * width, 2 * m * width
        if tied:
            dots(
                (slope, zero, m),
                (work, g, tile, zero, one + one),
                (work, zero, work, dh, width),
                n,
                m,
            )
        else:
            dots((slope, n * m, m), (work, g, work, g, one), (work, zero, work, zero, width), n, m)
            dots((slope, zero, m), (tile, zero, tile, zero, one), (work, dh, work, dh, width), n, m)
    return loss


def _emit_loop(builder, given, shape, flags):
    """The loop over a tile's vectors of samples; gives the sums over it, by lane."""
    n, m = shape
    tile, width, work, theta, _, importance, l1 = given
    weights = _read(builder, (theta, importance, l1), shape, flags)
    matrices = 0 if flags & APART else (2 if flags & UNTIED else 1) * n * m
    before = builder.block
    loop, after = (builder.append_basic_block(name) for name in ("samples", "after"))
    rows = [builder.mul(width, INT64(i)) for i in range(2 * m + n)]
    builder.branch(loop)
    builder.position_at_end(loop)
    t = builder.phi(INT64)
    t.add_incoming(INT64(0), before)
    phis = [builder.phi(VECTOR) for _ in range(matrices + n + bool(flags & WITH_LOSS))]
    x = [load(builder, tile, builder.add(t, row)) for row in rows[:n]]
    found = sample_slopes(x, weights, flags)
    if flags & APART:
        kept = [*found.hidden, *found.by_hidden, *found.by_output]
        for each, row in zip(kept, rows, strict=True):
            each.store(work, builder.add(t, row))
    sums = _accumulate([Lanes(builder, phi) for phi in phis], x, found, flags)
    following = builder.add(t, INT64(LANES))
    t.add_incoming(following, loop)
    for phi, total in zip(phis, sums, strict=True):
        phi.add_incoming(constant(builder, 0.0).value, before)
        phi.add_incoming(total.value, loop)
    builder.cbranch(builder.icmp_signed("<", following, width), loop, after)
    builder.position_at_end(after)
    return (sums[:-1], sums[-1]) if flags & WITH_LOSS else (sums, None)


def _read(builder, given, shape, flags):
    """All weights, each in every lane."""
    n, m = shape
    theta, importance, l1 = given

    def numbers(at, count, source=theta):
        found = [builder.load(builder.gep(source, [INT64(at + j)])) for j in range(count)]
        return [everywhere(builder, each) for each in found]

    W_in = [numbers(i * m, m) for i in range(n)]
    decoder = n * m if flags & UNTIED else 0
    W_out = [numbers(decoder + i * m, m) for i in range(n)] if decoder else W_in
    double = [each + each for each in numbers(0, n, importance)]
    return Weights(W_in, W_out, numbers(decoder + n * m, n), double, everywhere(builder, l1))


def _accumulate(sums, x, found, flags):
    """The sums with one more vector of samples in them, in the order of theta, then the loss."""
    n = len(x)
    new = [] if flags & APART else _accumulate_products(sums, x, found, flags)
    new += [sums[len(new) + i] + found.by_output[i] for i in range(n)]
    return [*new, sums[-1] + found.loss] if flags & WITH_LOSS else new


def _accumulate_products(sums, x, found, flags):
    n, m = len(x), len(found.hidden)
    new = []
    for i in range(n):
        for k in range(m):
            # Outputs before inputs: in the other order it takes a third longer.
            total = sums[i * m + k]
            if not flags & UNTIED:
                total = multiply_add(found.by_output[i], found.hidden[k], total)
            new.append(multiply_add(x[i], found.by_hidden[k], total))
    if flags & UNTIED:
        for i in range(n):
            for k in range(m):
                slot = sums[n * m + i * m + k]
                new.append(multiply_add(found.by_output[i], found.hidden[k], slot))
    return new


@compiled
def length(n):
    """Samples in a tile, so that it stays in the first-level cache: 128 to 1,024."""
    size = 1024
    while size > 128 and n * size > 4096:
        size //= 2
    return size
