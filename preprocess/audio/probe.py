"""Read the length, rate and channels of audio files without decoding them."""

from __future__ import annotations

import contextlib
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.c_stderr import silenced
from shardwave.preprocess.audio.decode import opened
from shardwave.preprocess.audio.streams import open_source

_LONGEST = 1 << 40  # largest credible number of samples in a header


class Header(NamedTuple):
    """Properties of an audio file that are known without decoding it."""

    seconds: float
    rate: int  # Hz, of the first stream
    channels: int


def probe(file: Path | str | IO[bytes]) -> Header:
    """Read the length, rate and channels of an audio file.

    Args:
        file: A path or a seekable open file.

    Returns:
        Length, rate and channels. For a path, the length equals that of the result of `decode`; for formats
        that only FFmpeg reads, it is the length that the container states. For an open file, it is the length
        that the header states; for MP3, an estimate of libsndfile.

    Raises:
        BadAudio: The file is not regular, cannot be read, or is no audio.
    """
    if isinstance(file, Path | str):
        with opened(file, FileIO) as regular, contextlib.ExitStack() as stack:
            source = open_source(regular, str(file), stack, estimate=True)
            return Header(source.seconds, source.streams[0].rate, source.streams[0].channels)
    import soundfile

    try:
        with silenced():
            info = soundfile.info(file)
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"cannot be decoded: {error.error_string}") from error
    if not 0 < info.frames < _LONGEST or info.samplerate <= 0:
        raise BadAudio(f"its header states {info.frames} frames at {info.samplerate} Hz")
    return Header(info.frames / info.samplerate, info.samplerate, info.channels)
