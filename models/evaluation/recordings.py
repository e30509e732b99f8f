"""Classification of recordings of any length, window by window, in constant memory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from shardwave.common.errors import BadAudio, TooManyBadInputs, UsageError, require
from shardwave.common.messages import duration, say
from shardwave.common.printable import one_line
from shardwave.common.progress import bar
from shardwave.models.evaluation import calibration
from shardwave.models.evaluation.audio_classifier import AudioClassifier
from shardwave.models.evaluation.intervals import FORMATS, AudacityFiles, CsvFile, Interval, merged
from shardwave.models.runs import checkpoint
from shardwave.preprocess.audio.blocks import decode_blocks, windows
from shardwave.shards.format.layout import MANIFEST, is_url
from shardwave.shards.format.records import QuarantineEntry
from shardwave.shards.sources.class_folders import audio_files

SAMPLES = 1 << 20  # samples of the windows that are classified together


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """Options of `predict_recordings`.

    Args:
        window: Length of a window in seconds.
        hop: Distance between the starts of windows in seconds; `window` if None.
        merge: Whether to join neighbouring windows of the same class.
        format: "csv" or "audacity".
        probabilities: Whether to add one column of probabilities per class to the CSV file.
    """

    window: float
    hop: float | None = None
    merge: bool = False
    format: str = "csv"
    probabilities: bool = False

    def __post_init__(self) -> None:
        require(0 < self.window < math.inf, "--window must be positive, in seconds", self.window)
        require(
            0 < self.step <= self.window,
            f"--hop must be positive and at most --window {self.window:g}",
            self.hop,
        )
        require(self.format in FORMATS, f"--format must be one of {', '.join(FORMATS)}", self.format)
        if self.probabilities and self.format == "audacity":
            raise UsageError("--probabilities needs --format csv: label files have no columns for them")

    @property
    def step(self) -> float:
        """Distance between the starts of windows in seconds."""
        return self.window if self.hop is None else self.hop


class RecordingsResult(TypedDict):
    """Result of `predict_recordings`."""

    command: str
    run: str
    out: str
    recordings: int
    windows: int
    rows: int
    bad: list[QuarantineEntry]  # files that cannot be used, with the reasons
    audio_seconds: float
    seconds: float
    times_real_time: float


def predict_recordings(
    run: Path | str,
    audio: Path | str,
    out: Path | str,
    options: WindowOptions,
    device: str = "auto",
    max_bad_fraction: float = 0.05,
) -> RecordingsResult:
    """Classify windows of recordings and write one row per window.

    Each window is classified as a clip of its length. Memory does not grow with the length of a recording.
    Files that cannot be used, or that are shorter than a window, are reported in messages and have no rows.

    Args:
        run: Run folder.
        audio: Folder of recordings, or one recording.
        out: CSV file with the columns `path`, `start`, `end`, `class`, `probability`; for the format
            "audacity" a label file, or a folder of label files if `audio` is a folder.
        options: Length of the windows and format of the rows.
        device: "auto", "cpu" or "cuda".
        max_bad_fraction: Largest accepted fraction of files that cannot be used.

    Raises:
        UsageError: The input does not exist, has no recordings, or does not fit the run; or the only
            recording is shorter than a window.
        TooManyBadInputs: The fraction of files that cannot be used exceeds `max_bad_fraction`. The others are
            written.
    """
    path, out = Path(audio), Path(out)
    if is_url(audio) or (path / MANIFEST).exists():
        raise UsageError(
            f"--window needs a recording or a folder of recordings, got {audio}: remove the option"
        )
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a folder of audio or an audio file")
    classifier = AudioClassifier(
        checkpoint.load(Path(run) / checkpoint.NAME), device, calibration.temperature(Path(run))
    )
    classes = classifier.trained.classes
    folder, names = (path, audio_files(path)) if path.is_dir() else (path.parent, [path.name])
    if not names:
        raise UsageError(f"no audio files in {path}: give a folder of audio")
    file = (
        CsvFile(out, classes, options.probabilities)
        if options.format == "csv"
        else AudacityFiles(out, classes, path.is_dir())
    )
    counts = _Counts()
    bad: list[QuarantineEntry] = []
    begin = time.perf_counter()
    with file:
        for name in names:
            intervals = _intervals(folder / name, name, classifier, options, counts)
            try:
                counts.rows += file.write(name, merged(intervals) if options.merge else intervals)
            except BadAudio as error:
                if not path.is_dir():
                    raise UsageError(f"{path}: {error}") from None
                bad.append({"path": name, "reason": str(error)})
                say(f"not used: {one_line(name)}: {one_line(str(error))}")
    seconds = time.perf_counter() - begin
    if len(bad) > max_bad_fraction * len(names):
        raise TooManyBadInputs(
            f"{out} is written, but {len(bad)} of {len(names)} files could not be used: "
            "see the messages above"
        )
    return {
        "command": "predict",
        "run": str(run),
        "out": str(out),
        "recordings": len(names) - len(bad),
        "windows": counts.windows,
        "rows": counts.rows,
        "bad": bad,
        "audio_seconds": counts.seconds,
        "seconds": seconds,
        "times_real_time": counts.seconds / seconds,
    }


def summary(result: RecordingsResult) -> str:
    """Return the result of `predict_recordings` as one line of text."""
    return (
        f"{result['rows']} rows of {result['windows']} windows of {duration(result['audio_seconds'])} "
        f"of audio, in {duration(result['seconds'])} ({result['times_real_time']:.0f} x real time), "
        f"written to {result['out']}"
    )


@dataclasses.dataclass
class _Counts:
    """Number of windows and seconds of audio of the recordings so far."""

    windows: int = 0
    rows: int = 0
    seconds: float = 0.0


def _intervals(
    path: Path, name: str, classifier: AudioClassifier, options: WindowOptions, counts: _Counts
) -> Iterator[Interval]:
    """Classify the windows of a recording; raise BadAudio if it is damaged or shorter than a window."""
    rate = classifier.config.sample_rate
    defect, length, count = None, 0, 0

    def samples() -> Iterator[np.ndarray]:
        nonlocal defect, length
        with contextlib.ExitStack() as stack:
            progress: Any = None
            for block in decode_blocks(path, rate):
                progress = progress or stack.enter_context(
                    bar(desc=name, total=block.total, unit="s", unit_scale=True)
                )
                defect = block.defect or defect
                length += len(block.samples)
                yield block.samples
                progress.update(len(block.samples) / rate)

    parts = windows(samples(), rate, options.window, options.step, classifier.config.hop_length)
    size = max(1, round(SAMPLES / (options.window * rate)))
    while group := list(islice(parts, size)):
        probabilities = classifier([window.samples for window in group])
        count += len(group)
        for window, row in zip(group, probabilities, strict=True):
            yield Interval(window.start, window.end, row)
    if not count:
        raise BadAudio(
            f"it lasts {length / rate:.3g} s, less than --window {options.window:g}: "
            "give a shorter --window, or predict without the option"
        )
    if defect:
        say(f"{one_line(name)}: used up to its end, although {one_line(defect)}")
    counts.windows += count
    counts.seconds += length / rate
