"""Devices of the batches of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.shards.read.resident import Resident

CONFIG = defaults("mlp", epochs=1, hidden_size=4, val_fold=1, device="cpu")


def device_of(data: TrainingData) -> torch.device:
    source = data.train_batches(CONFIG).source
    assert isinstance(source, Resident)
    return source.tensors["features.npy"].device


def test_another_device_gets_its_own_copy(folded: Path) -> None:
    """PyTorch's device "meta" stands for the GPU of a second process."""
    data = TrainingData(folded, CONFIG)
    assert device_of(data) == torch.device("cpu")
    data.use_device(torch.device("meta"))
    assert device_of(data) == torch.device("meta")


def test_a_training_copies_the_set_to_the_device_of_its_process(
    folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first access to the data must know the device of the rank; it lay on cuda:0 in every process."""

    class Reached(Exception):
        pass

    def spy(self: TrainingData, *_: object) -> None:
        raise Reached(self.device)

    monkeypatch.setattr(SingleDeviceStrategy, "root_device", property(lambda self: torch.device("meta")))
    monkeypatch.setattr(TrainingData, "train_batches", spy)
    with pytest.raises(Reached) as caught:
        train(folded, CONFIG, tmp_path / "run")
    assert caught.value.args == (torch.device("meta"),)
