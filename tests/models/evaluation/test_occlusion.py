"""Occlusion finds the group of features that a prediction depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from shardwave.models.evaluation.occlusion import feature_groups, input_groups, occlusion
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.shards.read.open_set import open_set
from tests.planted import write_planted


def test_features_are_grouped_by_what_they_measure() -> None:
    groups = feature_groups(feature_names(SpectrogramConfig(features=True)))
    assert {name: len(places) for name, places in groups.items()} == {
        "mfcc": 100, "chroma": 60, "spectral_centroid": 5, "spectral_bandwidth": 5, "spectral_contrast": 35,
        "spectral_rolloff": 5, "zero_crossing_rate": 5,
    }  # fmt: skip
    assert sorted(sum(groups.values(), [])) == list(range(215))
    assert feature_groups(["x1", "x2"]) == {"x1": [0], "x2": [1]}, "one group of all would show nothing"


def test_embeddings_are_groups_of_their_own(tmp_path: Path) -> None:
    shard_set = open_set(write_planted(tmp_path / "set"))
    shard_set.fields["tiny.npy"] = {"dtype": "float32", "shape": [3]}
    assert input_groups(shard_set, "tiny.npy+features.npy") == {
        "tiny": [0, 1, 2],
        "mfcc": [3, 4, 5, 6],
        "hum": [7],
    }


def test_the_probability_is_that_with_the_mean_in_place_of_the_group() -> None:
    network = nn.Linear(3, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0]]))
        network.bias.zero_()
    values = torch.tensor([[1.0, 3.0, 5.0], [2.0, -1.0, 0.0]])
    mean = torch.tensor([0.5, 0.25, 9.0])
    groups = {"first": [0], "others": [1, 2]}
    found = occlusion(network, values, groups, 1, mean)
    assert found["first"] == pytest.approx(torch.tensor([0.5 + 6, 0.5 - 2]).sigmoid().mean().item())
    assert found["others"] == pytest.approx(torch.tensor([1 + 0.5, 2 + 0.5]).sigmoid().mean().item())
