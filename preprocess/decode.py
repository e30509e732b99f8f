"""Any audio file to mono float32 at one rate.

Uncompressed WAV and AU are converted straight into the float samples, piece by piece as they are read (`pcm`); everything else
is decoded by libsndfile. Channels are averaged; where the rate differs, soxr's HQ resampler follows. The content decides what a
file is, not its name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from preprocess import regular_file
from preprocess.c_stderr import silenced
from preprocess.containers import check, identify
from preprocess.errors import BadAudio
from preprocess.pcm import SummedFile, check_range, mono_blocks

if TYPE_CHECKING:
    import soundfile

_log = logging.getLogger(__name__)

SUFFIXES = frozenset((".wav", ".wave", ".au", ".snd", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2"))
RATES = (1_000, 1_000_000)  # Hz; what a header may claim
CHANNELS = 1_024
_BLOCK = 1 << 18  # frames decoded at a time
_WHOLE = 1 << 26  # frames that a header may claim for memory to be taken at once
PIECE = 1 << 16  # uncompressed samples read at a time: 128 KiB, of 16 bits, stay in cache until they are converted


class Decoded(NamedTuple):
    """A decoded clip."""

    samples: np.ndarray  # float32 [time] (or int16, where integers were wanted), mono, at the rate asked for
    source_rate: int  # Hz, of the file
    channels: int  # of the file
    seconds: float  # of the file
    crc32: int | None = None  # of the file's bytes, where that was asked for and came with reading them


def looks_like_audio(path: Path | str) -> bool:
    """Whether the first bytes of a regular file, or else its name, say that it is audio; what only the name says, `decode` has
    to judge.
    """
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return True
    try:
        with open(path, "rb", opener=regular_file.opener) as file:
            return identify(file.read(4_096)) is not None
    except OSError:
        return False


def decode(path: Path | str, sample_rate: int, piece: int = PIECE, *, summed: bool = False, integers: bool = False) -> Decoded:
    """Decode `path` to mono at `sample_rate` (Hz); raises BadAudio with the reason where it is not sound and whole.

    Uncompressed files are read and converted `piece` samples at a time: small pieces stay in cache, but many threads of one
    process wait for each other at every piece. `summed`: with the file's CRC-32, if this reads its bytes itself.
    `integers`: samples of 16 bits that are mono and at that rate stay what they are.
    """
    try:
        with (SummedFile if summed else FileIO)(path, opener=regular_file.opener) as file:
            start = time.perf_counter()
            decoded, reader = _decode(file, sample_rate, piece, integers)
    except OSError as error:
        if error.strerror == regular_file.NOT_REGULAR:
            raise BadAudio(error.strerror) from error
        raise BadAudio(f"unreadable: {error.strerror or error}") from error
    if _log.isEnabledFor(logging.DEBUG):
        rate = f"{decoded.source_rate:,} Hz" + (f" to {sample_rate:,} Hz" if decoded.source_rate != sample_rate else "")
        about = f"{decoded.seconds:.2f} s, {decoded.channels} ch, {rate}"
        _log.debug("read %s by %s: %s, in %.1f ms", path, reader, about, 1000 * (time.perf_counter() - start))
    return decoded


def _decode(file: FileIO, sample_rate: int, piece: int, integers: bool) -> tuple[Decoded, str]:
    """The clip, and what read it."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise BadAudio("empty file")
    kind = identify(file.read(4_096))
    if kind is None:
        raise BadAudio("not audio: no known format begins like this")
    pcm = check(file, kind, size)
    file.seek(0)
    if pcm is not None:
        if isinstance(file, SummedFile):
            file.sum_up(pcm.offset)
        same = pcm.rate == sample_rate
        blocks = mono_blocks(file, pcm, max(1, pcm.frames) if same else _BLOCK, piece, integers and same)
        decoded = _resampled(blocks, pcm.rate, pcm.channels, sample_rate)
        if isinstance(file, SummedFile):
            file.sum_up()
            decoded = decoded._replace(crc32=file.crc32)
        return decoded, f"our own {pcm.name} {kind} reader"
    import soundfile  # here: 40 ms that a folder of uncompressed files need not wait for

    try:
        with (
            silenced() if kind in ("mpeg", "tagged") else contextlib.nullcontext(),
            soundfile.SoundFile(file.fileno(), closefd=False) as sound,  # given the object, it would call back for each read
        ):
            decoded = _resampled(_blocks(sound, sound.samplerate == sample_rate), sound.samplerate, sound.channels, sample_rate)
            return decoded, f"libsndfile ({sound.format} {sound.subtype})"
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"cannot be decoded: {error.error_string}") from error


def _blocks(sound: soundfile.SoundFile, whole: bool) -> Iterator[np.ndarray]:
    """Mono blocks of what libsndfile decodes (`whole`: as one, where the header claims no absurd length); raises BadAudio where
    it is fewer or more frames than claimed.
    """
    claimed, channels = sound.frames, sound.channels
    buffer = np.empty((_BLOCK, channels), np.float32) if channels > 1 else None
    size = claimed if whole and 0 < claimed <= _WHOLE else _BLOCK
    total = 0
    while True:
        mono, filled = np.empty(size, np.float32), 0
        while filled < size:
            target = mono[filled:] if buffer is None else mono[filled : filled + _BLOCK]
            part = sound.read(out=target if buffer is None else buffer[: len(target)])
            if not len(part):
                break
            target = target[: len(part)]
            if buffer is not None:
                target[...] = part[:, 0]
                for channel in part.T[1:]:
                    target += channel
                target /= channels
            check_range(target)
            filled += len(part)
        if not filled:
            break
        total, size = total + filled, _BLOCK
        yield mono[:filled]
    if claimed < 1 << 62 and total != claimed:  # libsndfile's largest number stands for an open length
        raise BadAudio(f"truncated, or its header lies: it claims {claimed} frames, the file holds {total}")


def _resampled(blocks: Iterator[np.ndarray], rate: int, channels: int, sample_rate: int) -> Decoded:
    """The clip at `sample_rate`, block by block so that long files need no second copy."""
    if not RATES[0] <= rate <= RATES[1]:
        raise BadAudio(f"its header claims a rate of {rate} Hz")
    if channels > CHANNELS:
        raise BadAudio(f"its header claims {channels} channels")
    stream = None
    if rate != sample_rate:
        import soxr

        stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    parts, frames = [], 0
    for block in blocks:
        frames += len(block)
        parts.append(block if stream is None else stream.resample_chunk(block))
    if frames == 0:
        raise BadAudio("no samples")
    if stream is not None:
        parts.append(stream.resample_chunk(np.empty(0, np.float32), last=True))
    samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return Decoded(samples if len(samples) else np.zeros(1, np.float32), rate, channels, frames / rate)
