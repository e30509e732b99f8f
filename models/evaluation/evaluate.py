"""Scores of a trained network on a shard set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import evaluation_size, field_shape, resolve_device
from shardwave.models.evaluation import clip_csv
from shardwave.models.evaluation.metrics import ClipPredictions, PredictionAccumulator, add_scores
from shardwave.models.runs import checkpoint, clip_table
from shardwave.models.runs.clip_table import config_differences, some
from shardwave.models.training.learner import SCORE_VIEWS, VIEW_SCORES
from shardwave.models.training.precision import DTYPES, autocast
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import is_url
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet

KINDS = {"train": "trained", "val": "validation", "test": "test"}  # by what a run used a split for; others are "new"


class Scored(NamedTuple):
    scores: dict[str, float]  # {split}_{score}_{accuracy,recall,f1}
    per_class: dict[str, Any]
    confusion: dict[str, Any]
    predictions: dict[str, ClipPredictions]  # by view, unlabelled clips included


def predictions(network: nn.Module, batches: Batches, field: str, device: torch.device, precision: str) -> ClipPredictions:
    """Mean probabilities of each clip over its samples in `batches`, unlabelled clips included (label -1)."""
    network = network.to(device, DTYPES[precision]).eval()
    seen = PredictionAccumulator()
    with torch.inference_mode(), autocast(precision, device):
        for batch in batches:
            moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            seen.add(network(moved[field]), moved)
    return seen.by_clip(labelled=False, alone=True)


def score(
    network: nn.Module, views: Mapping[str, Batches], split: str, field: str, device: torch.device, precision: str
) -> Scored:
    """Both scores of `views` ("full", "slice"), named after `split`; clips without a label are passed over."""
    return _scored({view: predictions(network, batches, field, device, precision) for view, batches in views.items()}, split)


def _scored(found: dict[str, ClipPredictions], split: str) -> Scored:
    values: dict[str, Any] = {"per_class": {}, "confusion": {}}
    for view, clips in found.items():
        known = clips.label >= 0
        add_scores(values, f"{split}_{VIEW_SCORES[view]}", ClipPredictions(*(column[known] for column in clips)))
    per_class, confusion = values.pop("per_class"), values.pop("confusion")
    return Scored(values, per_class, confusion, found)


def evaluate(
    run: Path | str,
    set_path: Path | str,
    splits: Sequence[str] | None = None,
    device: str = "auto",
    errors: Path | str | None = None,
) -> dict[str, Any]:
    """Score the run's checkpoint on a shard set, split by split.

    Each split is marked by what the run used its clips for: `trained`, `validation`, `test`, `new`, or `mixed`, where only some
    of its clips were trained on. Splits of the set that the run was started on are known by name, clips of other sets by content
    (exact copies, see `shardwave.models.runs.clip_table`); `unknown` where the run folder lacks its table of clips. A total over all splits,
    named `all`, is given only where all of them are of one kind.

    Args:
        run: The run folder.
        set_path: The set's folder or URL.
        splits: The splits to score; all of the set's by default.
        device: `auto`, `cpu` or `cuda`.
        errors: The CSV file to write the wrongly classified clips into, without those that were trained on; by default
            `errors-<name of the set>.csv` in the run folder.

    Returns:
        scores, per_class and confusion by split, and `splits`: {split: {kind, clips, trained}}, `trained` being the number of
        clips that were trained on, None where unknown.

    Raises:
        UsageError: The set's settings, classes or fields are not those that the run was trained with.
    """
    run = Path(run)
    trained = checkpoint.load(run / checkpoint.NAME)
    shard_set = open_set(set_path)
    check_fits(trained, shard_set)
    if list(shard_set.classes) != trained.classes:
        raise UsageError(
            f"classes differ: the run knows {some(trained.classes)}, the set {set_path} has {some(shard_set.classes)}"
        )
    names = tuple(splits or shard_set.splits)
    where = resolve_device(device)
    found: dict[str, Scored] = {}
    rows: list[clip_csv.ClipRow] = []
    known = _KnownClips(run, trained, shard_set)
    kinds: dict[str, dict[str, Any]] = {}
    for name in names:
        views = open_views(shard_set, (name,), trained.field, where)
        if not any((batches.view.cls >= 0).any() for batches in views.values()):
            raise UsageError(f"{set_path}: split {name} has no labelled samples to score")
        found[name] = score(trained.network, views, name, trained.field, where, trained.config.precision)
        kinds[name], seen = known.describe(name)
        view = SCORE_VIEWS[trained.selected]
        if view in views or (view := "full") in views:
            clips = clip_csv.clip_rows(found[name].predictions[view], views[view].view, name)
            rows += [row for row in clips if row.clip not in seen]
    one_kind = {about["kind"] for about in kinds.values()}
    if len(names) > 1 and len(one_kind) == 1 and not one_kind & {"mixed", "unknown"}:
        found["all"] = _scored(_joined([found[name].predictions for name in names]), "all")
    place = Path(errors) if errors is not None else run / f"errors-{_set_name(set_path)}.csv"
    try:
        clip_csv.write_errors(place, clip_csv.wrong(rows, trained.classes), trained.classes)
    except OSError as error:
        if errors is not None:
            raise
        say(f"{place} cannot be written ({error.strerror}): name another file with --errors")
    return {
        "command": "evaluate",
        "run": str(run),
        "set": str(set_path),
        "set_id": shard_set.set_id,
        "model": trained.config.model,
        "classes": trained.classes,
        "selected_by": trained.selected,
        "splits": kinds,
        **{
            name: {key: value for scored in found.values() for key, value in getattr(scored, name).items()}
            for name in ("scores", "per_class", "confusion")
        },
        "errors": str(place),
    }


class _KnownClips:
    """Tells which clips of a set a run was trained on."""

    def __init__(self, run: Path, trained: checkpoint.Trained, shard_set: ShardSet) -> None:
        self._set, self._field = shard_set, trained.field
        self._roles = {name: role for role, names in trained.splits.items() for name in names}
        self._same = shard_set.set_id == trained.set_id
        table = clip_table.read(run)
        self._trained = None if table is None else np.unique(table.of(trained.splits["train"]))

    def describe(self, split: str) -> tuple[dict[str, Any], set[int]]:
        """The split's kind and counts, and the numbers of the clips that were trained on."""
        numbers, digests = clip_table.digests(self._set, split, self._field)
        role = self._roles.get(split) if self._same else None
        if role == "train":
            seen = np.ones(len(numbers), bool)
        elif self._trained is None:
            about = {"kind": KINDS[role] if role else "new" if self._same else "unknown", "clips": len(numbers), "trained": None}
            return about, set()
        else:
            seen = np.isin(digests, self._trained)
        kind = KINDS[role] if role else "trained" if seen.all() else "mixed" if seen.any() else "new"
        about = {"kind": kind, "clips": len(numbers), "trained": int(seen.sum())}
        return about, set(numbers[seen].tolist())


def _joined(splits: Sequence[dict[str, ClipPredictions]]) -> dict[str, ClipPredictions]:
    """The predictions of several splits as one, for the views that all of them have."""
    views = [view for view in splits[0] if all(view in split for split in splits)]
    return {
        view: ClipPredictions(*(np.concatenate(column) for column in zip(*(split[view] for split in splits), strict=True)))
        for view in views
    }


def _set_name(set_path: Path | str) -> str:
    return str(set_path).rstrip("/").rsplit("/", 1)[-1] if is_url(set_path) else Path(set_path).resolve().name


def open_views(shard_set: ShardSet, splits: tuple[str, ...], field: str, device: torch.device) -> dict[str, Batches]:
    """Batches of each view that all the splits have."""
    manifest, views = shard_set.manifest["splits"], {}
    for view in VIEW_SCORES:
        if all(manifest.get(name, {}).get(view) for name in splits):
            found = shard_set.view(splits, view)
            shape = tuple(shard_set.fields[field]["shape"])
            views[view] = Batches(found, found, field, evaluation_size(shape), pin=device.type == "cuda")
    if not views:
        raise UsageError(f"{shard_set.location}: no samples in split {', '.join(splits)}; it has {', '.join(shard_set.splits)}")
    return views


def check_fits(trained: checkpoint.Trained, shard_set: ShardSet) -> None:
    """Raise UsageError unless the set holds the field that the network takes, made with the same settings.

    Settings that this field does not depend on may differ: `features` for images, the images' size for features.
    """
    field_shape(shard_set, trained.config)
    if trained.fingerprint != manifest.fingerprint(trained.set_config):
        raise UsageError(f"the run was trained on a set of another format than {shard_set.location} has: train it again")
    different = config_differences(trained.set_config, shard_set.manifest["config"], trained.field)
    if different:
        told = "; ".join(f"{name} is {_short(before)} in the run, {_short(now)} in the set" for name, before, now in different)
        raise UsageError(f"{shard_set.location} was not made as the run's set was: {told}; build it with the run's settings")


def _short(value: Any) -> str:
    return some([str(each) for each in value]) if isinstance(value, list) else str(value)
