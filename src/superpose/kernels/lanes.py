# pyright: basic, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false
# (llvmlite has no types)
"""Vectors of samples that LLVM instructions are emitted for.

A formula written with `+`, `-`, `*` and the functions of this module runs on `Lanes`, where it
emits instructions, and on NumPy arrays, where it is plain arithmetic: the plain twin is the same
text.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2]
LANES = 16 if "+avx512f" in _FEATURES.split(",") else 8
"""Numbers in a vector register: a function of the processor's features."""

FLOAT, INT32, INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)


class Lanes:
    """`LANES` float32 numbers in a register, one a sample."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: "Lanes") -> "Lanes":
        return Lanes(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: "Lanes") -> "Lanes":
        return Lanes(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: "Lanes") -> "Lanes":
        return Lanes(self.builder, self.builder.fmul(self.value, other.value))

    def select_positive(self, then: "Lanes") -> "Lanes":
        """`then` in the lanes where this is above zero, or NaN, and zero elsewhere."""
        zero = constant(self.builder, 0.0).value
        # Unordered: a diverged model is to be seen.
        above = self.builder.fcmp_unordered(">", self.value, zero)
        return Lanes(self.builder, self.builder.select(above, then.value, zero))

    def call(self, name: str, *operands: "Lanes") -> "Lanes":
        """The result of an LLVM intrinsic that takes and gives vectors."""
        kind = ir.FunctionType(VECTOR, [VECTOR] * len(operands))
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.{name}.v{LANES}f32"
        )
        return Lanes(self.builder, self.builder.call(function, [o.value for o in operands]))

    def store(self, pointer: ir.Value, index: ir.Value) -> None:
        """Write to a row of memory."""
        at = self.builder.bitcast(self.builder.gep(pointer, [index]), VECTOR.as_pointer())
        self.builder.store(self.value, at, align=4)

    def add_total(self, pointer: ir.Value, index: int) -> None:
        """Add the sum over all lanes to a number in memory, halving the vector step by step."""
        builder, value, width = self.builder, self.value, LANES
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(
                    value,
                    ir.Constant(value.type, ir.Undefined),
                    ir.Constant(ir.VectorType(INT32, width), list(range(start, start + width))),
                )
                for start in (0, width)
            ]
            value = builder.fadd(*halves)
        at = builder.gep(pointer, [INT64(index)])
        total = builder.fadd(builder.load(at), builder.extract_element(value, INT64(0)))
        builder.store(total, at)


def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once."""
    return a.call("fma", a, b, c) if isinstance(a, Lanes) else a * b + c


def where_positive(condition: Any, then: Any) -> Any:
    """`then` where `condition` is above zero (or NaN), else zero."""
    if isinstance(condition, Lanes):
        return condition.select_positive(then)
    return np.where(condition <= 0, np.zeros_like(then), then)


def magnitude(a: Any) -> Any:
    """The absolute value."""
    return a.call("fabs", a) if isinstance(a, Lanes) else np.abs(a)


def constant(builder: ir.IRBuilder, number: float) -> Lanes:
    """The same number in every lane."""
    return Lanes(builder, ir.Constant(VECTOR, [number] * LANES))


def load(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value) -> Lanes:
    """Numbers in a row of memory."""
    at = builder.bitcast(builder.gep(pointer, [index]), VECTOR.as_pointer())
    return Lanes(builder, builder.load(at, align=4))


def everywhere(builder: ir.IRBuilder, number: ir.Value) -> Lanes:
    """A number in every lane."""
    empty = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(empty, number, INT64(0))
    first = ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES)
    return Lanes(builder, builder.shuffle_vector(one, empty, first))


def pointer(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, index: int) -> ir.Value:
    """Where the numbers of an array argument begin."""
    array = cgutils.create_struct_proxy(signature.args[index])(context, builder, args[index])
    return array.data
