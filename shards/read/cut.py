"""Cut the images of a batch from strips and resize them along time."""

from __future__ import annotations

import threading

import numpy as np

from shardwave.preprocess.engines.numba.cut import cut_images
from shardwave.preprocess.engines.numba.enlarge import ROWS, enlarge_images
from shardwave.preprocess.engines.numba.render import resize_rows
from shardwave.preprocess.engines.numba.simd import LANES, aligned


def cut(sources: np.ndarray, frames: np.ndarray, out: np.ndarray) -> None:
    """Cut images from strips and resize them along time.

    Args:
        sources: Address of the first frame of each image, whose pixels are uint8. int64 [images].
        frames: Number of frames of each image, at least 1. int64 [images].
        out: Receives the images, C-contiguous. uint8 [images, size, width].

    Raises:
        ValueError: `out` is not C-contiguous or has another number of images.
    """
    if not out.flags.c_contiguous or not len(sources) == len(frames) == len(out):
        raise ValueError("out must be C-contiguous, with one image per address")
    _, size, width = out.shape
    rows = np.argsort(frames, kind="stable")
    flat, counts = out.reshape(-1), frames[rows]
    enlarged = int(np.searchsorted(counts, width, "right")) if size >= ROWS else 0
    if enlarged:
        lines = aligned(ROWS * int(counts[enlarged - 1])).view(np.int16)
        few = rows[:enlarged]
        enlarge_images(sources[few], counts[:enlarged], size, width, flat, few, lines)
    for group in np.split(rows[enlarged:], np.flatnonzero(np.diff(counts[enlarged:])) + 1):
        if len(group):
            count = int(frames[group[0]])
            along = resize_rows(count, width)
            lines, piece = _scratch(LANES * count, LANES * len(along.first))
            cut_images(sources[group], count, size, along, width, flat, group, lines, piece)


_own = threading.local()  # .lines, .piece: scratch memory of this thread


def _scratch(lines: int, piece: int) -> tuple[np.ndarray, np.ndarray]:
    if not hasattr(_own, "lines") or _own.lines.size < lines:
        _own.lines = aligned(lines)
        _own.lines[:] = 0
    if not hasattr(_own, "piece") or _own.piece.size < piece:
        _own.piece = np.empty(piece, np.uint8)
    return _own.lines, _own.piece
