"""Length, rate and channels of an audio file by its header, without decoding it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, NamedTuple

from preprocess.c_stderr import silenced
from preprocess.decode import RATES
from preprocess.errors import BadAudio

_LONGEST = 1 << 40  # frames; what claims more has no length that could be believed


class Header(NamedTuple):
    """What a file says of its audio."""

    seconds: float
    rate: int  # Hz
    channels: int


def probe(file: Path | IO[bytes]) -> Header:
    """Read the header of `file`, a path or an open file that can be sought in.

    The seconds are what the header claims; for MP3 without a Xing header they are libsndfile's estimate.

    Raises:
        BadAudio: It is not a regular file, cannot be read, is not audio, or claims no length or rate that could be right.
    """
    import soundfile

    try:
        if isinstance(file, Path) and not stat.S_ISREG(os.stat(file).st_mode):  # before opening: a pipe would block
            raise BadAudio("not a regular file")
        with silenced():
            found = soundfile.info(file)
    except soundfile.LibsndfileError as error:
        raise BadAudio(f"cannot be decoded: {error.error_string}") from error
    except OSError as error:
        raise BadAudio(f"unreadable: {error.strerror or error}") from error
    if not 0 < found.frames < _LONGEST or not RATES[0] <= found.samplerate <= RATES[1]:
        raise BadAudio(f"its header claims {found.frames} frames at {found.samplerate} Hz")
    return Header(found.frames / found.samplerate, found.samplerate, found.channels)
