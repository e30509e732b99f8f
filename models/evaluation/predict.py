"""Classes of audio or of a shard set as CSV: `id,class` for audio (the report's Kaggle submission), a row per clip for a set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shardwave.common.errors import ShardwaveError, TooManyBadInputs, UsageError
from shardwave.common.messages import muted, say
from shardwave.common.printable import one_line
from shardwave.models.data.training_data import resolve_device
from shardwave.models.evaluation.clip_csv import ClipRow, clip_rows, write_csv, write_predictions
from shardwave.models.evaluation.evaluate import check_fits, open_views, predictions
from shardwave.models.runs import checkpoint
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import MANIFEST, is_url
from shardwave.shards.format.records import QuarantineEntry
from shardwave.shards.quarantine import quarantined
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet
from shardwave.shards.sources.class_folders import audio_files
from shardwave.shards.storage import scratch


def predict(
    run: Path | str,
    audio_or_set: Path | str,
    out_csv: Path | str,
    probabilities: bool = False,
    device: str = "auto",
    workers: int | None = None,
    max_bad_fraction: float = 0.05,
    splits: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Predict a class for every clip of a folder of audio (or one file), or of a shard set, with the run's checkpoint.

    The CSV has the columns id,class for audio, id being the path relative to the folder, and path,split,label,class,probability
    for a shard set, the label being empty where a clip has none. Probabilities are those of the score that the run was selected
    by. Audio passes through the spectrogram that the run was trained on, in a temporary shard set; files that cannot be read are
    named and left out.

    Args:
        run: The run folder.
        audio_or_set: A folder of audio or one file; or a folder that holds a shard set, or a set's URL.
        out_csv: The CSV file to write.
        probabilities: Add one column per class.
        device: `auto`, `cpu` or `cuda`.
        workers: Processes that read audio; one per core by default.
        max_bad_fraction: The fraction of files that may be unreadable.
        splits: The splits of a shard set to predict; all of them by default.

    Raises:
        TooManyBadInputs: More than `max_bad_fraction` of the files could not be read; the CSV is written.
    """
    out_csv = Path(out_csv)
    rows, bad, trained, is_set = predict_clips(run, audio_or_set, device=device, workers=workers, splits=splits)
    if is_set:
        write_predictions(out_csv, rows, trained.classes, probabilities)
    else:
        extra = [row.formatted() if probabilities else [] for row in rows]
        cells = [[row.source.path, row.best(trained.classes), *columns] for row, columns in zip(rows, extra, strict=True)]
        write_csv(out_csv, ("id", "class", *(trained.classes if probabilities else ())), cells)
    total = len(rows) + len(bad)
    if len(bad) > max_bad_fraction * total:
        raise TooManyBadInputs(f"{out_csv} is written, but {len(bad)} of {total} files could not be read: see the lines above")
    return {"command": "predict", "run": str(run), "out": str(out_csv), "clips": len(rows), "bad": bad}


class ClipPredictions(NamedTuple):
    """Predictions of clips."""

    rows: list[ClipRow]  # sorted by path
    bad: list[QuarantineEntry]  # files that could not be used, with their reasons; a message names each
    trained: checkpoint.Trained
    is_set: bool  # whether the clips are those of a shard set


def predict_clips(
    run: Path | str,
    audio_or_set: Path | str,
    *,
    device: str = "auto",
    workers: int | None = None,
    splits: Sequence[str] | None = None,
) -> ClipPredictions:
    """Predict the clips of a folder of audio, of one file or of a shard set. The arguments are those of `predict`."""
    run, path = Path(run), Path(audio_or_set)
    trained = checkpoint.load(run / checkpoint.NAME)
    if not is_url(audio_or_set) and not path.exists():
        raise UsageError(f"{path} does not exist: name a folder of audio, a file, or a shard set")
    if is_url(audio_or_set) or (path / MANIFEST).exists():
        return ClipPredictions(_predicted(trained, open_set(audio_or_set), splits, device), [], trained, True)
    if splits:
        raise UsageError(f"--split {splits[0]}: {path} is audio, and only a shard set has splits; leave the option out")
    if trained.spectrogram is None:
        raise UsageError(
            f"the run {run} was trained on a table of features: give a shard set made by `shard --table`, not {path}"
        )
    audio, files = (path, audio_files(path)) if path.is_dir() else (path.parent, [path.name])
    if not files:
        raise UsageError(f"no audio files in {path}: give the folder that holds them")
    config = dataclasses.replace(SpectrogramConfig(**trained.spectrogram), features=trained.field == "features.npy")
    with scratch.folder() as folder:  # of a killed process it is removed by the next one
        clips = [Clip(name) for name in files]  # unlabelled, whatever folder they lie in
        options = BuildOptions(device=resolve_device(device).type, workers=workers, max_bad_fraction=1.0, min_shards=1)
        with muted():
            build(audio, folder / "set", config, options, clips)
        bad = quarantined(folder / "set")
        rows = _predicted(trained, open_set(folder / "set"), None, device)
    for entry in bad:
        say(f"left out: {one_line(entry['path'])}: {one_line(entry['reason'])}")
    return ClipPredictions(rows, bad, trained, False)


def _predicted(trained: checkpoint.Trained, shard_set: ShardSet, splits: Sequence[str] | None, device: str) -> list[ClipRow]:
    """The clips of these splits (default: all) with their probabilities, sorted by path."""
    check_fits(trained, shard_set)
    where = resolve_device(device)
    view = SCORE_VIEWS[trained.selected]
    rows: list[ClipRow] = []
    for name in splits or shard_set.splits:
        views = open_views(shard_set, (name,), trained.field, where)
        if view not in views:
            raise ShardwaveError(f"{shard_set.location} has no {view} view in split {name}, by which the run was selected")
        found = predictions(trained.network, views[view], trained.field, where, trained.config.precision)
        rows += clip_rows(found, views[view].view, name)
    return sorted(rows, key=lambda row: row.source.identity)
