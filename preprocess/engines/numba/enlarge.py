"""Compiled function that cuts images from strips along time and enlarges them to their width.

Every column of such an image is the weighted sum of two adjacent frames. It is computed in 16-bit fixed point
for thirty-two pixels of a frame at once, by the vector instructions of `simd`. The rounded result is exact if
the width is a power of two; else the sum deviates by at most 0.03 before it is rounded.

An image is drawn thirty-two rows at a time in a small buffer, which is then copied to the batch: a large copy
by memcpy does not read the memory that it overwrites, which separate stores do.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray
from numba.core import cgutils

from shardwave.preprocess.engines.numba.cut import bytes_at
from shardwave.preprocess.engines.numba.numba_cache import compiled
from shardwave.preprocess.engines.numba.simd import Index, Pointer, traced

ROWS = 32  # pixels of a frame that are processed at once; lanes of a vector

_INT16, _INT32 = ir.IntType(16), ir.IntType(32)
_BYTES, _SHORTS, _LONG = (ir.VectorType(ir.IntType(bits), ROWS) for bits in (8, 16, 32))
_PART = ir.VectorType(ir.IntType(8), 16)  # sixteen pixels of a row of the image
# Masks that interleave the first, and the second, four words of each part of eight words of two vectors
_HALVES = [
    ir.Constant(
        ir.VectorType(_INT32, ROWS),
        [part + i + which for part in range(half, ROWS, 8) for i in range(4) for which in (0, ROWS)],
    )
    for half in (0, 4)
]


@compiled
def _locate(frames, width, first, weights):
    """Compute the earlier frame of each column, and the weight of the later one in units of 2**-15."""
    for column in range(first.size):
        place = min(max((column + 0.5) * frames / width - 0.5, 0.0), frames - 1.0)
        first[column] = int(place)
        weights[column] = min(round((place - first[column]) * 32768), 32767)


@traced
def _load_lines(strip, at, following, lines, to):
    """Convert pixels of a frame to a start (64 level + 32) and a step to the following frame (times 128)."""
    builder = strip.builder
    level, next_level = (
        builder.zext(builder.load(strip.vector_at(place, _BYTES), align=1), _SHORTS)
        for place in (at, following)
    )
    start = builder.add(builder.shl(level, _shorts(6)), _shorts(32))
    step = builder.shl(builder.sub(next_level, level), _shorts(7))
    builder.store(start, lines.vector_at(to, _SHORTS), align=2)
    builder.store(step, lines.vector_at(to + ROWS, _SHORTS), align=2)


@traced
def _draw_columns(lines, first, weights, column, piece, columns):
    """Compute ROWS pixels of sixteen columns of an image, rounded half up."""
    builder = lines.builder
    words = []  # of pixels of two columns
    for t in range(0, 16, 2):
        even, odd = (_blend(lines, first, weights, column + (t + i)) for i in (0, 1))
        high = builder.and_(builder.shl(odd, _shorts(2)), _shorts(-256))
        words.append(builder.or_(builder.lshr(even, _shorts(6)), high))
    for _ in range(3):  # perfect shuffles, which transpose [8 words, 8 pixels] of each part of 128 bits
        words = [builder.shuffle_vector(words[i], words[i + 4], mask) for i in range(4) for mask in _HALVES]
    for i, word in enumerate(words):
        pixels = builder.bitcast(word, ir.VectorType(ir.IntType(8), 2 * ROWS))
        for part in range(4):
            mask = ir.Constant(ir.VectorType(_INT32, 16), list(range(16 * part, 16 * part + 16)))
            row = builder.shuffle_vector(pixels, pixels, mask)
            builder.store(row, piece.vector_at(column + columns * (8 * part + i), _PART), align=1)


def _blend(lines: Pointer, first: Pointer, weights: Pointer, column: Index) -> ir.Value:
    """Return the pixels of a column times 64, plus 32."""
    builder, at = lines.builder, first.index(column) * (2 * ROWS)
    start, step = (builder.load(lines.vector_at(place, _SHORTS), align=2) for place in (at, at + ROWS))
    empty = ir.Constant(_SHORTS, ir.Undefined)
    weight = builder.insert_element(empty, builder.load(weights.at(column)), _INT32(0))
    weight = builder.shuffle_vector(weight, empty, ir.Constant(_LONG, [0] * ROWS))
    # LLVM turns the following operations but the sum into one instruction
    product = builder.mul(builder.sext(step, _LONG), builder.sext(weight, _LONG))
    upper = builder.trunc(builder.ashr(product, ir.Constant(_LONG, [16] * ROWS)), _SHORTS)
    return builder.add(start, upper)


def _shorts(value: int) -> ir.Constant:
    return ir.Constant(_SHORTS, [value] * ROWS)


@traced
def _copy(source, at, target, to, count):
    """Copy `count` bytes by memcpy."""
    place = target.at(to)
    cgutils.raw_memcpy(source.builder, place, source.at(at), count.value, 1)  # type: ignore[no-untyped-call]


@traced
def _prefetch(strip, at):
    """Request the cache line of a pixel."""
    pointer = strip.at(at)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, *[_INT32] * 3])
    function = strip.builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
    strip.builder.call(function, [pointer, _INT32(0), _INT32(3), _INT32(1)])  # read, keep it, data


@compiled
def enlarge_images(sources, frames, size, width, out, rows, lines):
    """Cut and enlarge images of at most as many frames as they have columns.

    Args:
        sources: Address of the first frame of each image. int64 [images].
        frames: Number of frames of each image. int64 [images].
        size: Number of pixels of a frame, at least ROWS.
        width: Number of columns of an image.
        out: Receives the images, uint8 [batch * size * width].
        rows: Place of each image in `out`. int64 [images].
        lines: Scratch int16 [2 * ROWS * largest number of frames].
    """
    columns = (width + 15) // 16 * 16
    first, weights = np.empty(columns, np.int64), np.empty(columns, np.int16)
    piece = np.empty(ROWS * columns, np.uint8)
    for i in range(sources.size):
        count = frames[i]
        if i == 0 or count != frames[i - 1]:
            _locate(count, width, first, weights)
        # The compiler passes the intrinsic's first argument itself
        strip = carray(bytes_at(sources[i]), (count * size,))  # type: ignore[call-arg]
        following = carray(bytes_at(sources[min(i + 1, sources.size - 1)]), (1,))
        for start in range(0, size, ROWS):
            tile = min(start, size - ROWS)  # the last tile may repeat rows of the one before
            for frame in range(count):
                at = frame * size + tile
                _load_lines(strip, at, at + size * (frame + 1 < count), lines, frame * 2 * ROWS)
                _prefetch(following, start * count + frame * ROWS)
            for column in range(0, columns, 16):
                _draw_columns(lines, first, weights, column, piece, columns)
            to = (rows[i] * size + tile) * width
            if columns == width:
                _copy(piece, 0, out, to, ROWS * width)
            else:
                for row in range(ROWS):
                    _copy(piece, row * columns, out, to + row * width, width)
