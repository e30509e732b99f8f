"""Classes of unlabelled audio as CSV (the report's Kaggle submission): `id,class`, id the path relative to the audio folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models import checkpoint
from models.data import resolve_device
from models.evaluate import check_fits, open_views, predictions
from models.learner import VIEW_SCORES
from preprocess.config import SpectrogramConfig
from preprocess.errors import ShardwaveError, TooManyBadInputs, UsageError
from preprocess.printable import one_line
from shards import scratch
from shards.atomic import write_bytes
from shards.build import build
from shards.build_options import BuildOptions
from shards.clip import Clip
from shards.csv_text import csv_bytes
from shards.inspect import quarantined
from shards.layout import MANIFEST, is_url
from shards.progress import say, unsaid
from shards.shardset import ShardSet
from shards.sources.class_folders import audio_files


def predict(
    run: Path | str,
    audio_or_set: Path | str,
    out_csv: Path | str,
    probabilities: bool = False,
    device: str = "auto",
    workers: int | None = None,
    max_bad_fraction: float = 0.05,
) -> dict[str, Any]:
    """Predict a class for every clip of a folder of audio (or one file), or of a shard set, with the run's checkpoint.

    A shard set is a folder that holds one, or a URL.

    Audio passes through the spectrogram that the run was trained on, by a temporary shard set. The probabilities behind a class
    are those of the score that the run was selected by. Files that cannot be read are named and left out; raises
    TooManyBadInputs, after writing, where they are more than `max_bad_fraction`.
    """
    trained = checkpoint.load(Path(run) / checkpoint.NAME)
    path = Path(audio_or_set)
    if not is_url(audio_or_set) and not path.exists():
        raise UsageError(f"{path} does not exist: name a folder of audio, a file, or a shard set")
    if is_url(audio_or_set) or (path / MANIFEST).exists():
        count = _write(trained, ShardSet.open(audio_or_set), Path(out_csv), probabilities, device)
        return {"command": "predict", "run": str(run), "out": str(out_csv), "clips": count, "bad": []}
    if trained.spectrogram is None:
        raise UsageError(
            f"the run {run} was trained on a table of features: give a shard set made by `shard --table`, not {path}"
        )
    audio, files = (path, audio_files(path)) if path.is_dir() else (path.parent, [path.name])
    if not files:
        raise UsageError(f"no audio files in {path}: give the folder that holds them")
    with scratch.folder() as folder:  # of a killed process it is removed by the next one
        clips = [Clip(name) for name in files]  # unlabelled, whatever folder they lie in
        options = BuildOptions(device=resolve_device(device).type, workers=workers, max_bad_fraction=1.0, min_shards=1)
        with unsaid():
            build(audio, folder / "set", SpectrogramConfig(**trained.spectrogram), options, clips)
        bad = quarantined(folder / "set")
        count = _write(trained, ShardSet.open(folder / "set"), Path(out_csv), probabilities, device)
    for entry in bad:
        say(f"left out: {one_line(entry['path'])}: {one_line(entry['reason'])}")
    if len(bad) > max_bad_fraction * (count + len(bad)):
        raise TooManyBadInputs(
            f"{out_csv} is written, but {len(bad)} of {count + len(bad)} files could not be read: see the lines above"
        )
    return {"command": "predict", "run": str(run), "out": str(out_csv), "clips": count, "bad": bad}


def _write(trained: checkpoint.Trained, shard_set: ShardSet, out: Path, probabilities: bool, device: str) -> int:
    check_fits(trained, shard_set)
    rows = _probabilities(trained, shard_set, device)
    table = [["id", "class", *(trained.classes if probabilities else ())]]
    for path, chances in rows:
        extra = [f"{chance:.6f}" for chance in chances] if probabilities else []
        table.append([path, trained.classes[int(chances.argmax())], *extra])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, csv_bytes(table))
    return len(rows)


def _probabilities(trained: checkpoint.Trained, shard_set: ShardSet, device: str) -> list[tuple[str, np.ndarray]]:
    """Every clip's path and probabilities [classes] by the score that the run was selected by, sorted by path."""
    where = resolve_device(device)
    view = next(view for view, score in VIEW_SCORES.items() if score == trained.selected)
    views = open_views(shard_set, tuple(shard_set.partitions), trained.field, where)
    if view not in views:
        raise ShardwaveError(f"{shard_set.location} has no {view} view, by which the run was selected")
    batches = views[view]
    found = predictions(trained.network, batches, trained.field, where, trained.config.precision)
    _, first = np.unique(batches.view.clip, return_index=True)
    paths = [batches.view.meta(int(sample))["path"] for sample in first]
    return sorted(zip(paths, found.probabilities, strict=True), key=lambda row: row[0])
