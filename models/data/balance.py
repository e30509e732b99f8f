"""Imbalance between classes: weights of the loss, and a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shardwave.common.messages import say
from shardwave.models.training.config import TrainConfig
from shardwave.shards.read.shardset import ShardSet

if TYPE_CHECKING:
    import torch

SMALL = 0.2  # of the mean number of clips per class


def class_weights(cls: np.ndarray, classes: int) -> torch.Tensor:
    """Return weights inversely proportional to the number of samples, float32 [classes].

    Their mean over the samples is 1, as in scikit-learn's `class_weight="balanced"`. A class without samples
    has the weight 0.

    Args:
        cls: Class index of each training sample.
        classes: Number of classes.
    """
    import torch  # not needed by the main process of a search

    counts = np.bincount(cls, minlength=classes)
    present = counts > 0
    weights = np.where(present, len(cls) / (present.sum() * np.maximum(counts, 1)), 0)
    return torch.from_numpy(weights.astype(np.float32))


def warn_of_imbalance(shard_set: ShardSet, config: TrainConfig) -> None:
    """Print the smallest class if it has less than `SMALL` of the mean and the classes are not balanced."""
    if config.class_weights != "none" or config.balanced_sampler:
        return
    cls = shard_set.view(shard_set.splits, "full").cls
    counts = np.bincount(cls[cls >= 0], minlength=len(shard_set.classes))
    if len(counts) and counts.min() < SMALL * counts.mean():
        name, count = shard_set.classes[int(counts.argmin())], int(counts.min())
        advice = "--class-weights balanced or --balanced-sampler, and --select-metric balanced_accuracy"
        say(f"class {name!r} has {count} clips, the mean is {counts.mean():.0f}: consider {advice}")
