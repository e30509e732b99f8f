"""Prediction of the classes of audio files or of a shard set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from shardwave.common.errors import ShardwaveError, TooManyBadInputs, UsageError, require
from shardwave.common.messages import muted, say
from shardwave.common.printable import one_line
from shardwave.models.data.training_data import resolve_device
from shardwave.models.evaluation import calibration
from shardwave.models.evaluation.clip_csv import ClipRow, clip_rows, write_csv, write_predictions
from shardwave.models.evaluation.evaluate import as_trained, check_fits, open_views, predictions
from shardwave.models.evaluation.reliability import scaled
from shardwave.models.runs import checkpoint
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import MANIFEST, is_url
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.format.records import QuarantineEntry
from shardwave.shards.quarantine import quarantined
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import JOIN, ShardSet
from shardwave.shards.sources.class_folders import audio_files
from shardwave.shards.storage import scratch


class PredictSummary(TypedDict):
    """Return value of `predict`."""

    command: str
    run: str  # run folder
    out: str  # CSV file
    clips: int  # number of predicted clips
    rejected: int  # of them, with the class `unknown`
    bad: list[QuarantineEntry]  # files that cannot be used, with the reasons


def predict(
    run: Path | str,
    audio_or_set: Path | str,
    out_csv: Path | str,
    probabilities: bool = False,
    device: str = "auto",
    workers: int | None = None,
    max_bad_fraction: float = 0.05,
    splits: Sequence[str] | None = None,
    reject_below: float | None = None,
) -> PredictSummary:
    """Predict the classes of audio files or of the clips of a shard set, and write them to a CSV file.

    For audio the columns are `id` (path relative to the folder) and `class`. For a shard set they are `path`,
    `split`, `label` (empty if the clip is unlabelled), `class` and `probability`. The probabilities come from
    the view whose score selected the checkpoint. Audio is converted into a temporary shard set with the
    spectrogram settings of the run. Files that cannot be used are reported in messages and are not in the
    CSV.

    Args:
        run: Run folder.
        audio_or_set: Folder of audio, one audio file, or folder or URL of a shard set.
        out_csv: CSV file to write.
        probabilities: Whether to add one column of probabilities per class.
        device: "auto", "cpu" or "cuda".
        workers: Number of processes that read audio; one per core by default.
        max_bad_fraction: Largest accepted fraction of files that cannot be used.
        splits: Splits of the shard set to predict; all by default.
        reject_below: Write the class `unknown` for clips whose greatest probability is below this.

    Returns:
        A summary, without the predictions.

    Raises:
        TooManyBadInputs: The fraction of files that cannot be used exceeds `max_bad_fraction`. The CSV is
            written.
        UsageError: The input does not exist, has no audio, or does not fit the run.
    """
    require(
        reject_below is None or 0 <= reject_below <= 1, "reject_below must lie between 0 and 1", reject_below
    )
    out_csv = Path(out_csv)
    rows, bad, trained, is_set = predict_clips(
        run, audio_or_set, device=device, workers=workers, splits=splits
    )
    rejected = 0
    if reject_below is not None:
        rows = [row._replace(is_rejected=bool(row.probabilities.max() < reject_below)) for row in rows]
        rejected = sum(row.is_rejected for row in rows)
    if is_set:
        write_predictions(out_csv, rows, trained.classes, probabilities)
    else:
        extra = [row.formatted() if probabilities else [] for row in rows]
        cells = [
            [row.source.path, row.best(trained.classes), *columns]
            for row, columns in zip(rows, extra, strict=True)
        ]
        write_csv(out_csv, ("id", "class", *(trained.classes if probabilities else ())), cells)
    total = len(rows) + len(bad)
    if len(bad) > max_bad_fraction * total:
        raise TooManyBadInputs(
            f"{out_csv} is written, but {len(bad)} of {total} files could not be read: see the messages above"
        )
    return {
        "command": "predict",
        "run": str(run),
        "out": str(out_csv),
        "clips": len(rows),
        "rejected": rejected,
        "bad": bad,
    }


class PredictedClips(NamedTuple):
    """Predictions of clips, and the network that made them."""

    rows: list[ClipRow]  # sorted by path
    bad: list[QuarantineEntry]  # files that cannot be used, with the reasons
    trained: checkpoint.Trained
    is_set: bool  # whether the clips are those of a shard set


def predict_clips(
    run: Path | str,
    audio_or_set: Path | str,
    *,
    device: str = "auto",
    workers: int | None = None,
    splits: Sequence[str] | None = None,
) -> PredictedClips:
    """Predict a class for every clip of a folder of audio, an audio file or a shard set.

    Args:
        run: The run folder.
        audio_or_set: The folder, the file, or the folder or URL of the shard set.
        device: `auto`, `cpu` or `cuda`.
        workers: Number of processes that read audio; one per core by default.
        splits: Splits of a shard set to predict; by default all of them.

    Returns:
        The predictions, with the calibrated probabilities if the run has a calibration (see `calibration`).
        A message names each file that cannot be read.

    Raises:
        UsageError: There is no checkpoint, audio or shard set, or they do not fit together.
    """
    run, path = Path(run), Path(audio_or_set)
    trained = checkpoint.load(run / checkpoint.NAME)
    if not is_url(audio_or_set) and not path.exists():
        raise UsageError(f"{path} does not exist: give a folder of audio, an audio file or a shard set")
    if is_url(audio_or_set) or (path / MANIFEST).exists():
        rows = _calibrated(_predicted(trained, open_set(audio_or_set), splits, device), run)
        return PredictedClips(rows, [], trained, True)
    if splits:
        raise UsageError(f"--split {splits[0]}: {path} is audio, which has no splits; remove the option")
    if trained.spectrogram is None:
        raise UsageError(
            f"the run {run} was trained on a table of features: "
            f"give a shard set built with --table instead of {path}"
        )
    audio, files = (path, audio_files(path)) if path.is_dir() else (path.parent, [path.name])
    if not files:
        raise UsageError(f"no audio files in {path}: give a folder of audio")
    config = SpectrogramConfig(**trained.spectrogram).restricted(trained.field.split(JOIN))
    with scratch.folder() as folder:
        clips = [Clip(name) for name in files]  # unlabelled, even in folders that are named like classes
        options = BuildOptions(
            device=resolve_device(device).type,
            workers=workers,
            max_bad_fraction=1.0,
            min_shards=1,
            layout=VIEWS if trained.config.image_size is None else STRIP,
        )
        with muted():
            build(audio, folder / "set", config, options, clips)
        bad = quarantined(folder / "set")
        rows = _calibrated(_predicted(trained, open_set(folder / "set"), None, device), run)
    for entry in bad:
        say(f"quarantined: {one_line(entry['path'])}: {one_line(entry['reason'])}")
    return PredictedClips(rows, bad, trained, False)


def _calibrated(rows: list[ClipRow], run: Path) -> list[ClipRow]:
    temperature = calibration.temperature(run)
    if temperature == 1:
        return rows
    return [row._replace(probabilities=scaled(row.probabilities[None], temperature)[0]) for row in rows]


def _predicted(
    trained: checkpoint.Trained, shard_set: ShardSet, splits: Sequence[str] | None, device: str
) -> list[ClipRow]:
    """Predict the clips of `splits` (default: all) and return them sorted by path."""
    shard_set = as_trained(trained, shard_set)
    check_fits(trained, shard_set)
    resolved = resolve_device(device)
    view = SCORE_VIEWS[trained.selected]
    rows: list[ClipRow] = []
    for name in splits or shard_set.splits:
        views = open_views(shard_set, (name,), trained.field, resolved)
        if view not in views:
            raise ShardwaveError(
                f"split {name} of {shard_set.location} has no {view} view, "
                "whose score selected the epoch of the run: build the set with this view"
            )
        predicted = predictions(
            trained.network, views[view], trained.field, resolved, trained.config.precision
        )
        rows += clip_rows(predicted, views[view].view, name)
    return sorted(rows, key=lambda row: row.source.identity)
