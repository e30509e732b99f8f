"""Trials of a search in an experiment tracker."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from shardwave.search.config import SearchConfig
from shardwave.search.run import search
from shardwave.search.tracking import tracked
from shardwave.search.trial import Trial

ENDED = [
    Trial(
        0, {"hidden_size": 8}, "COMPLETE", [0.5, 0.75], info={"best_epoch": 2, "scores": {"val_loss": 0.3}}
    ),
    Trial(1, {"hidden_size": 16}, "PRUNED", [0.25]),
    Trial(2, {"hidden_size": 32}, "FAILED", error="a reason"),
]


def track(logger: str, folder: Path) -> None:
    seen: list[Trial] = []
    with tracked(logger, folder, {"model": "mlp"}, seen.append) as listener:
        listener(Trial(0, {"hidden_size": 8}, values=[0.5]))  # running
        for trial in [*ENDED, ENDED[0]]:
            listener(trial)
    assert len(seen) == 5


@pytest.mark.slow
def test_mlflow_nests_the_trials_in_the_run_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'all.db'}")
    track("mlflow", tmp_path / "study")
    client = MlflowClient(f"sqlite:///{tmp_path / 'all.db'}")
    experiment = client.get_experiment_by_name("shardwave")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"study", "study/trial-0", "study/trial-1", "study/trial-2"}
    parent = runs["study"]
    assert parent.data.metrics == {"best_value": 0.75, "best_trial": 0} and parent.data.params == {
        "model": "mlp"
    }
    for number in range(3):
        run = runs[f"study/trial-{number}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {"hidden_size": str(ENDED[number].params["hidden_size"])}
        assert run.info.status == ("FAILED" if number == 2 else "FINISHED")
    first = runs["study/trial-0"]
    assert [each.value for each in client.get_metric_history(first.info.run_id, "value")] == [0.5, 0.75]
    assert first.data.metrics["val_loss"] == 0.3


def test_csv_and_tensorboard_have_a_folder_per_trial(tmp_path: Path) -> None:
    track("csv", tmp_path)
    with open(tmp_path / "csv/trial-0/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["value"]) for row in rows if row["value"]] == [("1", "0.5"), ("2", "0.75")]
    assert [row["val_loss"] for row in rows if row["val_loss"]] == ["0.3"]
    track("tensorboard", tmp_path)
    for number in range(3):
        assert (tmp_path / f"tensorboard/trial-{number}/hparams.yaml").exists()


def test_a_search_logs_its_trials(feature_set: Path, tmp_path: Path) -> None:
    config = SearchConfig("mlp", "random", trials=2, epochs=1, jobs=1, device="cpu", val_fold=1, logger="csv")
    result = search(feature_set, config, tmp_path / "run")
    for row in map(json.loads, (tmp_path / "run/trials.jsonl").read_text().splitlines()):
        with open(tmp_path / f"run/csv/trial-{row['trial']}/metrics.csv", newline="") as file:
            values = [float(line["value"]) for line in csv.DictReader(file) if line["value"]]
        assert values == pytest.approx(row["values"])
    with open(tmp_path / "run/csv/metrics.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["best_value"]) == pytest.approx(result["best"]["value"])


def test_trials_of_the_backend_ray_are_nested_runs(
    ray_address: str, feature_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    config = SearchConfig(
        "mlp", "ray", trials=3, epochs=2, jobs=1, device="cpu", val_fold=1, address=ray_address,
        logger="mlflow",
    )  # fmt: skip
    result = search(feature_set, config, run)
    client = MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shardwave")
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"run", "run/trial-0", "run/trial-1", "run/trial-2"}
    assert runs["run"].data.metrics["best_value"] == pytest.approx(result["best"]["value"])
    for row in map(json.loads, (run / "trials.jsonl").read_text().splitlines()):
        nested = runs[f"run/trial-{row['trial']}"]
        assert nested.data.tags["mlflow.parentRunId"] == runs["run"].info.run_id
        assert nested.data.params["learning_rate"] == str(row["params"]["learning_rate"])
        history = client.get_metric_history(nested.info.run_id, "value")
        assert [each.value for each in history] == pytest.approx(row["values"])
