"""The compiled trainer against `shardwave.models.training.fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardwave.common.errors import ShardwaveError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.models.training.fit import fit
from shardwave.search.fused import mlp
from shardwave.search.objective import TrainingObjective, fusable
from shardwave.search.trial import TrialStopped


def config(**changes: Any) -> TrainConfig:
    """72 samples in batches of 10 leave a smaller last one."""
    common = {
        "val_fold": 1,
        "epochs": 4,
        "batch_size": 10,
        "precision": "64-true",
        "device": "cpu",
        "seed": 3,
    }
    return defaults(
        "mlp", **{**common, "schedule": "none", "label_smoothing": 0.0, "dropout": 0.0, **changes}
    )


PLAIN = {"hidden_size": 7, "learning_rate": 1e-3, "weight_decay": 0.0}
SMOOTHED = {"hidden_size": 12, "learning_rate": 3e-3, "weight_decay": 0.1, "label_smoothing": 0.1}
AVERAGED = {
    "hidden_size": 16,
    "learning_rate": 5e-3,
    "weight_decay": 1e-4,
    "ema_decay": 0.9,
    "schedule": "one-cycle",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a search's worker; for models this small, a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("hidden_layers", [0, 2])
@pytest.mark.parametrize("settings", [PLAIN, SMOOTHED, AVERAGED])
def test_equal_without_dropout(feature_set: Path, settings: dict[str, Any], hidden_layers: int) -> None:
    """In double precision, where rounding cannot hide a difference: the same losses, scores, best epoch
    and weights."""
    chosen = config(hidden_layers=hidden_layers, **settings)
    data = TrainingData(feature_set, chosen)
    expected, found = fit(data, chosen), mlp.fit(data, chosen)
    for one, other in zip(expected.history, found.history, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if isinstance(one[name], float):
                assert one[name] == pytest.approx(other[name], abs=1e-6 if "loss" in name else 1e-12), name
    assert found.best_epoch == expected.best_epoch and found.value == expected.value
    assert found.state_dict.keys() == expected.state_dict.keys()
    for name, value in expected.state_dict.items():
        torch.testing.assert_close(found.state_dict[name], value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("settings", [PLAIN, SMOOTHED, AVERAGED])
def test_single_precision_within_rounding(feature_set: Path, settings: dict[str, Any]) -> None:
    chosen = config(precision="32-true", epochs=2, **settings)
    data = TrainingData(feature_set, chosen)
    loss = mlp.fit(data, chosen).history[-1]["train_loss"]
    assert loss == pytest.approx(fit(data, chosen).history[-1]["train_loss"], abs=1e-4)


def test_equal_in_distribution_with_dropout(feature_set: Path) -> None:
    """The masks are drawn by another generator. Over 20 seeds, the mean difference is within three standard
    errors of zero.

    A seed fixes the first weights and the order of samples in both, so that the masks alone make the
    difference. Dropout of 0.45 instead of 0.5 fails by a wide margin, as the last line shows.
    """

    def outcomes(train: Any, dropout: float) -> np.ndarray:
        rows = []
        for seed in range(20):
            result = train(data, dataclasses.replace(chosen, seed=seed, dropout=dropout))
            weights = torch.cat(
                [value.flatten() for name, value in result.state_dict.items() if name.startswith("body")]
            )
            losses = [entry["train_loss"] for entry in result.history]
            rows.append([losses[0], losses[-1], float(np.mean(losses)), float(weights.norm())])
        return np.array(rows)

    def deviation(differences: np.ndarray) -> np.ndarray:
        return np.abs(differences.mean(0)) / (differences.std(0, ddof=1) / len(differences) ** 0.5)

    chosen = config(hidden_size=32, learning_rate=1e-2, batch_size=8, epochs=10)
    data = TrainingData(feature_set, chosen)
    expected = outcomes(fit, 0.5)
    assert deviation(outcomes(mlp.fit, 0.5) - expected).max() < 3
    assert deviation(outcomes(mlp.fit, 0.45) - expected).max() > 4


def test_the_seed_decides_and_the_report_stops(feature_set: Path) -> None:
    chosen = config(dropout=0.5)
    data = TrainingData(feature_set, chosen)
    whole = mlp.fit(data, chosen)
    assert (
        mlp.fit(data, chosen).history
        == whole.history
        != mlp.fit(data, dataclasses.replace(chosen, seed=4)).history
    )
    assert mlp.fit(data, dataclasses.replace(chosen, stop_after=3)).history == whole.history[:3]
    assert mlp.fit(data, chosen, report=lambda epoch, value, scores: epoch == 2).history == whole.history[:2]


def test_a_nan_loss_raises(feature_set: Path) -> None:
    chosen = config(precision="32-true", learning_rate=1e30)
    with pytest.raises(ShardwaveError, match="training loss became"):
        mlp.fit(TrainingData(feature_set, chosen), chosen)


class Report:
    """Stops trial 4 after its second epoch."""

    def __init__(self, trial: int) -> None:
        self.trial, self.info, self.values = trial, dict[str, Any](), list[float]()

    def __call__(self, epoch: int, value: float, spent: Any = None) -> None:
        self.values.append(value)
        assert epoch == len(self.values)
        if self.trial == 4 and epoch == 2:
            raise TrialStopped


@pytest.mark.parametrize("fused", [True, False])
def test_the_objective_keeps_the_best_trial_even_if_it_was_stopped(
    feature_set: Path, tmp_path: Path, fused: bool
) -> None:
    objective = TrainingObjective(
        feature_set, defaults("mlp", val_fold=1, epochs=3, device="cpu"), tmp_path, fused
    )
    params = {"hidden_size": 32, "hidden_layers": 2, "batch_size": 4, "learning_rate": 1e-2, "dropout": 0.0}
    stopped, other = Report(4), Report(7)
    with pytest.raises(TrialStopped):
        objective(params, stopped)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["trial-4.ckpt", "trial-4.json"]
    objective(params | {"learning_rate": 1e-9}, other)  # learns nothing
    assert max(other.values) < max(stopped.values) and len(stopped.values) == 2 and len(other.values) == 3
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["trial-4.ckpt", "trial-4.json"]
    assert stopped.info["parameters"] == 5 * 32 + 32 + 32 * 32 + 32 + 32 * 3 + 3
    best = stopped.info["best_epoch"]
    assert (
        stopped.values[best - 1] == max(stopped.values) == stopped.info["scores"]["val_slice_mean_accuracy"]
    )


def test_supported_settings_are_fused() -> None:
    assert fusable(defaults("mlp")) and fusable(defaults("vgg16"))
    assert not fusable(defaults("cnn")) and not fusable(defaults("mlp", mixup=0.2))
    assert not fusable(defaults("mlp", train_view="both")) and not fusable(
        defaults("mlp", precision="bf16-mixed")
    )
