"""Data of trainings on a shard set: roles of splits, views, statistics and batches."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.data.balance import class_weights
from shardwave.models.data.batches import Batches, source_of
from shardwave.models.data.shared_copy import CopyKey, key_of
from shardwave.models.data.splits import Roles, resolve
from shardwave.models.networks.base import Inputs, standardisation
from shardwave.models.networks.build import build_model
from shardwave.models.networks.image_backbone import ImageBackbone
from shardwave.models.networks.registry import find
from shardwave.models.runs.records import BackboneCost, SelectedScore, Settings
from shardwave.models.training.config import TrainConfig, backbone_of, field_of
from shardwave.models.training.learner import VIEW_SCORES, Batch, Learner
from shardwave.models.training.precision import resolve as resolve_precision
from shardwave.shards.format.layout import located
from shardwave.shards.read.loader import Source
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.resident import Resident
from shardwave.shards.read.resident_strips import ResidentStrips
from shardwave.shards.read.shardset import JOIN, ShardSet, View
from shardwave.shards.read.strip_view import StripView

_log = logging.getLogger(__name__)
# Number of images, evenly spread over the training data, from which mean and standard deviation are computed
STATISTICS_IMAGES = 512


class TrainingData:
    """Open a shard set for training.

    An object can be used for several trainings that differ in hyper-parameters only. For vgg16 and transfer
    it also opens, or computes, the derived set of the outputs of the frozen part.

    Args:
        path: Folder or URL of the set.
        config: Training settings; model, folds, views, device, precision and weights are used.
        roles: Roles of the splits; by default they follow from the folds of `config`.
        shared: Returns the tensors of a resident copy that another process holds, or None if the samples are
            to be read from the shards. By default, this object makes its own copies.

    Raises:
        UsageError: The set does not fit the settings, for example because it lacks the field or the view of
            the model.
        ShardwaveError: The features are not finite, or the weights of the frozen network are not available.
    """

    def __init__(
        self,
        path: Path | str,
        config: TrainConfig,
        roles: Roles | None = None,
        shared: Callable[[CopyKey], Batch | None] | None = None,
    ) -> None:
        self._shared = shared
        self.device = resolve_device(config.device)
        self.path = located(path)
        self.source = open_set(path).with_views(config.slices, config.slice_seconds, config.image_size)
        if config.random_slices and not self.source.is_strip:
            raise UsageError(
                f"random_slices cuts other slices in each epoch, and {path} has finished images: build it "
                "with --layout strip"
            )
        if len(self.source.classes) < 2:
            raise UsageError(f"{path} has fewer than two classes: build the set from labelled audio")
        self.set = self.source
        self.frozen: ImageBackbone | None = None
        self.backbone_cost: BackboneCost | None = None
        name = backbone_of(config)
        if name is not None:
            from shardwave.models.networks import backbone

            backbone.check_set(self.source, config)
            self.frozen = backbone.load(name, config.weights)
            self.set, self.backbone_cost = backbone.derived_set(
                self.source, self.frozen, resolve_precision(config.precision, self.device), self.device
            )
        self.field = field_of(config)
        shape = field_shape(self.set, config)
        self.roles = roles or resolve(self.set.splits, config.val_fold, config.test_fold)
        self.train_view, self.selected = self._choose_views(config)
        self.train = self.set.view(self.roles.train, self.train_view)
        if not len(self.train):
            raise UsageError(
                f"{path}: split {', '.join(self.roles.train)} has no samples to train on: build the set again"
            )
        if self.train.cls.min() < 0:
            raise UsageError(
                f"{path}: {int((self.train.cls < 0).sum())} training samples have no label: "
                "build the set with labels for them"
            )
        self.val = self._evaluation(self.roles.val)
        mean, std = self._statistics(shape)
        self.inputs = Inputs(self.field, shape, len(self.set.classes), mean, std)
        # By id of the view, and whether its frames change from epoch to epoch
        self._sources: dict[tuple[int, bool], View | Source] = {}
        _log.info(
            "%s: training on %d samples (%s) of %s, validation on %s, selected by %s, device %s",
            *(path, len(self.train), self.train_view, ", ".join(self.roles.train), ", ".join(self.roles.val)),
            *(self.selected, self.device),
        )

    @property
    def spectrogram(self) -> Settings | None:
        """Fields of `SpectrogramConfig` of the set; None if the set was not built from audio alone."""
        return None if self.source.config is None else dataclasses.asdict(self.source.config)

    def train_batches(self, config: TrainConfig, rank: int = 0, world_size: int = 1) -> Batches:
        """Return shuffled batches of the training view.

        Args:
            config: Training settings; `batch_size` is the sum over all ranks, and the sample order depends on
                `seed` and the epoch only.
            rank: Index of this process.
            world_size: Number of processes.

        Raises:
            UsageError: `batch_size` is not a multiple of `world_size`.
        """
        if config.batch_size % world_size:
            raise UsageError(
                f"batch_size must be a multiple of the {world_size} devices of all nodes, "
                f"got {config.batch_size}"
            )
        is_full = self.train.is_full if self.train_view == "both" else None
        size = config.batch_size // world_size
        balance = self.train.cls if config.balanced_sampler else None
        spans = None
        if config.random_slices:
            if self.train_view == "full":
                raise UsageError(
                    "random_slices needs slices to train on: use it with --train-view slice or both"
                )
            assert isinstance(self.train, StripView)
            spans = functools.partial(self.train.random_spans, config.seed, stretch=config.stretch)
        return self._batches(
            self.train,
            size,
            rank,
            world_size,
            seed=config.seed,
            is_full=is_full,
            balance=balance,
            spans=spans,
        )

    def val_batches(self, rank: int = 0, world_size: int = 1) -> list[Batches]:
        """Return batches of each validation view, with each sample once, in the order of the shards."""
        return [self.evaluation_batches(view, rank, world_size) for view in self.val.values()]

    def evaluation_batches(self, view: View, rank: int = 0, world_size: int = 1) -> Batches:
        """Return batches of a view, with each sample once, in the order of the shards.

        Args:
            view: View to read.
            rank: Index of this process.
            world_size: Number of processes that share the samples.

        Returns:
            Batches of about 4 million values (see `evaluation_size`).
        """
        return self._batches(view, evaluation_size(self.inputs.shape), rank, world_size)

    def _batches(self, view: View, batch_size: int, rank: int, world_size: int, **options: Any) -> Batches:
        redrawn = options.get("spans") is not None
        source = self._sources.get((id(view), redrawn))
        if source is None:
            source = self._sources[id(view), redrawn] = self._source(view, redrawn)
            location = "read from the shards" if isinstance(source, View) else f"copied to {self.device}"
            _log.info("%d samples are %s", len(view), location)
        pin = self.device.type == "cuda"
        return Batches(
            view, source, self.field, batch_size, rank=rank, world_size=world_size, pin=pin, **options
        )

    def _source(self, view: View, redrawn: bool) -> View | Source:
        if self._shared is None or (isinstance(view, StripView) and self.field != "npy"):
            return source_of(view, self.device, self.field, redrawn=redrawn)
        tensors = self._shared(key_of(view, self.field))
        if tensors is None:
            return view
        if isinstance(view, StripView):
            return ResidentStrips(view, self.device, tensors["npy"])
        return Resident.from_tensors(tensors)

    @functools.cached_property
    def test(self) -> dict[str, View]:
        """Test views by name ("full", "slice"), opened on first access; empty without a test split."""
        return self._evaluation(self.roles.test)

    def test_batches(self) -> dict[str, Batches]:
        """Return batches of the test views by view; empty without a test split."""
        return {name: self.evaluation_batches(view) for name, view in self.test.items()}

    def use_device(self, device: torch.device) -> None:
        """Set the device of all further batches, and drop the copies of views on another device.

        If several processes train together, Lightning assigns a GPU to each of them.
        """
        if device != self.device:
            self.device = device
            self._sources.clear()

    def learner(self, config: TrainConfig, steps_per_epoch: int) -> Learner:
        """Create a Learner for one training, with initial weights drawn from `config.seed`."""
        network = build_model(config, self.inputs)
        weights = (
            class_weights(self.train.cls, self.inputs.classes) if config.class_weights == "balanced" else None
        )
        floor_db = None if self.source.config is None or self.field != "npy" else self.source.config.floor_db
        if floor_db is None and self.inputs.images and (config.mix_powers or config.random_gain):
            raise UsageError(
                f"mix_powers and random_gain need spectrograms, whose levels are in dB: {self.path} was not "
                "built from audio"
            )
        return Learner(
            config,
            network,
            self.field,
            steps_per_epoch,
            self.train_view,
            tuple(self.val),
            self.selected,
            weights,
            floor_db,
        )

    def to_device(self, batch: Batch) -> Batch:
        """Move the tensors of a batch to the device of the training."""
        if self.device.type == "cpu":
            return batch
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def _choose_views(self, config: TrainConfig) -> tuple[str, SelectedScore]:
        """Return the training view and the score that selects the epoch."""
        sliced = all(
            self._has(name, "slice") for name in (*self.roles.train, *self.roles.val, *self.roles.test)
        )
        train_view = (
            config.train_view
            if config.train_view != "auto"
            else (find(config.model).train_view if sliced else "full")
        )
        if train_view != "full" and not sliced:
            raise UsageError(
                f"train_view {train_view}: the shard set has no slices: "
                "use --train-view full, or build it with --slices"
            )
        use_full = config.select_by == "full" or (config.select_by == "auto" and train_view == "full")
        selected: SelectedScore = "full" if use_full else "slice_mean"
        if selected == "slice_mean" and not sliced:
            raise UsageError(
                "select_by slice_mean: the shard set has no slices: "
                "use --select-by full, or build it with --slices"
            )
        return train_view, selected

    def _has(self, split: str, view: str) -> bool:
        return view in self.set.views_of(split)

    def _evaluation(self, splits: tuple[str, ...]) -> dict[str, View]:
        """Return the views that all given splits have; raise UsageError if they have no labelled samples."""
        views = {
            view: self.set.view(splits, view)
            for view in VIEW_SCORES
            if splits and all(self._has(name, view) for name in splits)
        }
        if splits and not any(len(view) and (view.cls >= 0).any() for view in views.values()):
            raise UsageError(
                f"{self.path}: split {', '.join(splits)} has no labelled samples to score: "
                "build it with labels"
            )
        return views

    def _statistics(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the mean and the standard deviation of the training data, as `Inputs` holds them."""
        if len(shape) == 1 and self.field == "npy":  # outputs of a frozen network are not standardised
            return torch.zeros(1), torch.ones(1)
        if len(shape) == 1:
            values = torch.from_numpy(
                self.train.gather(np.arange(len(self.train)), (self.field,))[self.field]
            ).double()
            if not bool(torch.isfinite(values).all()):
                raise ShardwaveError(
                    f"{self.path}: the features have NaN or infinite values: "
                    "correct the table, or build the set again"
                )
            mean, std = standardisation(values)
            return mean.float(), std.float()
        chosen = np.unique(
            np.linspace(0, len(self.train) - 1, min(len(self.train), STATISTICS_IMAGES)).astype(np.int64)
        )
        levels = torch.from_numpy(self.train.gather(chosen, (self.field,))[self.field])
        counts = torch.bincount(
            levels.flatten().int(), minlength=256
        ).double()  # exact for any number of threads
        level = torch.arange(256, dtype=torch.float64)
        mean = (counts * level).sum() / counts.sum()
        std = ((counts * (level - mean) ** 2).sum() / counts.sum()).sqrt().clamp(min=1.0)
        return mean.float().reshape(1), std.float().reshape(1)


def evaluation_size(shape: tuple[int, ...]) -> int:
    """Return the batch size for evaluation: about 4 million values, 8 to 1024 samples.

    Args:
        shape: Shape of one sample.
    """
    return max(8, min(1024, (1 << 22) // math.prod(shape)))


def field_shape(shard_set: ShardSet, config: TrainConfig) -> tuple[int, ...]:
    """Return the shape of one sample of the model's field; raise UsageError if the set lacks the field."""
    field = field_of(config)
    lacking = [part for part in field.split(JOIN) if part not in shard_set.fields]
    if lacking:
        name = lacking[0].removesuffix(".npy")
        available = ", ".join(name for name in shard_set.fields if name.endswith("npy"))
        remedy = (
            "build it with --features, or from a --table"
            if lacking[0] == "features.npy"
            else "build it from audio"
            if lacking[0] == "npy"
            else f"build it with --embed {name}, or add the field with shardwave embed --with {name}"
        )
        raise UsageError(
            f"model {config.model} needs field {lacking[0]}, {shard_set.location} has {available}: {remedy}"
        )
    return tuple(shard_set.field(field)["shape"])


def resolve_device(device: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raise UsageError for "cuda" if there is none.

    "auto" selects "cuda" if PyTorch sees a CUDA device, otherwise "cpu".
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: PyTorch sees no CUDA device: use --device cpu or auto")
    use_cuda = device != "cpu" and torch.cuda.is_available()
    if device == "auto":
        choice = (
            torch.cuda.get_device_name()
            if use_cuda
            else f"cpu, PyTorch {torch.__version__} sees no CUDA device"
        )
        _log.info("device auto: %s", choice)
    return torch.device("cuda" if use_cuda else "cpu")
