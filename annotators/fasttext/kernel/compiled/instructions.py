"""Instructions of the processor that numba does not emit by itself: prefetch, wide product, sums, copies.

Vectors have eight floats, which is one AVX register; other processors get several instructions for each. No product is
fused with the sum that follows it: each is rounded by itself, as in the library.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from colophon.annotators.fasttext.kernel.strips import STRIP

VECTOR = 8
"""Floats of a vector."""
FLOAT_BYTES = 4
_ROWS_AHEAD = 24
_EIGHT_FLOATS = ir.VectorType(ir.FloatType(), VECTOR)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array`'s element `index` (counted over the flat array), without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(context, builder, signature.args[0], *arguments)
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def multiply_high(_: Any, __: Any, ___: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_vector(_: Any, total: Any, at: Any, data: Any, place: Any) -> Any:
    """total[at : at + 8] += the eight floats at data[place]; `total` is float32, `data` float32 or their bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, at, data, place = arguments
        target = _vector_at(context, builder, signature.args[0], total, at)
        value = builder.load(_vector_at(context, builder, signature.args[2], data, place), align=1)
        builder.store(builder.fadd(builder.load(target, align=FLOAT_BYTES), value), target, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(total, types.intp, data, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_four_vectors(_: Any, total: Any, at: Any, data: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """`add_vector` for the places a, b, c and d, one after the other; the sum stays in a register meanwhile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, at, data, *places = arguments
        target = _vector_at(context, builder, signature.args[0], total, at)
        result = builder.load(target, align=FLOAT_BYTES)
        for place in places:
            value = builder.load(_vector_at(context, builder, signature.args[2], data, place), align=1)
            result = builder.fadd(result, value)
        builder.store(result, target, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(total, types.intp, data, *[types.intp] * 4), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_byte_rows(_: Any, total: Any, data: Any, rows: Any, num_rows: Any, strip: Any, size: Any) -> Any:
    """total[strip : strip + 64] += the same columns of the int8 rows rows[i] of `data`, each of `size` columns.

    `total` is int32. The sums are int16 in registers, so there can be at most 256 rows of -127 to 127; rows that come
    later are prefetched.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, data, rows, num_rows, strip, size = arguments
        numbers = context.make_array(signature.args[2])(context, builder, rows).data
        bytes_type, sums_type, total_type = (ir.VectorType(ir.IntType(bits), STRIP) for bits in (8, 16, 32))
        sums = cgutils.alloca_once_value(builder, ir.Constant(sums_type, None))
        last = builder.sub(num_rows, num_rows.type(1))

        def place(i: Any) -> Any:
            row = builder.sext(builder.load(builder.gep(numbers, [i])), num_rows.type)
            return builder.add(builder.mul(row, size), strip)

        with cgutils.for_range(builder, num_rows) as loop:
            ahead = builder.add(loop.index, num_rows.type(_ROWS_AHEAD))
            _prefetch(
                context,
                builder,
                signature.args[1],
                data,
                place(builder.select(builder.icmp_signed("<", ahead, last), ahead, last)),
            )
            pointer = builder.gep(
                context.make_array(signature.args[1])(context, builder, data).data, [place(loop.index)]
            )
            value = builder.load(builder.bitcast(pointer, bytes_type.as_pointer()), align=1)
            builder.store(builder.add(builder.load(sums), builder.sext(value, sums_type)), sums)
        pointer = builder.gep(context.make_array(signature.args[0])(context, builder, total).data, [strip])
        target = builder.bitcast(pointer, total_type.as_pointer())
        added = builder.sext(builder.load(sums), total_type)
        builder.store(builder.add(builder.load(target, align=FLOAT_BYTES), added), target, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(total, data, rows, types.intp, types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_rows_of_two_vectors(_: Any, total: Any, data: Any, rows: Any, num_rows: Any, size: Any) -> Any:
    """Add the float32 rows of `size` bytes at the bytes rows[i] * size of `data`, two vectors each, to `total`.

    The sums stay in registers, and rows that come later are prefetched.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, data, rows, num_rows, size = arguments
        numbers = context.make_array(signature.args[2])(context, builder, rows).data
        targets = [_vector_at(context, builder, signature.args[0], total, num_rows.type(at)) for at in (0, VECTOR)]
        sums = [cgutils.alloca_once_value(builder, builder.load(target, align=FLOAT_BYTES)) for target in targets]
        last = builder.sub(num_rows, num_rows.type(1))

        def place(i: Any) -> Any:
            return builder.mul(builder.zext(builder.load(builder.gep(numbers, [i])), num_rows.type), size)

        with cgutils.for_range(builder, num_rows) as loop:
            ahead = builder.add(loop.index, num_rows.type(_ROWS_AHEAD))
            later = place(builder.select(builder.icmp_signed("<", ahead, last), ahead, last))
            _prefetch(context, builder, signature.args[1], data, later)
            _prefetch(context, builder, signature.args[1], data, builder.add(later, builder.sub(size, size.type(1))))
            at = place(loop.index)
            for number, each in enumerate(sums):
                begin = builder.add(at, at.type(number * VECTOR * FLOAT_BYTES))
                value = builder.load(_vector_at(context, builder, signature.args[1], data, begin), align=1)
                builder.store(builder.fadd(builder.load(each), value), each)
        for target, each in zip(targets, sums, strict=True):
            builder.store(builder.load(each), target, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(total, data, rows, types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_scaled_vector(_: Any, total: Any, at: Any, values: Any, place: Any, factor: Any) -> Any:
    """total[at : at + 8] += values[place : place + 8] * factor; all are float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, at, values, place, factor = arguments
        target = _vector_at(context, builder, signature.args[0], total, at)
        value = builder.load(_vector_at(context, builder, signature.args[2], values, place), align=FLOAT_BYTES)
        one = builder.insert_element(ir.Constant(_EIGHT_FLOATS, ir.Undefined), factor, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR)
        eight = builder.shuffle_vector(one, ir.Constant(_EIGHT_FLOATS, ir.Undefined), zeros)
        result = builder.fadd(builder.load(target, align=FLOAT_BYTES), builder.fmul(value, eight))
        builder.store(result, target, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(total, types.intp, values, types.intp, types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def copy_eight(_: Any, target: Any, at: Any, source: Any, place: Any) -> Any:
    """target[at : at + 8] = source[place : place + 8]; all have 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, at, source, place = arguments
        value = builder.load(_vector_at(context, builder, signature.args[2], source, place), align=4)
        builder.store(value, _vector_at(context, builder, signature.args[0], target, at), align=4)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


def _prefetch(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> None:
    data = context.make_array(kind)(context, builder, array).data
    address = builder.bitcast(builder.gep(data, [index]), cgutils.voidptr_t)
    number = ir.IntType(32)
    function = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
    call = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
    builder.call(call, [address, number(0), number(3), number(1)])  # to read, into all levels, data


def _vector_at(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _EIGHT_FLOATS.as_pointer())
