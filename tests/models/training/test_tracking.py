"""Experiment trackers that write to a folder: TensorBoard, MLflow, Weights & Biases (offline) and CSV."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.runs import result
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train

OPTIONS = {"epochs": 2, "hidden_size": 8, "device": "cpu"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent anywhere, whatever the settings of the machine."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def trained(shard_set: Path, out: Path, logger: str | None, **options: object) -> dict:
    return dict(train(shard_set, defaults("mlp", logger=logger, **{**OPTIONS, **options}), out))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(file)).Reload()
        for name in events.Tags()["scalars"]:
            values.setdefault(name, []).extend((event.step, event.value) for event in events.Scalars(name))
    return values


def test_tensorboard_has_the_scores_of_every_epoch_and_of_the_test(split: Path, tmp_path: Path) -> None:
    fields = trained(split, tmp_path / "run", "tensorboard")
    values = scalars(tmp_path / "run/tensorboard")
    history = [(entry["epoch"], pytest.approx(entry["val_full_accuracy"])) for entry in fields["history"]]
    assert values["val_full_accuracy"] == history
    assert [step for step, _ in values["train_loss"]] == [1, 2]
    step, accuracy = values["test_full_accuracy"][0]
    assert (step, accuracy) == (fields["best_epoch"], pytest.approx(fields["scores"]["test_full_accuracy"]))
    assert "hidden_size: 8" in (tmp_path / "run/tensorboard/hparams.yaml").read_text()


def test_csv_files_of_a_cross_validation_are_in_one_folder(folded: Path, tmp_path: Path) -> None:
    trained(folded, tmp_path / "run", "csv", folds="all", epochs=1)
    names = {
        str(path.parent.relative_to(tmp_path / "run/csv"))
        for path in (tmp_path / "run/csv").rglob("metrics.csv")
    }
    assert names == {f"fold{i}{part}" for i in (1, 2, 3, 4) for part in ("", "/choice")}
    with open(tmp_path / "run/csv/fold2/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = result.read(tmp_path / "run/fold2")["scores"]
    assert [float(row["test_full_f1"]) for row in rows if row["test_full_f1"]] == [
        pytest.approx(scores["test_full_f1"])
    ]


@pytest.mark.slow
def test_mlflow_has_the_run_with_its_parameters(split: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    fields = trained(split, tmp_path / "run", "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path / 'run/mlflow.db'}")
    experiment = client.get_experiment_by_name("shardwave")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert (run.data.params["hidden_size"], run.data.params["model"]) == ("8", "mlp")
    history = client.get_metric_history(run.info.run_id, "val_full_accuracy")
    assert [(each.step, each.value) for each in history] == [
        (entry["epoch"], pytest.approx(entry["val_full_accuracy"])) for entry in fields["history"]
    ]


@pytest.mark.slow
def test_wandb_writes_one_offline_run_per_training(split: Path, tmp_path: Path) -> None:
    """A second training of the same process must not continue the run of the first."""
    for name in ("a", "b"):
        trained(split, tmp_path / name, "wandb", epochs=1)
        (folder,) = (tmp_path / name / "wandb").glob("offline-run-*")
        content = next(folder.glob("*.wandb")).read_bytes()
        assert b"val_full_accuracy" in content and b"hidden_size" in content


def test_a_failed_training_keeps_what_was_logged(split: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError):
        trained(split, tmp_path / "run", "csv", learning_rate=1e30, epochs=3)
    assert (tmp_path / "run/csv/hparams.yaml").exists()


def test_a_missing_logger_is_named_with_its_remedy(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UsageError, match=rf"{name} is not installed: pip install 'shardwave\[{name}\]'"):
            trained(split, tmp_path / "run", name)
    with pytest.raises(
        UsageError, match="logger must be one of tensorboard, mlflow, wandb, csv, got neptune"
    ):
        trained(split, tmp_path / "run", "neptune")
    assert not (tmp_path / "run").exists()


def test_no_logger_by_default(split: Path, tmp_path: Path) -> None:
    trained(split, tmp_path / "run", None)
    assert not {"csv", "tensorboard", "mlflow.db", "wandb"} & {
        path.name for path in (tmp_path / "run").iterdir()
    }
    assert json.loads((tmp_path / "run/result.json").read_text())["config"]["logger"] is None
