"""Decode recordings of any length block by block, in constant memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.decode import BLOCK, at_rate, opened
from shardwave.preprocess.audio.streams import open_source
from shardwave.preprocess.config import DEFAULTS


class Block(NamedTuple):
    """Consecutive samples of a recording."""

    samples: np.ndarray  # float32 [time], mono, at the requested rate
    total: float  # seconds of the recording
    defect: str | None  # reason why samples are missing that the file states


def decode_blocks(path: Path | str, sample_rate: int) -> Iterator[Block]:
    """Decode a recording to mono, about 260,000 samples of the file at a time.

    Resampling continues across blocks, so that the joined blocks are the result of `decode.decode`. A file
    that is cut off is decoded up to its end.

    Args:
        path: The file.
        sample_rate: Rate of the result in Hz.

    Yields:
        The blocks in order; the samples of a block are valid until the next one.

    Raises:
        BadAudio: The file is not audio, has no samples, or is damaged before its end.
    """
    with opened(path, FileIO) as file, contextlib.ExitStack() as stack:
        source = open_source(file, str(path), stack, estimate=True)
        undecoded = 0.0
        for stream in source.streams:
            decoded: list[int] = []  # samples of each block
            blocks = stream.blocks(0, stream.frames, BLOCK, np.empty)
            for samples in at_rate(blocks, stream.rate, sample_rate, decoded):
                yield Block(samples, source.seconds, source.reason)
            undecoded += (stream.frames - sum(decoded)) / stream.rate
        if undecoded >= source.seconds:
            raise BadAudio("no samples: nothing can be decoded")
        if undecoded > DEFAULTS.missing_seconds:
            end = f"decoding ends {undecoded:.2f} s before the end of {source.seconds:.2f} s"
            yield Block(np.empty(0, np.float32), source.seconds, end)


class Window(NamedTuple):
    """A part of a recording."""

    start: float  # seconds
    end: float  # seconds
    samples: np.ndarray  # float32 [time]


def windows(
    blocks: Iterable[np.ndarray], sample_rate: int, seconds: float, hop: float, least: int
) -> Iterator[Window]:
    """Cut a recording into windows of one length.

    Window k begins at k * hop seconds. If the last of these ends before the recording, another window follows
    that ends with the recording. Samples that no further window needs are dropped.

    Args:
        blocks: Consecutive samples, float32 [n] each.
        sample_rate: Their rate in Hz.
        seconds: Length of a window.
        hop: Distance between the starts of windows in seconds, at most `seconds`.
        least: Number of samples by which a recording may be shorter than one window, which is then its only
            window, and up to which samples after the last window are ignored.

    Yields:
        The windows in order; none if the recording is shorter than a window.
    """
    size = round(seconds * sample_rate)
    held, offset, count = np.empty(0, np.float32), 0, 0  # `offset` is the number of samples before `held`
    for block in blocks:
        held = np.concatenate((held, block))
        while (begin := round(count * hop * sample_rate)) + size <= offset + len(held):
            start = count * hop
            yield Window(start, start + seconds, held[begin - offset : begin - offset + size])
            count += 1
        # the last window may begin at any sample after the start of the window before it
        kept = max(0, round((count - 1) * hop * sample_rate) - offset)
        held, offset = held[kept:], offset + kept
    total = offset + len(held)
    if count == 0 and size - least <= total:
        yield Window(0.0, total / sample_rate, held)
    elif count and total - (round((count - 1) * hop * sample_rate) + size) > least:
        yield Window((total - size) / sample_rate, total / sample_rate, held[-size:])
