"""The streams of samples in an audio file: opened, measured and ready to be decoded to their ends.

Uncompressed WAV, AU and AIFF are converted by `pcm`. FLAC, Ogg and MPEG audio are first split into streams whose lengths are
known (`flac`, `ogg`, `mpeg`), which libsndfile decodes. What only FFmpeg reads (AAC, WMA, ...) is decoded by PyAV where that is
installed (`ffmpeg`).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from typing import NamedTuple

import numpy as np

from shardwave.common.errors import BadAudio, UnknownEncoding
from shardwave.preprocess.audio import ffmpeg, flac, mpeg, ogg
from shardwave.preprocess.audio.c_stderr import silenced
from shardwave.preprocess.audio.containers import FOREIGN_SUFFIXES, foreign_name, identify, layout
from shardwave.preprocess.audio.mpeg import Bytes
from shardwave.preprocess.audio.pcm import Samples, SummedFile, check_range, mono_blocks

RATES = (1_000, 1_000_000)  # Hz; what a header may state
CHANNELS = 1_024
MAPPED = 1 << 26  # bytes from which on a file is mapped and not read
HEAD = 4_096  # bytes by which a file is identified
PIECE = 1 << 16  # uncompressed samples read at a time: 128 KiB, of 16 bits, stay in cache until they are converted


class Stream(NamedTuple):
    """One stream of samples in a file; most files hold one.

    `blocks(first, last, size)` yields the mono samples of these frames, at most about `size` at a time: float32 [n], or int16 if
    they may stay what they are.
    """

    rate: int  # Hz
    channels: int
    frames: int
    blocks: Callable[[int, int, int], Iterator[np.ndarray]]
    reader: str  # what decodes it, for the log


class Source(NamedTuple):
    """What an opened file holds."""

    streams: list[Stream]
    missing: float = 0.0  # seconds
    reason: str | None = None  # why they are missing, or what else is wrong
    crc32: int | None = None
    sums: bool = False  # whether decoding all of it sums up the file's bytes too, but for those behind the samples

    @property
    def seconds(self) -> float:
        """Length of all streams together."""
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
    """Find the streams of an opened file.

    Args:
        file: The file, at its start; a `SummedFile` if its CRC-32 is wanted.
        name: Its path.
        stack: Closes what is opened here; the streams can be decoded until then.
        piece: Uncompressed samples that are read and converted at a time.
        integers_at: Rate in Hz at which 16-bit mono samples stay what they are.
        estimate: Believe the length that a file states which only FFmpeg reads, and do not decode it to find out.

    Returns:
        The streams, and what the file states that is not there.

    Raises:
        BadAudio: The file is no audio, or damaged so that no stream of it can be decoded.
    """
    try:
        return _open(file, name, stack, piece, integers_at)
    except UnknownEncoding as error:
        decoded, missing, reason = ffmpeg.open_stream(name, str(error), stack, estimate)
        return Source([Stream(*decoded)], missing, reason)


def _open(file: FileIO, name: str, stack: contextlib.ExitStack, piece: int, integers_at: int | None) -> Source:
    """Find the streams of a file; raises UnknownEncoding if only FFmpeg may decode it."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise BadAudio("empty file")
    head = file.read(HEAD)
    kind = identify(head)
    if kind == "tagged":
        return _tagged(file, name, stack, piece, integers_at)
    if kind in ("wav", "au", "aiff"):
        found = layout(file, kind, size)
        if found.pcm is not None:
            stream = _pcm_stream(file, found.pcm, kind, piece, found.pcm.rate == integers_at)
            return Source([stream], found.missing, found.reason, sums=True)
        if found.mpeg is not None:
            file.seek(found.mpeg[0])
            source = _mpeg_source(file.read(found.mpeg[1] - found.mpeg[0]), stack)
            return source._replace(missing=source.missing + found.missing, reason=source.reason or found.reason)
        sound = _sound_stream(file if found.rebuilt is None else _memory_file(found.rebuilt, stack), stack)
        return Source([sound], found.missing, found.reason)
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
    """All bytes of a file; those of a large one are mapped, so that they take no memory of the process."""
    if size > MAPPED:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    file.seek(0)
    return file.readall()


def _tagged(file: FileIO, name: str, stack: contextlib.ExitStack, piece: int, integers_at: int | None) -> Source:
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
    """Find the streams of a FLAC, Ogg or MPEG file; `file`: what holds exactly these bytes, if there is one."""
    if kind == "mpeg":
        return _mpeg_source(data, stack)
    if kind == "flac":
        return _flac_source(file, data, stack)
    made, missing, reasons = [], 0.0, []
    for part in ogg.streams(data):
        if part.codec == "FLAC":
            source = _flac_source(None, part.data or b"", stack)
            made += source.streams
            missing += source.missing
            reasons += [source.reason, part.reason]
            continue
        made.append(_sound_stream(file if part.data is None and file else _memory_file(part.data or data, stack), stack))
        missing += part.missing / made[-1].rate
        reasons.append(part.reason)
    return Source(made, missing, next(filter(None, reasons), None))


def _flac_source(file: FileIO | None, data: Bytes, stack: contextlib.ExitStack) -> Source:
    parts = flac.streams(data)
    made = [
        _sound_stream(_memory_file(part.data or data, stack) if file is None or part.data is not None else file, stack)
        for part in parts
    ]
    return Source(
        made, sum(part.missing / part.rate for part in parts), next((part.reason for part in parts if part.reason), None)
    )


def _mpeg_source(data: Bytes, stack: contextlib.ExitStack) -> Source:
    """The stream of an MPEG file's frames.

    libsndfile estimates the length of frames without a header from the first one and the file's size, and reads no more than
    that. Zeros behind them, which take no space and are never reached, make the estimate large enough.
    """
    found = mpeg.read(data)
    sound = _memory_file(found.data, stack, (found.frames + 8) * found.largest)
    samples = found.frames * found.kind.samples
    stream = _sound_stream(sound, stack, samples, found.skip, max(found.skip + 1, samples - found.drop))
    return Source([stream], found.missing / found.kind.rate, found.reason)


def _memory_file(data: Bytes | memoryview, stack: contextlib.ExitStack, size: int = 0) -> FileIO:
    """A file in memory (or a temporary one, where the system has none) with `data`, made longer by zeros up to `size` bytes."""
    if hasattr(os, "memfd_create"):
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
    """The stream of uncompressed samples."""

    def blocks(first: int, last: int, size: int) -> Iterator[np.ndarray]:
        width = pcm.bits // 8 * pcm.channels
        part = pcm._replace(offset=pcm.offset + first * width, frames=last - first)
        if isinstance(file, SummedFile) and part == pcm:
            file.seek(0)
            file.sum_up(pcm.offset)
        return mono_blocks(file, part, size, piece, integers)

    _check_format(pcm.rate, pcm.channels)
    return Stream(pcm.rate, pcm.channels, pcm.frames, blocks, f"our own {pcm.name} {kind} reader")


def _sound_stream(
    file: FileIO, stack: contextlib.ExitStack, frames: int | None = None, skip: int = 0, end: int | None = None
) -> Stream:
    """The stream that libsndfile decodes: `frames`, if it does not know how many there are, less the first `skip` and those from
    `end` on.
    """
    import soundfile  # here: 40 ms that a folder of uncompressed files need not wait for

    file.seek(0)
    try:
        with silenced():
            sound = stack.enter_context(soundfile.SoundFile(file.fileno(), closefd=False))
    except soundfile.LibsndfileError as error:
        raise UnknownEncoding(f"an encoding that libsndfile does not know ({error.error_string.strip()})") from error
    total = sound.frames if frames is None else frames
    end = total if end is None else end
    _check_format(sound.samplerate, sound.channels)
    if not 0 < total < 1 << 62:
        raise BadAudio("no samples")

    def blocks(first: int, last: int, size: int) -> Iterator[np.ndarray]:
        position, stop = 0, skip + last
        buffer = np.empty((min(size, stop), sound.channels), np.float32)
        while position < stop:
            try:
                with silenced():
                    part = sound.read(out=buffer[: min(size, stop - position)])
            except soundfile.LibsndfileError as error:
                told = f"decoding fails between sample {position} and {min(position + size, stop)} of {total}"
                raise BadAudio(f"damaged: {told} ({error.error_string})") from error
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

    return Stream(sound.samplerate, sound.channels, end - skip, blocks, f"libsndfile ({sound.format} {sound.subtype})")


def _check_format(rate: int, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise BadAudio(f"its header states a rate of {rate} Hz")
    if channels > CHANNELS:
        raise BadAudio(f"its header states {channels} channels")
