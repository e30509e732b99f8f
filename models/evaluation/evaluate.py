"""Evaluation of trained networks on shard sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import evaluation_size, field_shape, resolve_device
from shardwave.models.evaluation import calibration, clip_csv
from shardwave.models.evaluation.metrics import ClipPredictions, PredictionAccumulator, ScoreSet, add_scores
from shardwave.models.runs import checkpoint, clip_table
from shardwave.models.runs.clip_table import config_differences, name_list
from shardwave.models.runs.records import ClassScores, Evaluation, Matrix, Scores, SplitKind, SplitKnowledge
from shardwave.models.training.learner import SCORE_VIEWS, VIEW_SCORES
from shardwave.models.training.numerics import fixed_numerics
from shardwave.models.training.precision import DTYPES, autocast, resolve
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import is_url
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet

T = TypeVar("T")
# Kind of a split by its role in the run; splits without a role are "new"
KINDS: dict[str, SplitKind] = {"train": "trained", "val": "validation", "test": "test"}


CONFIDENT_ERRORS = 10  # that are returned


class SplitScores(NamedTuple):
    """Scores and predictions of one split."""

    scores: Scores  # {split}_{score}_{accuracy,recall,f1}
    per_class: dict[str, ClassScores]  # by split and score, for example "test_full"
    confusion: dict[str, Matrix]  # by split and score
    predictions: dict[str, ClipPredictions]  # by view, unlabelled clips included


@fixed_numerics()
def predictions(
    network: nn.Module, batches: Batches, field: str, device: torch.device, precision: str
) -> ClipPredictions:
    """Predict the class probabilities of each clip, averaged over its samples.

    Args:
        network: Maps the raw field to logits [batch, classes]; it is moved to `device` and put in evaluation
            mode.
        batches: Batches of one view.
        field: Array field of the samples that the network takes.
        device: Device on which the network runs.
        precision: Name of Lightning's precision, or "auto".

    Returns:
        One row per clip, including unlabelled clips (label -1).
    """
    precision = resolve(precision, device)
    network = network.to(device, DTYPES[precision]).eval()
    accumulator = PredictionAccumulator()
    with torch.inference_mode(), autocast(precision, device):
        for batch in batches:
            moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            accumulator.add(network(moved[field]), moved)
    return accumulator.by_clip(labelled=False, local=True)


def score(
    network: nn.Module,
    views: Mapping[str, Batches],
    split: str,
    field: str,
    device: torch.device,
    precision: str,
) -> SplitScores:
    """Score a network on the views of one split; unlabelled clips are ignored.

    Args:
        network: As for `predictions`.
        views: Batches by view ("full", "slice").
        split: Prefix of the names of the scores.
        field: As for `predictions`.
        device: As for `predictions`.
        precision: As for `predictions`.

    Returns:
        The scores and the predictions of each view, the latter with unlabelled clips.
    """
    return _scored(
        {view: predictions(network, batches, field, device, precision) for view, batches in views.items()},
        split,
    )


def _scored(predicted: dict[str, ClipPredictions], split: str) -> SplitScores:
    values = ScoreSet()
    for view, clips in predicted.items():
        labelled = clips.label >= 0
        add_scores(
            values, f"{split}_{VIEW_SCORES[view]}", ClipPredictions(*(column[labelled] for column in clips))
        )
    return SplitScores(values.scores, values.per_class, values.confusion, predicted)


def evaluate(
    run: Path | str,
    set_path: Path | str,
    splits: Sequence[str] | None = None,
    device: str = "auto",
    errors: Path | str | None = None,
    calibrate: bool = False,
) -> Evaluation:
    """Score the checkpoint of a run on each split of a shard set.

    The kind of a split states how the run used its clips: "trained", "validation", "test", "new", "mixed"
    (some of the clips were trained on) or "unknown" (the run folder has no table of clips). In the set that
    the run was trained on, the name of the split determines its kind. In another set, the content of the
    clips determines it: a clip counts as trained on if it is an exact copy of a training clip (see
    `shardwave.models.runs.clip_table`). If all splits have the same kind, scores of all clips together are
    added under the name "all".

    Args:
        run: Run folder.
        set_path: Folder or URL of the set.
        splits: Splits to score; all splits of the set by default.
        device: "auto", "cpu" or "cuda".
        errors: CSV file for the misclassified clips that were not trained on; by default
            `errors-<name of the set>.csv` in the run folder.
        calibrate: Whether to fit a temperature to the clips of validation and new splits, and to write it to
            calibration.json in the run folder; `predict` then uses it.

    Returns:
        `scores`, `per_class` and `confusion` by name, and `splits`: {split: {kind, clips, trained}}.
        `trained` is the number of clips that were trained on, or None if it is unknown. `confident_errors`
        lists the most confident errors, as in the CSV file; `calibration` is the content of calibration.json.

    Raises:
        UsageError: The spectrogram settings, classes or fields of the set differ from those of the training,
            or a split has no labelled samples.
    """
    run = Path(run)
    trained = checkpoint.load(run / checkpoint.NAME)
    shard_set = as_trained(trained, open_set(set_path))
    check_fits(trained, shard_set)
    if list(shard_set.classes) != trained.classes:
        raise UsageError(
            f"classes differ: the run has {name_list(trained.classes)}, "
            f"{set_path} has {name_list(shard_set.classes)}: use a set with the same classes"
        )
    names = tuple(splits or shard_set.splits)
    torch_device = resolve_device(device)
    scored: dict[str, SplitScores] = {}
    rows: list[clip_csv.ClipRow] = []
    known = _KnownClips(run, trained, shard_set)
    kinds: dict[str, SplitKnowledge] = {}
    for name in names:
        views = open_views(shard_set, (name,), trained.field, torch_device)
        if not any((batches.view.cls >= 0).any() for batches in views.values()):
            raise UsageError(f"{set_path}: split {name} has no labelled samples to score")
        scored[name] = score(
            trained.network, views, name, trained.field, torch_device, trained.config.precision
        )
        kinds[name], trained_clips = known.describe(name)
        view = SCORE_VIEWS[trained.selected]
        if view in views or (view := "full") in views:
            clips = clip_csv.clip_rows(scored[name].predictions[view], views[view].view, name)
            rows += [row for row in clips if row.clip not in trained_clips]
    distinct = {entry["kind"] for entry in kinds.values()}
    if len(names) > 1 and len(distinct) == 1 and not distinct & {"mixed", "unknown"}:
        scored["all"] = _scored(_joined([scored[name].predictions for name in names]), "all")
    wrong = clip_csv.misclassified(rows, trained.classes)
    fitted = None
    if calibrate:
        unused = [row for row in rows if kinds[row.split]["kind"] in ("validation", "new")]
        fitted = calibration.calibrate(unused, trained.classes, shard_set.set_id)
        calibration.write(run, fitted)
    errors_path = Path(errors) if errors is not None else run / f"errors-{_set_name(set_path)}.csv"
    try:
        clip_csv.write_errors(errors_path, wrong, trained.classes)
    except OSError as error:
        if errors is not None:
            raise
        say(f"{errors_path} cannot be written ({error.strerror}): choose another file with --errors")
    return {
        "command": "evaluate",
        "run": str(run),
        "set": str(set_path),
        "set_id": shard_set.set_id,
        "model": trained.config.model,
        "classes": trained.classes,
        "selected_by": trained.selected,
        "splits": kinds,
        "scores": _merged(result.scores for result in scored.values()),
        "per_class": _merged(result.per_class for result in scored.values()),
        "confusion": _merged(result.confusion for result in scored.values()),
        "errors": str(errors_path),
        "confident_errors": [
            {
                "path": row.source.name,
                "split": row.split,
                "label": row.label,
                "class": row.best(trained.classes),
                "probability": float(row.probabilities.max()),
            }
            for row in wrong[:CONFIDENT_ERRORS]
        ],
        "calibration": None if fitted is None else dict(fitted),
    }


def _merged(parts: Iterable[dict[str, T]]) -> dict[str, T]:
    return {name: value for part in parts for name, value in part.items()}


class _KnownClips:
    """Identify the clips of a set that a run was trained on."""

    def __init__(self, run: Path, trained: checkpoint.Trained, shard_set: ShardSet) -> None:
        self._set, self._field = shard_set, trained.field
        self._roles = {name: role for role, names in trained.splits.items() for name in names}
        self._same = shard_set.set_id == trained.set_id
        table = clip_table.read(run)
        self._trained = None if table is None else np.unique(table.digests_of(trained.splits["train"]))
        # images of a set of views differ from the strip of the same clip
        self._incomparable = (
            table is not None and table.is_strip != shard_set.is_strip and trained.field == "npy"
        )

    def describe(self, split: str) -> tuple[SplitKnowledge, set[int]]:
        """Return the kind and counts of a split, and the numbers of its clips that were trained on."""
        numbers, digests = clip_table.digests(self._set, split, self._field)
        role = self._roles.get(split) if self._same else None
        if role == "train":
            is_trained = np.ones(len(numbers), bool)
        elif self._trained is None or self._incomparable:
            unread: SplitKind = "new" if self._same else "unknown"
            return {"kind": KINDS.get(role or "", unread), "clips": len(numbers), "trained": None}, set()
        else:
            is_trained = np.isin(digests, self._trained)
        by_content: SplitKind = "trained" if is_trained.all() else "mixed" if is_trained.any() else "new"
        entry: SplitKnowledge = {
            "kind": KINDS.get(role or "", by_content),
            "clips": len(numbers),
            "trained": int(is_trained.sum()),
        }
        return entry, set(numbers[is_trained].tolist())


def _joined(splits: Sequence[dict[str, ClipPredictions]]) -> dict[str, ClipPredictions]:
    """Concatenate the predictions of several splits, for the views that all of them have."""
    views = [view for view in splits[0] if all(view in split for split in splits)]
    return {
        view: ClipPredictions(
            *(np.concatenate(column) for column in zip(*(split[view] for split in splits), strict=True))
        )
        for view in views
    }


def _set_name(set_path: Path | str) -> str:
    return str(set_path).rstrip("/").rsplit("/", 1)[-1] if is_url(set_path) else Path(set_path).resolve().name


def open_views(
    shard_set: ShardSet, splits: tuple[str, ...], field: str, device: torch.device
) -> dict[str, Batches]:
    """Open batches of each view that all given splits have.

    Args:
        shard_set: Set to read.
        splits: Names of the splits, which are read one after another.
        field: Array field of the samples.
        device: Device that the batches will be moved to; for a GPU they are in page-locked memory.

    Returns:
        Batches by view ("full", "slice"), in the order of the shards.

    Raises:
        UsageError: The splits have no view in common.
    """
    views = {}
    for view in VIEW_SCORES:
        if all(view in shard_set.views_of(name) for name in splits):
            samples = shard_set.view(splits, view)
            shape = tuple(shard_set.field(field)["shape"])
            views[view] = Batches(samples, samples, field, evaluation_size(shape), pin=device.type == "cuda")
    if not views:
        raise UsageError(
            f"{shard_set.location}: no samples in split {', '.join(splits)}; "
            f"it has {', '.join(shard_set.splits)}"
        )
    return views


def as_trained(trained: checkpoint.Trained, shard_set: ShardSet) -> ShardSet:
    """Return the set with the slices and the image width of a training if it is a set of strips."""
    settings, built = trained.set_config or {}, shard_set.built_config
    if not shard_set.is_strip or trained.spectrogram is None or built is None:
        return shard_set
    width, slices, seconds = trained.config.image_size, settings.get("slices"), settings.get("slice_seconds")
    overlap = settings.get("slice_overlap")
    is_same = (built.slices, built.slice_seconds, built.slice_overlap) == (slices, seconds, overlap)
    if is_same or overlap:  # no reader chooses an overlap: `check_fits` names the difference
        return shard_set.with_views(image_size=width)
    return shard_set.with_views(slices if seconds is None else None, seconds, width)


def check_fits(trained: checkpoint.Trained, shard_set: ShardSet) -> None:
    """Raise UsageError if a set does not fit a trained network.

    The set must have the field that the network takes, computed with the settings of the training set.
    Settings that do not affect this field may differ, for example `image_size` if the network takes features.
    """
    field_shape(shard_set, trained.config)
    if trained.fingerprint != manifest.fingerprint(trained.set_config):
        raise UsageError(
            f"the run was trained on a set of another format than {shard_set.location}: train again"
        )
    width = trained.config.image_size
    if width is not None and "npy" in shard_set.fields and shard_set.fields["npy"]["shape"][-1] != width:
        raise UsageError(
            f"the run was trained on images of {width} columns, and {shard_set.location} has finished "
            "images: build it with --layout strip"
        )
    different = config_differences(trained.set_config, shard_set.manifest["config"], trained.field)
    if different:
        listed = "; ".join(
            f"{name} is {_short(before)} in the run, {_short(now)} in the set"
            for name, before, now in different
        )
        raise UsageError(
            f"the settings of {shard_set.location} differ from those of the run: {listed}; "
            "build the set with the settings of the run"
        )


def _short(value: object) -> str:
    return name_list([str(each) for each in value]) if isinstance(value, list) else str(value)
