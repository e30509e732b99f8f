"""Decode formats that only FFmpeg reads (AAC, ALAC, WMA, ...) with the optional package PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shardwave.common.errors import BadAudio

REMEDY = "{} is not read here: pip install 'shardwave[av]', or convert the file to FLAC or WAV"
# containers that state a length; for others it is an estimate
_STATED = ("mov", "mp4", "matroska", "ape", "wv", "tta")


def open_stream(
    path: str, name: str, stack: contextlib.ExitStack, estimate: bool = False
) -> tuple[
    tuple[int, int, int, Callable[[int, int, int, Any], Iterator[np.ndarray]], str], float, str | None
]:
    """Open the first audio stream of a file.

    Args:
        path: The file.
        name: Name of its format, for messages.
        stack: Closes the file.
        estimate: Use the length that the file states, if it states one; otherwise the file is decoded to
            measure its length.

    Returns:
        The fields of a `Stream` (rate in Hz, channels, frames, blocks, reader), the missing seconds of the
        length that the container states, and the reason.

    Raises:
        BadAudio: PyAV is not installed, or FFmpeg cannot decode the file.
    """
    try:
        import av
    except ImportError:
        raise BadAudio(REMEDY.format(name)) from None
    try:
        container = stack.enter_context(av.open(path, metadata_errors="replace"))
        if not container.streams.audio:
            raise BadAudio(f"{name} without an audio stream")
        audio = container.streams.audio[0]
        if audio.codec_context is None or not audio.rate or not audio.channels:
            raise BadAudio(f"{name}: FFmpeg finds no decoder, rate or channels for its audio")
        rate, channels = audio.rate, audio.channels
        stated = float(audio.duration * audio.time_base) if audio.duration and audio.time_base else 0.0
        length = stated or (container.duration or 0) / av.time_base
        is_stated = container.format.name.split(",")[0] in _STATED
    except av.FFmpegError as error:
        raise BadAudio(f"FFmpeg cannot open it: {error.strerror}") from error

    def decoded() -> Iterator[np.ndarray]:
        converter = av.AudioResampler(format="fltp")
        try:
            container.seek(0)
            for frame in container.decode(audio):
                for converted in converter.resample(frame):
                    yield converted.to_ndarray().mean(axis=0, dtype=np.float32)
        except av.FFmpegError as error:
            raise BadAudio(f"damaged: FFmpeg cannot decode it to its end: {error.strerror}") from error

    def blocks(first: int, last: int, size: int, _: Any) -> Iterator[np.ndarray]:
        position = 0
        for samples in decoded():
            kept = samples[max(0, first - position) : max(0, last - position)]
            position += len(samples)
            if len(kept):
                yield kept

    if estimate and length > 0:
        return (rate, channels, round(length * rate), blocks, "FFmpeg"), 0.0, None
    frames = sum(len(samples) for samples in decoded())  # decoding the file twice needs less memory
    if not frames:
        raise BadAudio("no samples")
    missing = max(0.0, stated - frames / rate) if is_stated else 0.0
    reason = (
        f"the file states {stated:.2f} s, {frames / rate:.2f} s can be decoded" if missing > 0.1 else None
    )
    return (rate, channels, frames, blocks, "FFmpeg"), missing, reason
