"""Decode audio files to mono samples at one rate.

Channels are averaged. If the rate differs, soxr resamples with quality HQ. The format is recognised by the
content of a file, not by its name.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardwave.common import regular_file
from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.containers import FOREIGN_SUFFIXES, identify
from shardwave.preprocess.audio.pcm import SummedFile
from shardwave.preprocess.audio.streams import HEAD, PIECE, Allocate, Stream, open_source
from shardwave.preprocess.config import DEFAULTS, Limits

_log = logging.getLogger(__name__)

SUFFIXES = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".au", ".snd", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga",
    ".opus", ".mp3", ".mp2", ".mp1", ".mpga", ".caf", ".w64", ".voc", *FOREIGN_SUFFIXES,
))  # fmt: skip

BLOCK = 1 << 18  # frames that are resampled at a time
WHOLE = 1 << 22  # frames of a block that is not resampled; three minutes at 22,050 Hz


class Decoded(NamedTuple):
    """A decoded clip."""

    samples: np.ndarray  # float32 [time] (int16 if integers were requested), mono, at the requested rate
    source_rate: int  # Hz, of the file
    channels: int  # of the file
    seconds: float  # of the clip
    crc32: int | None = None  # of the file's bytes, if it was requested and all bytes were read
    remark: str | None = None  # defect of a file that is used nevertheless


def looks_like_audio(path: Path | str) -> bool:
    """Return whether the suffix or the first bytes of a file belong to an audio format.

    A build decodes or quarantines such files and ignores all others.
    """
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return True
    try:
        with open(path, "rb", opener=regular_file.opener) as file:
            return identify(file.read(HEAD)) is not None
    except OSError:
        return False


def decode(
    path: Path | str,
    sample_rate: int,
    piece: int = PIECE,
    *,
    summed: bool = False,
    integers: bool = False,
    start: float | None = None,
    end: float | None = None,
    limits: Limits = DEFAULTS,
    allocate: Allocate = np.empty,
) -> Decoded:
    """Decode a file, or a segment of it, to mono.

    Args:
        path: The file.
        sample_rate: Rate of the result in Hz.
        piece: Samples of an uncompressed file that are read and converted at a time. Small pieces stay in
            cache, but threads of one process wait for each other at every piece.
        summed: Compute the CRC-32 of the file too, if decoding reads all its bytes.
        integers: Return 16-bit mono samples at `sample_rate` as int16, without conversion.
        start: Start of the segment in seconds; None for the start of the file.
        end: End of the segment in seconds; None for the end of the file.
        limits: Limits beyond which a file is refused.
        allocate: Function of a length and a type that returns the array that uncompressed samples are read
            into; a file of up to WHOLE samples that is not resampled is read into one array, the result.

    Returns:
        The clip. If seconds are missing within the limits, its `remark` describes the defect.

    Raises:
        BadAudio: The file is not audio, is damaged, truncated or too long, or ends before the segment; the
            message is the reason.
    """
    begin = time.perf_counter()
    with opened(path, SummedFile if summed else FileIO) as file, contextlib.ExitStack() as stack:
        source = open_source(file, str(path), stack, piece, sample_rate if integers else None)
        if source.missing > limits.missing_seconds:
            raise BadAudio(f"truncated or damaged: {source.reason} ({source.missing:.2f} s are missing)")
        seconds = source.seconds
        first, last = _segment(seconds, start, end)
        if (start, end) != (None, None) and (last - first) * sample_rate < 0.5:
            raise BadAudio("the segment is shorter than a sample")
        if last - first > limits.seconds:
            raise BadAudio(
                f"too long: {_minutes(last - first)}, more than --max-clip-minutes {limits.seconds / 60:g} "
                "allows"
            )
        samples, undecoded = _resampled(source.streams, sample_rate, first, last, allocate)
        if undecoded > limits.missing_seconds:
            raise BadAudio(
                f"truncated or damaged: decoding ends {undecoded:.2f} s before the end of {seconds:.2f} s"
            )
        crc32 = source.crc32
        if source.sums and isinstance(file, SummedFile) and not start and end is None:
            file.sum_up()
            crc32 = file.crc32
    stream = source.streams[0]
    if _log.isEnabledFor(logging.DEBUG):
        rate = f"{stream.rate:,} Hz" + (f" to {sample_rate:,} Hz" if stream.rate != sample_rate else "")
        took = 1_000 * (time.perf_counter() - begin)
        _log.debug(
            "read %s by %s: %.2f s, %d ch, %s, in %.1f ms",
            path,
            stream.reader,
            last - first,
            stream.channels,
            rate,
            took,
        )
    remark = source.reason or (
        f"decoding ends {undecoded:.3f} s before the stated end" if undecoded else None
    )
    return Decoded(samples, stream.rate, stream.channels, last - first, crc32, remark)


@contextlib.contextmanager
def opened(path: Path | str, kind: type[FileIO]) -> Iterator[FileIO]:
    """Open a regular file as a context manager.

    Args:
        path: The file.
        kind: Class of the file object.

    Raises:
        BadAudio: The operating system cannot open or read the file, or it is not a regular file.
    """
    try:
        with kind(path, opener=regular_file.opener) as file:
            yield file
    except FileNotFoundError:
        raise BadAudio("the file does not exist") from None
    except OSError as error:
        if error.strerror == regular_file.NOT_REGULAR:
            raise BadAudio(error.strerror) from None
        raise BadAudio(f"unreadable: {error.strerror or error}") from error


def _segment(seconds: float, start: float | None, end: float | None) -> tuple[float, float]:
    """Return start and end in seconds of a segment of a file of `seconds`, or raise BadAudio."""
    first, last = start or 0.0, seconds if end is None else end
    if first >= seconds:
        raise BadAudio(f"the segment begins at {first:g} s, the file ends at {round(seconds, 3):g} s")
    if last > seconds + 0.1:
        raise BadAudio(f"the segment ends at {last:g} s, the file at {round(seconds, 3):g} s")
    if last <= first:
        raise BadAudio(f"the segment ends at {last:g} s, before it begins")
    return first, min(last, seconds)


def _minutes(seconds: float) -> str:
    return f"{seconds / 3_600:.1f} hours" if seconds >= 7_200 else f"{seconds / 60:.1f} minutes"


def _resampled(
    streams: list[Stream], sample_rate: int, first: float, last: float, allocate: Allocate
) -> tuple[np.ndarray, float]:
    """Return the samples from second `first` to `last`, and the seconds that could not be decoded.

    Blocks are copied into the result one by one, so that memory never holds a long clip twice.
    """
    size = math.ceil((last - first) * sample_rate) + 2 * len(streams)
    samples, filled, offset, undecoded = np.empty(0, np.float32), 0, 0.0, 0.0
    for stream in streams:
        begin = max(0, round((first - offset) * stream.rate))
        stop = min(stream.frames, round((last - offset) * stream.rate))
        offset += stream.frames / stream.rate
        if begin >= stop:
            continue
        decoded: list[int] = []  # samples of each block
        blocks = stream.blocks(
            begin, stop, *((WHOLE, allocate) if stream.rate == sample_rate else (BLOCK, np.empty))
        )
        for block in at_rate(blocks, stream.rate, sample_rate, decoded):
            if filled == 0 and len(block) >= size - 2 * len(streams):  # all in one block
                samples, filled = block, len(block)
                continue
            if filled + len(block) > len(samples):
                grown = np.empty(max(size, filled + len(block)), block.dtype)
                grown[:filled] = samples[:filled]
                samples = grown
            samples[filled : filled + len(block)] = block
            filled += len(block)
        undecoded += (stop - begin - sum(decoded)) / stream.rate
    if not filled and undecoded:
        raise BadAudio("no samples: nothing can be decoded")
    # resampling may reduce few samples to none
    return samples[:filled] if filled else np.zeros(1, np.float32), undecoded


def at_rate(
    blocks: Iterable[np.ndarray], rate: int, sample_rate: int, decoded: list[int]
) -> Iterator[np.ndarray]:
    """Resample the blocks of a stream.

    Args:
        blocks: Mono samples, float32 [n] each.
        rate: Their rate in Hz.
        sample_rate: Rate of the result in Hz.
        decoded: Receives the length of each input block.

    Yields:
        Samples at `sample_rate`; one array per block, and the rest.
    """
    if rate != sample_rate:
        import soxr

        stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        decoded.append(len(block))
        yield block if rate == sample_rate else stream.resample_chunk(block)
    if rate != sample_rate:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)
