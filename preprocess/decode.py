"""Any audio file to mono float32 at one rate (first version)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from preprocess.errors import BadAudio

_MAGIC = (b"RIFF", b"RIFX", b"RF64", b".snd", b"FORM", b"fLaC", b"OggS", b"ID3")


class Decoded(NamedTuple):
    """A decoded clip."""

    samples: np.ndarray  # float32 [time], mono, at the rate asked for
    source_rate: int  # Hz, of the file
    channels: int  # of the file
    seconds: float  # of the file


def looks_like_audio(path: Path | str) -> bool:
    """Whether the file's first bytes are those of an audio format that `decode` reads."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head.startswith(_MAGIC) or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def decode(path: Path | str, sample_rate: int) -> Decoded:
    """Decode `path`, average its channels, resample with soxr HQ where the rate differs; raises BadAudio with the reason."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise BadAudio(str(error)) from error
    if not len(samples):
        raise BadAudio("no samples")
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if not np.isfinite(mono).all():
        raise BadAudio("NaN or infinite samples")
    seconds = len(mono) / rate
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    return Decoded(np.ascontiguousarray(mono), rate, samples.shape[1], seconds)
