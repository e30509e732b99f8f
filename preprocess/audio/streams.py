"""Open the streams of samples in an audio file and determine their lengths.

Uncompressed WAV, AU and AIFF files are converted by `pcm`. FLAC, Ogg and MPEG files are first split into
streams of known length (`flac`, `ogg`, `mpeg`), which libsndfile decodes. Formats that only FFmpeg reads
(AAC, WMA, ...) are decoded by PyAV (`ffmpeg`), if it is installed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from typing import Any, NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio, UnknownEncoding
from shardwave.preprocess.audio import ffmpeg, flac, mpeg, ogg
from shardwave.preprocess.audio.c_stderr import silenced
from shardwave.preprocess.audio.containers import FOREIGN_SUFFIXES, foreign_name, identify, layout
from shardwave.preprocess.audio.mpeg import Bytes
from shardwave.preprocess.audio.pcm import Samples, SummedFile, check_range, mono_blocks

RATES = (1_000, 1_000_000)  # Hz; lowest and highest valid rate
CHANNELS = 1_024  # largest valid number of channels
MAPPED = 1 << 26  # bytes; larger files are mapped instead of read
HEAD = 4_096  # bytes that identify a file
# uncompressed samples read at a time: 128 KiB of 16-bit samples are in the cache until they are converted
PIECE = 1 << 16


Allocate = Callable[[int, Any], np.ndarray]  # returns an uninitialised array of a length and a type


class Stream(NamedTuple):
    """One stream of samples in a file; most files have one.

    `blocks(first, last, size, allocate)` yields the mono samples of frames [first, last), about `size` at a
    time: float32 [n], or int16 if that was requested. Uncompressed samples are read into arrays of
    `allocate(n, dtype)`.
    """

    rate: int  # Hz
    channels: int
    frames: int
    blocks: Callable[[int, int, int, Allocate], Iterator[np.ndarray]]
    reader: str  # name of the decoder, for the log


class Source(NamedTuple):
    """The streams of an open file."""

    streams: list[Stream]
    missing: float = 0.0  # seconds
    reason: str | None = None  # reason for missing seconds, or another defect
    crc32: int | None = None
    # whether decoding all samples computes the CRC-32 of all bytes up to the end of the samples
    sums: bool = False

    @property
    def seconds(self) -> float:
        """Return the total length of all streams in seconds."""
        return sum(stream.frames / stream.rate for stream in self.streams)


def open_source(
    file: FileIO,
    name: str,
    stack: contextlib.ExitStack,
    piece: int = PIECE,
    integers_at: int | None = None,
    *,
    estimate: bool = False,
) -> Source:
    """Find the streams of an open file.

    Args:
        file: The file, at its start; a `SummedFile` to compute its CRC-32.
        name: Its path.
        stack: Owns the streams: it closes them, and they cannot be decoded afterwards.
        piece: Uncompressed samples that are read and converted at a time.
        integers_at: Rate in Hz at which 16-bit mono samples are returned as int16; None: at no rate.
        estimate: For formats that only FFmpeg reads, use the length that the container states; otherwise the
            file is decoded to measure its length.

    Returns:
        The streams, and the seconds that the file states but does not contain.

    Raises:
        BadAudio: The file is no audio, or is damaged so that none of its streams can be decoded.
    """
    try:
        return _open(file, name, stack, piece, integers_at)
    except UnknownEncoding as error:
        decoded, missing, reason = ffmpeg.open_stream(name, str(error), stack, estimate)
        return Source([Stream(*decoded)], missing, reason)


def _open(
    file: FileIO, name: str, stack: contextlib.ExitStack, piece: int, integers_at: int | None
) -> Source:
    """Find the streams of a file; raises UnknownEncoding if only FFmpeg may decode it."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise BadAudio("empty file")
    head = file.read(HEAD)
    kind = identify(head)
    if kind == "tagged":
        return _tagged(file, name, stack, piece, integers_at)
    if kind in ("wav", "au", "aiff"):
        samples = layout(file, kind, size)
        if samples.pcm is not None:
            stream = _pcm_stream(file, samples.pcm, kind, piece, samples.pcm.rate == integers_at)
            return Source([stream], samples.missing, samples.reason, sums=True)
        if samples.mpeg is not None:
            file.seek(samples.mpeg[0])
            source = _mpeg_source(file.read(samples.mpeg[1] - samples.mpeg[0]), stack)
            return source._replace(
                missing=source.missing + samples.missing, reason=source.reason or samples.reason
            )
        sound = _sound_stream(
            file if samples.rebuilt is None else _memory_file(samples.rebuilt, stack), stack
        )
        return Source([sound], samples.missing, samples.reason)
    if kind == "foreign":
        raise UnknownEncoding(foreign_name(head))
    if kind is None:
        suffix = os.path.splitext(name)[1].lower()
        if suffix in FOREIGN_SUFFIXES:
            raise UnknownEncoding(FOREIGN_SUFFIXES[suffix])
        raise BadAudio("not audio: no known format begins like this")
    if kind == "other":
        file.seek(0)
        return Source([_sound_stream(file, stack)])
    data = _content(file, size)
    crc32 = zlib.crc32(data) if isinstance(file, SummedFile) else None
    return _encoded(file, data, kind, stack)._replace(crc32=crc32)


def _content(file: FileIO, size: int) -> Bytes:
    """Return all bytes of a file; large files are mapped, so that they need no memory of the process."""
    if size > MAPPED:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    file.seek(0)
    return file.readall()


def _tagged(
    file: FileIO, name: str, stack: contextlib.ExitStack, piece: int, integers_at: int | None
) -> Source:
    """Find the streams of a file that begins with ID3v2 tags."""
    data = _content(file, os.fstat(file.fileno()).st_size)
    crc32 = zlib.crc32(data) if isinstance(file, SummedFile) else None
    start = mpeg.skip_id3(data, 0)
    kind = identify(data[start : start + HEAD])
    if kind in ("flac", "ogg"):
        return _encoded(None, data[start:], kind, stack)._replace(crc32=crc32)
    if kind in ("wav", "au", "aiff", "other"):
        inner = stack.enter_context(FileIO(os.dup(_memory_file(data[start:], stack).fileno())))
        return _open(inner, name, stack, piece, integers_at)._replace(crc32=crc32, sums=False)
    if kind == "foreign":
        raise UnknownEncoding(foreign_name(data[start : start + HEAD]))
    return _mpeg_source(data, stack)._replace(crc32=crc32)


def _encoded(file: FileIO | None, data: Bytes, kind: str, stack: contextlib.ExitStack) -> Source:
    """Find the streams of a FLAC, Ogg or MPEG file; `file` is an open file with these bytes, or None."""
    if kind == "mpeg":
        return _mpeg_source(data, stack)
    if kind == "flac":
        return _flac_source(file, data, stack)
    streams, missing, reasons = [], 0.0, []
    for part in ogg.streams(data):
        if part.codec == "FLAC":
            source = _flac_source(None, part.data or b"", stack)
            streams += source.streams
            missing += source.missing
            reasons += [source.reason, part.reason]
            continue
        streams.append(
            _sound_stream(
                file if part.data is None and file else _memory_file(part.data or data, stack), stack
            )
        )
        missing += part.missing / streams[-1].rate
        reasons.append(part.reason)
    return Source(streams, missing, next(filter(None, reasons), None))


def _flac_source(file: FileIO | None, data: Bytes, stack: contextlib.ExitStack) -> Source:
    parts = flac.streams(data)
    streams = [
        _sound_stream(
            _memory_file(part.data or data, stack) if file is None or part.data is not None else file, stack
        )
        for part in parts
    ]
    return Source(
        streams,
        sum(part.missing / part.rate for part in parts),
        next((part.reason for part in parts if part.reason), None),
    )


def _mpeg_source(data: Bytes, stack: contextlib.ExitStack) -> Source:
    """Open the stream of the frames of an MPEG file.

    Without a header frame, libsndfile estimates the length from the first frame and the size of the file, and
    reads no more than that. Zeros after the frames make the estimate large enough; they are sparse and never
    decoded.
    """
    content = mpeg.read(data)
    sound = _memory_file(content.data, stack, (content.frames + 8) * content.largest)
    samples = content.frames * content.kind.samples
    stream = _sound_stream(sound, stack, samples, content.skip, max(content.skip + 1, samples - content.drop))
    return Source([stream], content.missing / content.kind.rate, content.reason)


def _memory_file(data: Bytes | memoryview, stack: contextlib.ExitStack, size: int = 0) -> FileIO:
    """Create a file in memory, or a temporary file if it is large: `data` and zeros up to `size` bytes."""
    if hasattr(os, "memfd_create") and len(data) <= MAPPED:
        file: FileIO = stack.enter_context(FileIO(os.memfd_create("shardwave"), "r+"))
    else:
        with tempfile.TemporaryFile() as temporary:
            file = stack.enter_context(FileIO(os.dup(temporary.fileno()), "r+"))
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]
    if size > len(data):
        os.ftruncate(file.fileno(), size)
    file.seek(0)
    return file


def _pcm_stream(file: FileIO, pcm: Samples, kind: str, piece: int, integers: bool) -> Stream:
    """Open the stream of uncompressed samples."""

    def blocks(first: int, last: int, size: int, allocate: Allocate) -> Iterator[np.ndarray]:
        width = pcm.bits // 8 * pcm.channels
        part = pcm._replace(offset=pcm.offset + first * width, frames=last - first)
        if isinstance(file, SummedFile) and part == pcm:
            file.seek(0)
            file.sum_up(pcm.offset)
        return mono_blocks(file, part, size, piece, integers, allocate)

    _check_format(pcm.rate, pcm.channels)
    return Stream(pcm.rate, pcm.channels, pcm.frames, blocks, f"our own {pcm.name} {kind} reader")


def _sound_stream(
    file: FileIO,
    stack: contextlib.ExitStack,
    frames: int | None = None,
    skip: int = 0,
    end: int | None = None,
) -> Stream:
    """Open a stream that libsndfile decodes.

    `frames` is the length if libsndfile does not know it. The first `skip` frames and those from `end` on are
    dropped.
    """
    import soundfile  # takes 40 ms, which a folder of uncompressed files does not need

    file.seek(0)
    try:
        with silenced():
            sound = stack.enter_context(soundfile.SoundFile(file.fileno(), closefd=False))
    except soundfile.LibsndfileError as error:
        raise UnknownEncoding(
            f"an encoding that libsndfile does not know ({error.error_string.strip()})"
        ) from error
    total = sound.frames if frames is None else frames
    end = total if end is None else end
    _check_format(sound.samplerate, sound.channels)
    if not 0 < total < 1 << 62:
        raise BadAudio("no samples")

    def blocks(first: int, last: int, size: int, _: Allocate) -> Iterator[np.ndarray]:
        position, stop = 0, skip + last
        buffer = np.empty((min(size, stop), sound.channels), np.float32)
        while position < stop:
            try:
                with silenced():
                    part = sound.read(out=buffer[: min(size, stop - position)])
            except soundfile.LibsndfileError as error:
                interval = f"between sample {position} and {min(position + size, stop)} of {total}"
                raise BadAudio(f"damaged: decoding fails {interval} ({error.error_string})") from error
            if not len(part):
                return
            kept = part[max(0, skip + first - position) :]
            position += len(part)
            if len(kept):
                mono = kept[:, 0]
                if sound.channels > 1:
                    mono = mono.copy()
                    for channel in kept.T[1:]:
                        mono += channel
                    mono /= sound.channels
                check_range(mono)
                yield mono

    return Stream(
        sound.samplerate, sound.channels, end - skip, blocks, f"libsndfile ({sound.format} {sound.subtype})"
    )


def _check_format(rate: int, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise BadAudio(f"its header states a rate of {rate} Hz")
    if channels > CHANNELS:
        raise BadAudio(f"its header states {channels} channels")
