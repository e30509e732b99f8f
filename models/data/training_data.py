"""What a training reads: a shard set opened once, its roles and statistics known, its batches; reused by many trainings."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.data.batches import Batches, source_of, whole_clips
from shardwave.models.data.splits import Roles, resolve
from shardwave.models.networks.base import Inputs, standardisation
from shardwave.models.networks.build import build_model
from shardwave.models.networks.registry import find
from shardwave.models.networks.vgg16 import Vgg16Backbone
from shardwave.models.training.config import TrainConfig, field_of
from shardwave.models.training.learner import VIEW_SCORES, Batch, Learner
from shardwave.shards.format.layout import located
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.resident import Resident
from shardwave.shards.read.shardset import ShardSet, View

_log = logging.getLogger(__name__)
STATISTICS_IMAGES = 512  # images that the mean and standard deviation are taken from, evenly spread over the training data


class TrainingData:
    """The shard set of `path` as `config` reads it: its model, folds, views, device and weights count, not its hyper-parameters.

    `path` may be a URL. `roles` overrides what config's folds give. Raises UsageError where set and configuration do not fit.
    """

    def __init__(self, path: Path | str, config: TrainConfig, roles: Roles | None = None) -> None:
        self.device = resolve_device(config.device)
        self.path, self.source = located(path), open_set(path)
        if len(self.source.classes) < 2:
            raise UsageError(f"{path} is unlabelled: training needs a set built from labelled audio")
        self.set = self.source
        self.frozen: Vgg16Backbone | None = None
        self.backbone_cost: dict[str, Any] | None = None
        if config.model == "vgg16":
            from shardwave.models.networks import backbone

            backbone.check_set(self.source, config)
            self.frozen = backbone.load(config.weights)
            self.set, self.backbone_cost = backbone.derived_set(self.source, self.frozen, config.precision, self.device)
        self.field = field_of(config)
        shape = field_shape(self.set, config)
        self.roles = roles or resolve(self.set.splits, config.val_fold, config.test_fold)
        self.train_view, self.selected = self._choose_views(config)
        self.train = self.set.view(self.roles.train, self.train_view)
        if not len(self.train):
            raise UsageError(f"{path}: split {', '.join(self.roles.train)} has no samples to train on")
        if self.train.cls.min() < 0:
            raise UsageError(
                f"{path}: {int((self.train.cls < 0).sum())} training samples have no label: build the set with labels for them"
            )
        self.val = self._evaluation(self.roles.val)
        mean, std = self._statistics(shape)
        self.inputs = Inputs(self.field, shape, len(self.set.classes), mean, std)
        self._sources: dict[int, View | Resident] = {}  # by view: copied to the device once
        _log.info(
            "%s: %d samples (%s) of %s to train on, validation on %s, selected by %s, on %s",
            *(path, len(self.train), self.train_view, ", ".join(self.roles.train), ", ".join(self.roles.val)),
            *(self.selected, self.device),
        )

    @property
    def spectrogram(self) -> dict[str, Any] | None:
        """The spectrogram's parameters, as a dictionary; None for a set that was not made from audio by them alone."""
        return None if self.source.config is None else dataclasses.asdict(self.source.config)

    def train_batches(self, config: TrainConfig, rank: int = 0, world_size: int = 1) -> Batches:
        """Shuffled batches of the training view: config.batch_size over all ranks, in the order of config.seed and the epoch."""
        if config.batch_size % world_size:
            raise UsageError(f"batch_size must be a multiple of the {world_size} devices of all nodes, got {config.batch_size}")
        whole = whole_clips(self.set, self.roles.train) if self.train_view == "both" else None
        return self._batches(self.train, config.batch_size // world_size, rank, world_size, seed=config.seed, whole=whole)

    def val_batches(self, rank: int = 0, world_size: int = 1) -> list[Batches]:
        """Batches of each of the validation views, in order, every sample once."""
        return [self.evaluation_batches(view, rank, world_size) for view in self.val.values()]

    def evaluation_batches(self, view: View, rank: int = 0, world_size: int = 1) -> Batches:
        return self._batches(view, evaluation_size(self.inputs.shape), rank, world_size)

    def _batches(self, view: View, batch_size: int, rank: int, world_size: int, **options: Any) -> Batches:
        source = self._sources.get(id(view))
        if source is None:
            source = self._sources[id(view)] = source_of(view, self.device, self.field)
            copied = f"copied to {self.device}" if isinstance(source, Resident) else "gathered from the shards' pages"
            _log.info("%d samples are %s", len(view), copied)
        pin = self.device.type == "cuda"
        return Batches(view, source, self.field, batch_size, rank=rank, world_size=world_size, pin=pin, **options)

    @functools.cached_property
    def test(self) -> dict[str, View]:
        """The held-out views, opened when they are first asked for; empty where nothing is held out."""
        return self._evaluation(self.roles.test)

    def test_batches(self) -> dict[str, Batches]:
        """Batches of the held-out views by view; empty where nothing is held out."""
        return {name: self.evaluation_batches(view) for name, view in self.test.items()}

    def learner(self, config: TrainConfig, steps_per_epoch: int) -> Learner:
        """A fresh model for one training, its weights drawn from config.seed."""
        network = build_model(config, self.inputs)
        return Learner(config, network, self.field, steps_per_epoch, self.train_view, tuple(self.val), self.selected)

    def to_device(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def _choose_views(self, config: TrainConfig) -> tuple[str, str]:
        sliced = all(self._has(name, "slice") for name in (*self.roles.train, *self.roles.val, *self.roles.test))
        train_view = config.train_view if config.train_view != "auto" else (find(config.model).train_view if sliced else "full")
        if train_view != "full" and not sliced:
            raise UsageError(
                f"train_view {train_view}: the shard set has no slices; use --train-view full, or build it with --slices"
            )
        selected = config.select_by if config.select_by != "auto" else ("full" if train_view == "full" else "slice_mean")
        if selected == "slice_mean" and not sliced:
            raise UsageError("select_by slice_mean: the shard set has no slices; use --select-by full, or build it with --slices")
        return train_view, selected

    def _has(self, split: str, view: str) -> bool:
        return bool(self.set.manifest["splits"].get(split, {}).get(view))

    def _evaluation(self, splits: tuple[str, ...]) -> dict[str, View]:
        """Both views of the splits, where they exist; a split without samples is named."""
        views = {
            view: self.set.view(splits, view) for view in VIEW_SCORES if splits and all(self._has(name, view) for name in splits)
        }
        if splits and not any(len(view) and (view.cls >= 0).any() for view in views.values()):
            raise UsageError(f"{self.path}: split {', '.join(splits)} has no labelled samples to score")
        return views

    def _statistics(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        if len(shape) == 1 and self.field == "npy":  # a frozen network's outputs are used as they are
            return torch.zeros(1), torch.ones(1)
        if len(shape) == 1:
            values = torch.from_numpy(self.train.gather(np.arange(len(self.train)), (self.field,))[self.field]).double()
            if not bool(torch.isfinite(values).all()):
                raise ShardwaveError(
                    f"{self.path}: the features hold values that are no numbers: correct the table, or build the set again"
                )
            mean, std = standardisation(values)
            return mean.float(), std.float()
        chosen = np.unique(np.linspace(0, len(self.train) - 1, min(len(self.train), STATISTICS_IMAGES)).astype(np.int64))
        levels = torch.from_numpy(self.train.gather(chosen, (self.field,))[self.field])
        counts = torch.bincount(levels.flatten().int(), minlength=256).double()  # exact, whatever the number of threads
        level = torch.arange(256, dtype=torch.float64)
        mean = (counts * level).sum() / counts.sum()
        std = ((counts * (level - mean) ** 2).sum() / counts.sum()).sqrt().clamp(min=1.0)
        return mean.float().reshape(1), std.float().reshape(1)


def evaluation_size(shape: tuple[int, ...]) -> int:
    """Samples per batch where no gradient is kept: about 4 million values, 8 to 1024 samples."""
    return max(8, min(1024, (1 << 22) // math.prod(shape)))


def field_shape(shard_set: ShardSet, config: TrainConfig) -> tuple[int, ...]:
    """Return the shape of a sample as the model takes it; raises UsageError if the set lacks its field."""
    field = field_of(config)
    if field not in shard_set.fields:
        has = ", ".join(name for name in shard_set.fields if name.endswith("npy"))
        remedy = "build it with --features, or from a --table" if field == "features.npy" else "build it from audio"
        raise UsageError(f"model {config.model} needs field {field}, the shard set {shard_set.location} has {has}: {remedy}")
    return tuple(shard_set.fields[field]["shape"])


def resolve_device(device: str) -> torch.device:
    """The device that an option names; raises UsageError where it is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: PyTorch sees no CUDA device here; use --device cpu or auto")
    there = device != "cpu" and torch.cuda.is_available()
    if device == "auto":
        why = torch.cuda.get_device_name() if there else f"cpu, PyTorch {torch.__version__} sees no CUDA device"
        _log.info("device auto: %s", why)
    return torch.device("cuda" if there else "cpu")
