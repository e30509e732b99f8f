"""Length, rate and channels of an audio file, without decoding it."""

from __future__ import annotations

import contextlib
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.c_stderr import silenced
from shardwave.preprocess.audio.decode import opened
from shardwave.preprocess.audio.streams import open_source

_LONGEST = 1 << 40  # samples; what states more has no length that could be believed


class Header(NamedTuple):
    """What is known of a file's audio without decoding it."""

    seconds: float
    rate: int  # Hz, of the first stream where there are several
    channels: int


def probe(file: Path | str | IO[bytes]) -> Header:
    """Find the length of an audio file.

    Args:
        file: A path: then the length is that of what `decode` gives (of formats that only FFmpeg reads, what the container
            states). Or an open file that can be sought in, such as an object in a store: then it is what the header states; for
            MP3 libsndfile's estimate.

    Raises:
        BadAudio: It is not a regular file, cannot be read, or is no audio.
    """
    if isinstance(file, Path | str):
        with opened(file, FileIO) as regular, contextlib.ExitStack() as stack:
            source = open_source(regular, str(file), stack, estimate=True)
            return Header(source.seconds, source.streams[0].rate, source.streams[0].channels)
    import soundfile

    try:
        with silenced():
            found = soundfile.info(file)
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"cannot be decoded: {error.error_string}") from error
    if not 0 < found.frames < _LONGEST or found.samplerate <= 0:
        raise BadAudio(f"its header states {found.frames} frames at {found.samplerate} Hz")
    return Header(found.frames / found.samplerate, found.samplerate, found.channels)
