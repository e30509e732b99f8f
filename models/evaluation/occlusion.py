"""Occlusion of groups of features (Zeiler & Fergus 2014): which of them a prediction depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from shardwave.models.training.numerics import fixed_numerics
from shardwave.shards.read.shardset import JOIN, ShardSet

_STATISTIC = re.compile(r"_(mean|std|var|min|median|max)$")


def feature_groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Group features whose names differ by a number, a pitch or a statistic.

    For example, `mfcc` is the group of `mfcc1_mean` and `mfcc20_max`.

    Args:
        names: Names of the features.

    Returns:
        Indices of the features by group. Each feature is its own group if all would be in one.
    """
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        base = _STATISTIC.sub("", name)
        base = "chroma" if base.startswith("chroma_") else base.rstrip("0123456789") or base
        groups.setdefault(base, []).append(i)
    return groups if len(groups) > 1 else {name: [i] for i, name in enumerate(names)}


def input_groups(shard_set: ShardSet, field: str) -> dict[str, list[int]]:
    """Return the groups of the inputs of a network on vectors: groups of features, and whole embeddings.

    Args:
        shard_set: Set of the run.
        field: Vector field, or several fields joined by `+`.

    Returns:
        Indices of the inputs by group.
    """
    groups: dict[str, list[int]] = {}
    first = 0
    for part in field.split(JOIN):
        width = shard_set.fields[part]["shape"][0]
        if part == "features.npy" and len(shard_set.feature_names) == width:
            for name, places in feature_groups(shard_set.feature_names).items():
                groups[name] = [first + i for i in places]
        else:
            groups[part.removesuffix(".npy")] = list(range(first, first + width))
        first += width
    return groups


@fixed_numerics()
def occlusion(
    network: nn.Module, values: Tensor, groups: Mapping[str, Sequence[int]], cls: int, mean: Tensor
) -> dict[str, float]:
    """Compute the probability of a class with each group of inputs replaced by its mean.

    Args:
        network: Maps float32 [samples, inputs] to logits [samples, classes]; in evaluation mode, on the CPU.
        values: Samples of one clip, float32 [samples, inputs].
        groups: Indices of the inputs by group.
        cls: Index of the class.
        mean: Means of the training data, float32 [inputs].

    Returns:
        The probability, averaged over the samples, by group.
    """
    occluded = []
    for places in groups.values():
        index = torch.as_tensor(np.asarray(places, np.int64))
        occluded.append(values.index_copy(1, index, mean[index].expand(len(values), -1)))
    with torch.inference_mode():
        probabilities = network(torch.cat(occluded)).float().softmax(1)[:, cls]
    means = probabilities.reshape(len(groups), len(values)).mean(1).tolist()
    return dict(zip(groups, means, strict=True))
