"""Compiled functions that cut images from strips along time and resize them to their width.

A strip holds all frames of a clip, already resized along frequency. The pixels of a frame are adjacent in
memory, so that the frames of a slice are one contiguous part of it. The weights are those of
`shardwave.preprocess.dsp.filters.resize`; the result is rounded half up.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from shardwave.preprocess.engines.numba.numba_cache import compiled
from shardwave.preprocess.engines.numba.render import draw_image
from shardwave.preprocess.engines.numba.simd import traced


@traced
def load_pixels(strip, at, lines, to):
    """Convert sixteen adjacent pixels of a frame to the levels of a line.

    Args:
        strip: Pixels, uint8.
        at: Index of the first pixel.
        lines: Lines that receive the levels.
        to: Index of the first level.
    """
    lines.store(to, strip.load(at))


@intrinsic
def bytes_at(typingctx: Any, address: Any) -> Any:
    """Return a pointer to bytes at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), codegen  # type: ignore[no-untyped-call]


@compiled
def cut_images(sources, frames, size, along, width, out, rows, lines, piece):
    """Cut and resize images of equally many frames.

    Args:
        sources: Address of the first frame of each image. int64 [images].
        frames: Number of frames of an image.
        size: Number of pixels of a frame.
        along: Matrix that resizes the frames, of `resize_rows`.
        width: Number of columns of an image.
        out: Receives the images, uint8 [batch * size * width].
        rows: Place of each image in `out`. int64 [images].
        lines: Scratch [16 * frames].
        piece: Scratch uint8 [16 * columns of `along`].
    """
    columns = along.first.size
    for i in range(sources.size):
        # The compiler passes the intrinsic's first argument itself
        strip = carray(bytes_at(sources[i]), (frames * size,))  # type: ignore[call-arg]
        for tile in range(0, size, 16):
            lanes = min(16, size - tile)
            if lanes == 16:
                for frame in range(frames):
                    load_pixels(strip, frame * size + tile, lines, frame * 16)
            else:
                for frame in range(frames):
                    for lane in range(lanes):
                        lines[frame * 16 + lane] = strip[frame * size + tile + lane]
            to = (rows[i] * size + tile) * width
            if lanes == 16 and columns == width:
                draw_image(lines, 0, 1, 0, along, out, to)
            else:
                draw_image(lines, 0, 1, 0, along, piece, 0)
                for lane in range(lanes):
                    for column in range(width):
                        out[to + lane * width + column] = piece[lane * columns + column]
