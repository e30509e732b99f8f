"""Scores of a trained network on a shard set."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from models import checkpoint
from models.batches import Batches
from models.data import evaluation_size, field_shape, resolve_device
from models.learner import VIEW_SCORES, add_scores
from models.scores import ClipPredictions
from models.seen import Seen
from preprocess.errors import UsageError
from shards.shardset import ShardSet

_DTYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Scored(NamedTuple):
    scores: dict[str, float]  # {partition}_{score}_{accuracy,recall,f1}
    per_class: dict[str, Any]
    confusion: dict[str, Any]


def predictions(network: nn.Module, batches: Batches, field: str, device: torch.device, precision: str) -> ClipPredictions:
    """Mean probabilities of each clip over its samples in `batches`, unlabelled clips included (label -1)."""
    network = network.to(device, _DTYPES.get(precision, torch.float32)).eval()
    autocast = torch.autocast(device.type, _AUTOCAST[precision]) if precision in _AUTOCAST else contextlib.nullcontext()
    seen = Seen()
    with torch.inference_mode(), autocast:
        for batch in batches:
            moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            seen.add(network(moved[field]), moved)
    return seen.by_clip(labelled=False)


def score(
    network: nn.Module, views: Mapping[str, Batches], partition: str, field: str, device: torch.device, precision: str
) -> Scored:
    """Both scores of `views` ("full", "slice"), named after `partition`; clips without a label are passed over."""
    values: dict[str, Any] = {"per_class": {}, "confusion": {}}
    for view, batches in views.items():
        found = predictions(network, batches, field, device, precision)
        known = found.label >= 0
        add_scores(values, f"{partition}_{VIEW_SCORES[view]}", ClipPredictions(*(column[known] for column in found)))
    per_class, confusion = values.pop("per_class"), values.pop("confusion")
    return Scored(values, per_class, confusion)


def evaluate(
    run: Path | str, set_path: Path | str, partitions: tuple[str, ...] | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Scores of the run's checkpoint on partitions of a shard set (all of them by default), by partition and together ("all").

    Raises UsageError where the set's fingerprint, classes or fields are not those that the run was trained with.
    """
    trained = checkpoint.load(Path(run) / checkpoint.NAME)
    shard_set = ShardSet.open(set_path)
    check_fits(trained, shard_set)
    if list(shard_set.classes) != trained.classes:
        raise UsageError(
            f"classes differ: the run knows {_some(trained.classes)}, the set {set_path} has {_some(shard_set.classes)}"
        )
    names = partitions or tuple(shard_set.partitions)
    where, result = resolve_device(device), {}
    groups = {name: (name,) for name in names} | ({"all": names} if len(names) > 1 else {})
    for name, group in groups.items():
        views = open_views(shard_set, group, trained.field, where)
        if not any((batches.view.cls >= 0).any() for batches in views.values()):
            raise UsageError(f"{set_path}: partition {name} has no labelled samples to score")
        result[name] = score(trained.network, views, name, trained.field, where, trained.config.precision)
    return {
        "command": "evaluate",
        "run": str(run),
        "set": str(set_path),
        "model": trained.config.model,
        "classes": trained.classes,
        "selected_by": trained.selected,
        "scores": {key: value for scored in result.values() for key, value in scored.scores.items()},
        "per_class": {key: value for scored in result.values() for key, value in scored.per_class.items()},
        "confusion": {key: value for scored in result.values() for key, value in scored.confusion.items()},
    }


def open_views(shard_set: ShardSet, partitions: tuple[str, ...], field: str, device: torch.device) -> dict[str, Batches]:
    """Batches of each view that all the partitions have."""
    manifest, views = shard_set.manifest["partitions"], {}
    for view in VIEW_SCORES:
        if all(manifest.get(name, {}).get(view) for name in partitions):
            found = shard_set.view(partitions, view)
            shape = tuple(shard_set.fields[field]["shape"])
            views[view] = Batches(found, found, field, evaluation_size(shape), pin=device.type == "cuda")
    if not views:
        raise UsageError(
            f"{shard_set.location}: no samples in partition {', '.join(partitions)}; it has {', '.join(shard_set.partitions)}"
        )
    return views


def check_fits(trained: checkpoint.Trained, shard_set: ShardSet) -> None:
    """The set holds what the network takes, made the same way."""
    field_shape(shard_set, trained.config.model)
    if shard_set.fingerprint != trained.fingerprint:
        raise UsageError(
            f"fingerprints differ: the run was trained on {trained.fingerprint}, {shard_set.location} has {shard_set.fingerprint}"
            f"{_difference(trained.spectrogram, shard_set.manifest['config'])}"
        )


def _difference(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    for name in sorted((one or {}).keys() | (other or {}).keys()):
        before, after = (one or {}).get(name), (other or {}).get(name)
        if before != after:
            return f" ({name} {before} there, {after} here)"
    return ""


def _some(classes: list[str]) -> str:
    shown = ", ".join(classes[:5])
    return f"{len(classes)} ({shown}{', ...' if len(classes) > 5 else ''})"
