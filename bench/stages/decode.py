"""Decoding of audio files to mono float32 at 22,050 Hz, by format, on one core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from shardwave.bench.harness import limits
from shardwave.bench.harness.audio import RATE, SECONDS
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.harness.timing import Case, timed
from shardwave.preprocess.audio.decode import decode

STAGE, UNIT = "decode", "x real time"
FORMATS = {  # name: (suffix, container, encoding, sample rate in Hz, channels)
    "WAV 16 bit": (".wav", "WAV", "PCM_16", RATE, 1),
    "WAV 24 bit": (".wav", "WAV", "PCM_24", RATE, 1),
    "WAV float": (".wav", "WAV", "FLOAT", RATE, 1),
    "AU 16 bit": (".au", "AU", "PCM_16", RATE, 1),
    "FLAC": (".flac", "FLAC", "PCM_16", RATE, 1),
    "OGG Vorbis": (".ogg", "OGG", "VORBIS", RATE, 1),
    "OGG Opus 48 kHz": (".opus", "OGG", "OPUS", 48_000, 1),
    "MP3": (".mp3", "MP3", "MPEG_LAYER_III", RATE, 1),
    "WAV 16 bit 44.1 kHz stereo": (".wav", "WAV", "PCM_16", 44_100, 2),
}
UNCODED = ("WAV", "AU")


def run(scope: Scope) -> Iterator[Record]:
    """Measure our decoder, `librosa.load` and a baseline for every format.

    The baseline reads the file's bytes (formats without a codec), or runs the codec and the resampler alone.
    The limit of formats without a codec is one copy of the file's bytes, which stay in the caches.

    Yields:
        Records in seconds of audio per second.
    """
    absent = missing("librosa", "bench")
    for name, layout in FORMATS.items():
        paths = _encode(
            scope.audio[: scope.pick(2, 10)], scope.subfolder("formats") / name.replace(" ", "-"), layout
        )
        seconds, uncoded = len(paths) * SECONDS, layout[1] in UNCODED
        size = sum(path.stat().st_size for path in paths)
        params = {"group": name, "clips": len(paths), "bytes": size, "audio": scope.audio_source}
        bare = f"{name}: {'file read' if uncoded else 'codec'}{' and resampler' * (layout[3] != RATE)} alone"
        least = scope.machine.least(cache=size)[0] if uncoded else None
        load = functools.partial(_librosa, paths)
        cases = [
            Case(f"{name}: decode", "ours", functools.partial(_ours, paths), seconds, params, least=least),
            Case(bare, "baseline", _bare(paths, uncoded), seconds, params, least=least),
            Case(f"{name}: librosa.load", "peer", load, seconds, params, skipped=absent, least=least),
        ]
        if uncoded:
            cases.append(scope.machine.limit_case(f"{name}: ", seconds, params, cache=size))
        yield from timed(STAGE, UNIT, cases, scope.plan)


def _encode(clips: Sequence[Path], folder: Path, layout: tuple[str, str, str, int, int]) -> list[Path]:
    """Write `clips` in another format, rate and number of channels."""
    suffix, container, encoding, rate, channels = layout
    folder.mkdir(parents=True)
    paths = []
    for clip in clips:
        samples, source_rate = soundfile.read(clip, dtype="float32")
        if rate != source_rate:
            samples = soxr.resample(samples, source_rate, rate)
        path = folder / f"{clip.stem}{suffix}"
        soundfile.write(
            path, np.repeat(samples[:, None], channels, axis=1), rate, format=container, subtype=encoding
        )
        paths.append(path)
    return paths


def _ours(paths: Sequence[Path]) -> None:
    for path in paths:
        decode(path, RATE)


def _librosa(paths: Sequence[Path]) -> None:
    import librosa

    for path in paths:
        librosa.load(path, sr=RATE)


def _bare(paths: Sequence[Path], uncoded: bool) -> Callable[[], None]:
    """Return the baseline: read bytes, or decode by libsndfile and resample by soxr if rates differ."""
    buffer = np.empty((int(48_000 * SECONDS) + 48_000, 2), np.float32)
    known = {path: soundfile.read(path, dtype="float32", always_2d=True) for path in paths}
    mono = {path: np.ascontiguousarray(samples[:, 0]) for path, (samples, _) in known.items()}

    def work() -> None:
        for path in paths:
            if uncoded:
                limits.read_files([path])
            else:
                with soundfile.SoundFile(path) as file:
                    file.read(
                        dtype="float32",
                        out=buffer.ravel()[: file.frames * file.channels].reshape(file.frames, -1),
                    )
            if known[path][1] != RATE:
                soxr.resample(mono[path], known[path][1], RATE, quality="HQ")

    return work
