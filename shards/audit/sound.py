"""Properties of audio files that the images do not show: digest, peak, clipping, offset, format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shardwave.common.environment import cores
from shardwave.common.errors import BadAudio, UsageError
from shardwave.common.progress import bar
from shardwave.preprocess.config import Limits
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.finding import Finding
from shardwave.shards.clip import Clip

FULL_SCALE = 0.999  # peaks below it are not clipped by the recorder
RUN = 3  # consecutive samples at the peak that count as clipped
CLIPPED, OFTEN_CLIPPED = 1e-4, 1e-2  # fractions of the samples
OFFSET = 0.02  # of full scale
QUIET = 1e-3  # peak of a clip that counts as silent: 60 dB below full scale
LIMITS = Limits(seconds=1e7, missing_seconds=1e7)  # the build has decided which files are used


@dataclasses.dataclass(frozen=True)
class Sound:
    """Measures of the decoded samples of one clip, mono, at the rate of the file.

    Args:
        digest: BLAKE3 digest of the samples.
        peak: Largest magnitude; 1 is full scale.
        clipped: Fraction of samples in runs at the peak, if the peak reaches full scale.
        offset: Mean of the samples (DC).
        error: Reason why the file cannot be read; the measures are then 0.
    """

    digest: str = ""
    peak: float = 0.0
    clipped: float = 0.0
    offset: float = 0.0
    error: str = ""


def measure(path: Path, clip: Clip, rate: int) -> Sound:
    """Decode a clip and measure its samples.

    Args:
        path: The audio file.
        clip: The clip, with its segment.
        rate: Sample rate of the file in Hz, so that nothing is resampled.
    """
    from blake3 import blake3

    from shardwave.preprocess.audio.decode import decode

    try:
        samples = decode(path, rate, start=clip.start, end=clip.end, limits=LIMITS).samples
    except BadAudio as error:
        return Sound(error=str(error))
    magnitude = np.abs(samples)
    peak = float(magnitude.max(initial=0.0))
    clipped = 0.0
    if peak >= FULL_SCALE:
        at_peak = np.concatenate([[False], magnitude >= peak * (1 - 1e-4), [False]])
        bounds = np.flatnonzero(np.diff(at_peak))
        runs = bounds[1::2] - bounds[::2]
        clipped = float(runs[runs >= RUN].sum() / len(samples))
    digest = blake3(np.ascontiguousarray(samples, np.float32).tobytes()).hexdigest()
    return Sound(digest, peak, clipped, float(samples.mean(dtype=np.float64)))


def sounds(audited: AuditedSet, audio: Path) -> list[Sound]:
    """Measure the audio of all clips, in one thread per core.

    Raises:
        UsageError: The set was not built from audio, or none of its files is in the folder.
    """
    if audited.shards.config is None:
        raise UsageError(f"--audio: {audited.shards.location} was built from a table: remove the option")
    if not audio.is_dir():
        raise UsageError(f"--audio must be the folder of the set's audio files, got {audio}")
    tasks = [
        (audio / clip.path, clip, int(rate)) for clip, rate in zip(audited.clips, audited.rate, strict=True)
    ]
    if not any(path.exists() for path, _, _ in tasks):
        raise UsageError(
            f"--audio {audio} has none of the set's files (the first: {audited.clips[0].path}): "
            "give the folder that the set was built from"
        )
    measured: list[Sound] = []
    # Decoding and digests release the interpreter lock; processes would need an importable main module
    with (
        bar(total=len(tasks), desc="audit: audio", unit="clip") as progress,
        ThreadPoolExecutor(cores(), "audit") as pool,
    ):
        for sound in pool.map(lambda task: measure(*task), tasks):
            measured.append(sound)
            progress.update()
    return measured


def sound_findings(audited: AuditedSet, measured: Sequence[Sound]) -> list[Finding]:
    """Return the findings about files: unreadable, silent, clipped, or with a constant offset."""
    found = []
    for row, sound in enumerate(measured):
        name, rows = audited.clips[row].name, (row,)
        if sound.error:
            advice = "give the folder that the set was built from with --audio"
            found.append(Finding("unreadable", "low", sound.error, advice, name, rows))
            continue
        if sound.peak < QUIET:
            text = f"the peak is {sound.peak:.1e} of full scale"
            advice = "delete it, or label it as a class of its own"
            found.append(Finding("silent", "medium", text, advice, name, rows))
        if sound.clipped > CLIPPED:
            severity = "medium" if sound.clipped > OFTEN_CLIPPED else "low"
            text = f"{sound.clipped:.2%} of the samples are clipped"
            found.append(Finding("clipped", severity, text, "record at a lower level", name, rows))
        if abs(sound.offset) > OFFSET:
            text = f"the mean of the samples is {sound.offset:+.3f} of full scale"
            found.append(Finding("dc-offset", "low", text, "remove frequencies below 20 Hz", name, rows))
    return found
