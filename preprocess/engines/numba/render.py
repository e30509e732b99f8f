"""Compiled functions that convert power spectra to uint8 images: bands, decibels, resize.

Power and bands are arrays `[block, row, 16 frames]`. Lines are arrays `[pixel / 16, frame, 16 pixels]` with
the levels of the frames along the frequency axis of the image, padded to a multiple of sixteen pixels. Images
are arrays `[pixel, time]`. A level is the position between floor and maximum, from 0 to 255, not rounded.
"""

from __future__ import annotations

import functools

import numpy as np

from shardwave.preprocess.dsp.filters import BandedMatrix, resize
from shardwave.preprocess.engines.numba.numba_cache import compiled
from shardwave.preprocess.engines.numba.simd import (
    LANES,
    Index,
    Pointer,
    Vector,
    accumulate,
    traced,
    transpose,
    transpose_to_bytes,
)


def padded(size: int) -> int:
    """Round `size` up to a multiple of LANES."""
    return -(-size // LANES) * LANES


def whole_vectors(matrix: BandedMatrix) -> BandedMatrix:
    """Append rows with one zero weight to a matrix until the number of rows is a multiple of LANES."""
    extra = (0, padded(len(matrix.first)) - len(matrix.first))
    counts = np.pad(matrix.counts, extra, constant_values=1)
    return BandedMatrix(
        np.pad(matrix.first, extra), counts, np.cumsum(counts) - counts, np.pad(matrix.weights, extra)
    )


@functools.lru_cache(maxsize=256)
def resize_rows(size_in: int, size_out: int) -> BandedMatrix:
    """Return the matrix of `filters.resize`, padded by `whole_vectors`.

    If no row has more than two weights, every row gets two, one of which may be zero: `draw_image` is faster
    then.

    Args:
        size_in: Pixels or frames before resizing.
        size_out: Pixels after resizing.
    """
    matrix = whole_vectors(resize(size_in, size_out))
    if matrix.counts.max() > 2 or size_in == 1:
        return matrix
    first = np.minimum(matrix.first, size_in - 2)
    weights = np.zeros((len(first), 2), np.float32)
    weights[np.arange(len(first)), matrix.first - first] = matrix.weights[matrix.starts]
    both = matrix.counts == 2
    weights[both, 1] = matrix.weights[matrix.starts[both] + 1]
    return BandedMatrix(first, np.full(len(first), 2), 2 * np.arange(len(first)), weights.ravel())


def _weigh(source: Pointer, at: Index, weights: Pointer, start: Index, count: Index) -> Vector:
    """Return the sum over i of weights[start + i] * source[at + 16 i : at + 16 i + 16]."""
    return accumulate(count, lambda i: weights.broadcast(start + i) * source.load(at + i * LANES))


@traced
def weigh(source, at, weights, start, count, target, to):
    """Write a weighted sum of vectors of sixteen floats to target[to].

    Args:
        source: Array of the vectors.
        at: Index of the first vector.
        weights: Array of the weights.
        start: Index of the first weight.
        count: Number of vectors, at least 1.
        target: Array that receives the sum.
        to: Index of the sum.
    """
    target.store(to, _weigh(source, at, weights, start, count))


@traced
def _level(power, at, scale, levels, to):
    """Compute the levels max(0, scale[0] log2(power) + scale[1]) of sixteen powers."""
    level = power.load(at).log2() * scale.broadcast(0) + scale.broadcast(1)
    levels.store(to, level.maximum(0.0))


@traced
def _turn_lines(pixels, at, lines, to):
    """Transpose sixteen pixels of sixteen frames, from [pixel, frame] to [frame, pixel]."""
    for i, line in enumerate(transpose([pixels.load(at + LANES * i) for i in range(LANES)])):
        lines.store(to + LANES * i, line)


@compiled
def draw_lines(power, blocks, scale, along, scratch, lines):
    """Compute lines from power.

    Args:
        power: Powers [blocks, rows, 16].
        blocks: Number of blocks.
        scale: Factor and offset from log2 of a power to a level; negative levels become 0.
        along: Matrix that resizes the rows along frequency, of `resize_rows`.
        scratch: Scratch [rows + 16, 16].
        lines: Receives the lines [tiles, 16 * blocks, 16].
    """
    count = scratch.size // 16 - 16
    tile = blocks * 256
    for block in range(blocks):
        ready = 0
        for pixel in range(along.first.size):
            first = along.first[pixel]
            need = first + along.counts[pixel]
            while ready < need:
                _level(power, (block * count + ready) * 16, scale, scratch, ready * 16)
                ready += 1
            row = count + pixel % 16
            weigh(
                scratch,
                first * 16,
                along.weights,
                along.starts[pixel],
                along.counts[pixel],
                scratch,
                row * 16,
            )
            if pixel % 16 == 15:
                _turn_lines(scratch, count * 16, lines, pixel // 16 * tile + block * 256)


@compiled
def draw_strip(lines, blocks, frames, size, strip):
    """Round the lines of frames half up, without resizing them along time.

    Args:
        lines: Lines [tiles, 16 * blocks, 16].
        blocks: Number of blocks.
        frames: Number of frames to round.
        size: Number of pixels of a line.
        strip: Receives the pixels, uint8 [frames * size].
    """
    for frame in range(frames):
        for pixel in range(size):
            place = (pixel // 16 * blocks * 16 + frame) * 16 + pixel % 16
            strip[frame * size + pixel] = np.uint8(lines[place] + np.float32(0.5))


@traced
def _tile(lines, at, first, counts, starts, weights, column, image, to, columns):
    """Compute sixteen pixels of sixteen columns of an image, rounded half up."""
    pixels = []
    for t in range(LANES):
        pixels.append(
            _weigh(
                lines,
                at + first.index(column + t) * LANES,
                weights,
                starts.index(column + t),
                counts.index(column + t),
            )
            + 0.5
        )
    for pixel, row in enumerate(transpose_to_bytes(pixels)):
        image.store_bytes(to + columns * pixel, row)


@traced
def _tile_of_pairs(lines, at, first, weights, column, image, to, columns):
    """Compute the same as `_tile` if every column is the weighted sum of two frames."""
    pixels = []
    for t in range(LANES):
        frame, weight = at + first.index(column + t) * LANES, (column + t) * 2
        one = lines.load(frame) * weights.broadcast(weight) + 0.5
        pixels.append(one + lines.load(frame + LANES) * weights.broadcast(weight + 1))
    for pixel, row in enumerate(transpose_to_bytes(pixels)):
        image.store_bytes(to + columns * pixel, row)


@compiled
def draw_image(lines, blocks, tiles, first_frame, along, image, at):
    """Compute the image of a range of frames from their lines.

    Args:
        lines: Lines [tiles, 16 * blocks, 16].
        blocks: Number of blocks.
        tiles: Number of tiles, each of sixteen pixels along frequency.
        first_frame: First frame of the image.
        along: Matrix that resizes the frames from `first_frame` on along time, of `resize_rows`.
        image: Receives the pixels, uint8 [16 * tiles, columns], from index `at` on.
        at: Index of the first pixel.
    """
    columns = along.first.size
    pairs = (
        along.weights.size == 2 * columns
        and along.starts[columns - 1] == 2 * columns - 2
        and along.counts.max() == 2
    )
    for tile in range(tiles):
        source = (tile * blocks * 16 + first_frame) * 16
        for column in range(0, columns, 16):
            to = at + tile * 16 * columns + column
            if pairs:
                _tile_of_pairs(lines, source, along.first, along.weights, column, image, to, columns)
            else:
                _tile(
                    lines,
                    source,
                    along.first,
                    along.counts,
                    along.starts,
                    along.weights,
                    column,
                    image,
                    to,
                    columns,
                )
