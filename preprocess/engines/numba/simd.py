"""Explicit SIMD for Numba: Python functions on vectors of sixteen floats, traced into LLVM instructions.

A function decorated with `@traced` receives arrays as `Pointer` and integers as `Index`. Each operation on
the vectors that it loads emits one instruction; Python loops and branches run at compile time. A `@compiled`
function can call it; the call becomes a sequence of vector instructions. LLVM maps the sixteen lanes to the
registers of the processor (one of AVX-512, two of AVX2, four of SSE or NEON).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

LANES = 16

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_INT8, _INT16 = ir.IntType(8), ir.IntType(16)
_FLOATS, _INTEGERS, _SHORTS, _BYTES = (ir.VectorType(kind, LANES) for kind in (_FLOAT, _INT32, _INT16, _INT8))
_LONG_INTEGERS = ir.VectorType(_INT64, LANES // 2)
_FLAGS = ("contract", "nsz")  # a product and a sum may become one fused multiply-add

# log2(1 + f) / f on [-1/3, 1/3], minimax: 1.5e-5 absolute error of the logarithm (5e-5 dB of a power)
_LOG2 = (
    1.4427446126937866,
    -0.7198867201805115,
    0.47765660285949707,
    -0.40174707770347595,
    0.33877983689308167,
)
_TWO_THIRDS = 0x3F2AAAAB  # bits of 2/3, where the mantissa's range [2/3, 4/3) begins


def aligned(size: int) -> np.ndarray:
    """Return an uninitialised array, float32 [size], that starts at a multiple of the size of a vector.

    In an array that is not aligned, every vector crosses a cache line, which takes a third more time.
    """
    memory = np.empty(4 * size + 4 * LANES, np.uint8)
    start = -memory.ctypes.data % (4 * LANES)
    return memory[start : start + 4 * size].view(np.float32)


class Index:
    """A traced integer.

    Args:
        builder: Emits the instructions.
        value: The int64 value.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.add(self.value, self._value(other)))

    def __mul__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.mul(self.value, self._value(other)))

    def _value(self, other: Index | int) -> ir.Value:
        return other.value if isinstance(other, Index) else _INT64(other)


class Vector:
    """Sixteen traced floats.

    Args:
        builder: Emits the instructions.
        value: The vector value.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, self._value(other), flags=_FLAGS))

    def __sub__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, self._value(other), flags=_FLAGS))

    def __mul__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, self._value(other), flags=_FLAGS))

    def __truediv__(self, other: Vector | float) -> Vector:
        return Vector(self.builder, self.builder.fdiv(self.value, self._value(other), flags=_FLAGS))

    def sqrt(self) -> Vector:
        """Return the correctly rounded square root of each lane."""
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        return Vector(
            self.builder,
            self.builder.call(
                self.builder.module.declare_intrinsic("llvm.sqrt.v16f32", (), kind), [self.value]
            ),
        )

    def below(self, other: Vector) -> Vector:
        """Return 1.0 in each lane that is less than that of `other`, else 0.0."""
        return Vector(
            self.builder,
            self.builder.uitofp(self.builder.fcmp_ordered("<", self.value, other.value), _FLOATS),
        )

    def minimum(self, other: Vector) -> Vector:
        """Return the minimum of each lane."""
        return Vector(
            self.builder,
            self.builder.select(
                self.builder.fcmp_ordered("<", self.value, other.value), self.value, other.value
            ),
        )

    def maximum(self, other: Vector | float) -> Vector:
        """Return the maximum of each lane."""
        value = self._value(other)
        return Vector(
            self.builder,
            self.builder.select(self.builder.fcmp_ordered(">", self.value, value), self.value, value),
        )

    def log2(self) -> Vector:
        """Return log2 of positive numbers with an absolute error of 1.5e-5; of zero, -127 or less."""
        builder = self.builder
        bits = builder.bitcast(self.value, _INTEGERS)
        exponent = builder.ashr(builder.sub(bits, _integers(_TWO_THIRDS)), _integers(23))
        mantissa = (
            Vector(builder, builder.bitcast(builder.sub(bits, builder.shl(exponent, _integers(23))), _FLOATS))
            - 1.0
        )
        series = mantissa * _LOG2[-1] + _LOG2[-2]
        for coefficient in _LOG2[-3::-1]:
            series = series * mantissa + coefficient
        return series * mantissa + Vector(builder, builder.sitofp(exponent, _FLOATS))

    def _value(self, other: Vector | float) -> ir.Value:
        return other.value if isinstance(other, Vector) else _floats(other)


class Pointer:
    """A traced contiguous array; indices count its elements.

    Args:
        builder: Emits the instructions.
        value: Pointer to the first element.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def load(self, index: Index | int) -> Vector:
        """Load sixteen consecutive floats, or int16 or uint8 converted to floats."""
        if self.value.type.pointee == _INT8:
            pixels = self.builder.load(self.vector_at(index, _BYTES), align=1)
            return Vector(self.builder, self.builder.uitofp(pixels, _FLOATS))
        if self.value.type.pointee == _INT16:
            shorts = self.builder.load(self.vector_at(index, _SHORTS), align=2)
            return Vector(self.builder, self.builder.sitofp(shorts, _FLOATS))
        return Vector(self.builder, self.builder.load(self.vector_at(index, _FLOATS), align=4))

    def broadcast(self, index: Index | int) -> Vector:
        """Load one float into every lane."""
        empty = ir.Constant(_FLOATS, ir.Undefined)
        first = self.builder.insert_element(empty, self.builder.load(self.at(index)), _INT32(0))
        return Vector(self.builder, self.builder.shuffle_vector(first, empty, _integers(0)))

    def index(self, index: Index | int) -> Index:
        """Load one int64 as an index."""
        return Index(self.builder, self.builder.load(self.at(index)))

    def store(self, index: Index | int, vector: Vector) -> None:
        """Store sixteen floats."""
        self.builder.store(vector.value, self.vector_at(index, _FLOATS), align=4)

    def fill(self, index: Index | int, value: float) -> None:
        """Store one constant sixteen times."""
        self.store(index, Vector(self.builder, _floats(value)))

    def store_bytes(self, index: Index | int, value: ir.Value) -> None:
        """Store sixteen bytes."""
        self.builder.store(value, self.vector_at(index, _BYTES), align=1)

    def at(self, index: Index | int) -> ir.Value:
        """Return a pointer to an element."""
        return self.builder.gep(self.value, [index.value if isinstance(index, Index) else _INT64(index)])

    def vector_at(self, index: Index | int, kind: ir.Type) -> ir.Value:
        """Return a pointer to a vector of type `kind` that starts at an element."""
        return self.builder.bitcast(self.at(index), kind.as_pointer())


def transpose(rows: Sequence[Vector]) -> list[Vector]:
    """Return the sixteen columns of sixteen vectors that are rows."""
    builder = rows[0].builder
    return [Vector(builder, value) for value in _transpose(builder, [row.value for row in rows])]


def transpose_to_bytes(columns: Sequence[Vector]) -> list[ir.Value]:
    """Return the rows of sixteen vectors that are columns; numbers in [0, 256) are truncated to bytes."""
    builder, words, quarter = columns[0].builder, [], LANES // 4
    whole = [builder.fptosi(column.value, _INTEGERS) for column in columns]
    for first in range(0, LANES, 4):  # each word holds the bytes of one row and four columns
        shifted = [builder.shl(value, _integers(8 * i)) for i, value in enumerate(whole[first : first + 4])]
        words.append(builder.or_(builder.or_(shifted[0], shifted[1]), builder.or_(shifted[2], shifted[3])))
    left, right = (_interleaved(builder, words[i], words[i + 1], _INTEGERS) for i in (0, 2))
    rows = []
    for low, high in zip(left, right, strict=True):
        for part in _interleaved(builder, low, high, _LONG_INTEGERS):  # four rows of two long words
            rows += [
                builder.shuffle_vector(
                    part, part, ir.Constant(ir.VectorType(_INT32, 2), [2 * row, 2 * row + 1])
                )
                for row in range(quarter)
            ]
    return [builder.bitcast(row, _BYTES) for row in rows]


def _interleaved(
    builder: ir.IRBuilder, one: ir.Value, other: ir.Value, kind: ir.VectorType
) -> list[ir.Value]:
    """Cast two vectors to `kind` and interleave their first halves and their second halves."""
    one, other = builder.bitcast(one, kind), builder.bitcast(other, kind)
    return [builder.shuffle_vector(one, other, mask) for mask in _masks(kind.count)]


def _transpose(builder: ir.IRBuilder, values: list[ir.Value]) -> list[ir.Value]:
    half = LANES // 2
    for _ in range(4):  # log2(LANES) perfect shuffles
        values = [
            builder.shuffle_vector(values[i], values[i + half], mask)
            for i in range(half)
            for mask in _masks(LANES)
        ]
    return values


def _masks(count: int) -> list[ir.Constant]:
    """Return the masks that interleave the first halves and the second halves of two vectors of `count`."""
    kind = ir.VectorType(_INT32, count)
    return [
        ir.Constant(kind, [start + i // 2 + i % 2 * count for i in range(count)]) for start in (0, count // 2)
    ]


def loop(
    count: Index, initial: Sequence[Vector | float], step: Callable[..., Sequence[Vector]]
) -> list[Vector]:
    """Emit a loop `state = step(i, *state)` whose state is in registers.

    Args:
        count: Number of repetitions, at least 1; i runs from 0 to count - 1.
        initial: The state before the loop.
        step: Function that returns the next state.

    Returns:
        The state after the loop.
    """
    builder = count.builder
    before, body = builder.block, builder.append_basic_block("loop")
    builder.branch(body)
    builder.position_at_end(body)
    i, state = builder.phi(_INT64), [builder.phi(_FLOATS) for _ in initial]
    following = builder.add(i, _INT64(1))
    updated = step(Index(builder, i), *(Vector(builder, value) for value in state))
    i.add_incoming(_INT64(0), before)
    i.add_incoming(following, builder.block)
    for phi, first, result in zip(state, initial, updated, strict=True):
        phi.add_incoming(first.value if isinstance(first, Vector) else _floats(first), before)
        phi.add_incoming(result.value, builder.block)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", following, count.value), body, after)
    builder.position_at_end(after)
    return list(updated)


def accumulate(count: Index, term: Callable[[Index], Vector]) -> Vector:
    """Emit a loop that sums term(i) for i in [0, count), with `count` at least 1, and return the sum."""
    return loop(count, [0.0], lambda i, total: [total + term(i)])[0]


def traced(function: Callable[..., None]) -> Callable[..., Any]:
    """Make a function on `Pointer` and `Index` callable from `@compiled` functions.

    Args:
        function: Emits instructions for its arguments: a `Pointer` for each array, an `Index` for each
            integer.
    """

    def typed(*arguments: types.Type) -> Any:
        signature = types.void(
            *(types.int64 if isinstance(kind, types.Integer) else kind for kind in arguments)
        )

        def generate(
            context: Any, builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]
        ) -> ir.Value:
            function(
                *(
                    _wrap(context, builder, kind, value)
                    for kind, value in zip(signature.args, values, strict=True)
                )
            )
            return context.get_dummy_value()

        return signature, generate

    parameters = ", ".join(inspect.signature(function).parameters)
    namespace: dict[str, Callable[..., Any]] = {"typed": typed}
    # Numba reads the names of the parameters, so that a function with *arguments would not do.
    exec(f"def {function.__name__}(typingctx, {parameters}): return typed({parameters})", namespace)
    return intrinsic(namespace[function.__name__])


def _wrap(context: Any, builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> Any:
    if isinstance(kind, types.Array):
        return Pointer(builder, context.make_array(kind)(context, builder, value).data)
    return Index(builder, value)


def _floats(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(value)] * LANES)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [value] * LANES)
