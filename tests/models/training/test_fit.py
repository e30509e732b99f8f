"""The lean loop gives what Lightning's Trainer gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.runs import checkpoint
from shardwave.models.training.config import defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.train import train

SMALL = {
    "epochs": 3,
    "batch_size": 8,
    "hidden_size": 16,
    "conv1_kernel": 3,
    "conv2_kernel": 3,
    "conv1_channels": 4,
    "conv2_channels": 4,
}
REGULARISED = {
    "mixup": 0.3,
    "time_shift": True,
    "frequency_mask": 0.2,
    "time_mask": 0.2,
    "ema_decay": 0.9,
    "schedule": "one-cycle",
}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("mlp", {}),
        ("cnn", {"train_view": "full"}),
        ("cnn-plus", REGULARISED),
        ("cnn", {"train_view": "both", "precision": "bf16-mixed"}),
    ],
)
def test_equal_history_and_weights_for_the_same_seed(
    folded: Path, tmp_path: Path, model: str, options: dict[str, Any]
) -> None:
    config = defaults(model, **{**SMALL, **options, "val_fold": 1, "device": "cpu", "seed": 5})
    found = fit(TrainingData(folded, config), config)
    result = train(folded, config, tmp_path / "run")
    assert found.history == result["history"]
    assert found.best_epoch == result["best_epoch"]
    assert found.value == result["scores"][f"val_{result['selected_by']}_accuracy"]
    kept = checkpoint.read(tmp_path / "run" / "checkpoint.ckpt")["state_dict"]
    assert kept.keys() == found.state_dict.keys()
    for name, value in kept.items():
        assert torch.equal(value, found.state_dict[name]), name


def test_training_data_is_reusable_and_the_seed_determines_the_result(folded: Path) -> None:
    config = defaults("mlp", **SMALL, val_fold=2, device="cpu")
    data = TrainingData(folded, config)
    first = fit(data, config)
    other = fit(data, dataclasses.replace(config, seed=1))
    wider = fit(data, dataclasses.replace(config, hidden_size=24, batch_size=16, learning_rate=1e-2))
    again = fit(data, config)
    assert first.history == again.history
    assert first.history != other.history
    assert wider.state_dict["body.0.weight"].shape == (24, 6)


def test_report_gets_every_epoch_and_may_stop_the_trial(folded: Path) -> None:
    class Stop(Exception):
        pass

    seen: list[tuple[int, float]] = []

    def report(epoch: int, value: float, scores: dict[str, Any]) -> None:
        seen.append((epoch, value))
        assert value == scores["val_slice_mean_accuracy"]
        assert (
            scores["seconds"]["step"] > 0 and 0 < scores["seconds"]["validation"] < scores["seconds"]["total"]
        )
        if epoch == 2:
            raise Stop

    config = defaults("mlp", **SMALL, val_fold=1, device="cpu")
    with pytest.raises(Stop):
        fit(TrainingData(folded, config), config, report=report)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert (
        len(fit(TrainingData(folded, config), config, report=lambda epoch, value, scores: epoch == 2).history)
        == 2
    )


def test_it_learns_and_retraining_stops_after_the_given_epoch(folded: Path) -> None:
    config = defaults("cnn", **SMALL | {"epochs": 8, "learning_rate": 3e-3}, val_fold=1, device="cpu")
    data = TrainingData(folded, config)
    assert fit(data, config).value > 0.8
    stopped = fit(data, dataclasses.replace(config, stop_after=2))
    assert len(stopped.history) == 2


def test_a_nan_loss_raises_one_line(folded: Path, make_set: Callable[..., Path]) -> None:
    config = defaults("mlp", **SMALL | {"learning_rate": 1e38}, val_fold=1, device="cpu")
    with pytest.raises(ShardwaveError, match="loss became nan in epoch 1: lower --learning-rate"):
        fit(TrainingData(folded, config), config)


def test_trials_refuse_unsupported_settings(folded: Path) -> None:
    config = defaults("mlp", **SMALL, val_fold=1, device="cpu")
    data = TrainingData(folded, config)
    with pytest.raises(UsageError, match="precision of a trial must be one of 32-true"):
        fit(data, dataclasses.replace(config, precision="16-mixed"))
    with pytest.raises(UsageError, match="one device, got --devices 2"):
        fit(data, dataclasses.replace(config, devices=2))
