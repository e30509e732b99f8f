"""evaluate --calibrate writes a temperature, which predict uses; uncertain predictions are rejected."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.evaluation import calibration
from shardwave.models.evaluation.clip_csv import read_held_out
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.evaluation.predict import predict
from shardwave.models.evaluation.reliability import scaled
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train


@pytest.fixture(scope="module")
def trained(make_set: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A set with 40 clips per split, and a run on it."""
    folder = tmp_path_factory.mktemp("calibration")
    shard_set = make_set(folder / "set", ["train", "val", "test"], clips=40)
    train(shard_set, defaults("mlp", epochs=3, device="cpu"), folder / "run")
    return folder / "run", shard_set


@pytest.fixture
def run(trained: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def probabilities(path: Path) -> np.ndarray:
    with open(path, newline="") as file:
        _, *rows = csv.reader(file)
    return np.array([row[5:] for row in rows], float)


def test_predict_uses_the_temperature_of_the_validation_clips(
    run: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    shard_set = trained[1]
    predict(run, shard_set, tmp_path / "before.csv", True, "cpu", splits=("test",))
    fitted = evaluate(run, shard_set, device="cpu", calibrate=True)["calibration"]
    assert fitted is not None and fitted["splits"] == ["val"] and fitted["clips"] == 40
    assert fitted["loss_after"] <= fitted["loss_before"]
    predict(run, shard_set, tmp_path / "after.csv", True, "cpu", splits=("test",))
    before, after = probabilities(tmp_path / "before.csv"), probabilities(tmp_path / "after.csv")
    assert after == pytest.approx(scaled(before, fitted["temperature"]), abs=1e-4)
    assert np.abs(after - before).max() > 1e-3


def test_uncertain_clips_are_unknown(run: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    predict(run, trained[1], tmp_path / "all.csv", True, "cpu")
    threshold = float(np.median(probabilities(tmp_path / "all.csv").max(1))) + 1e-5
    result = predict(run, trained[1], tmp_path / "p.csv", device="cpu", reject_below=threshold)
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] == "unknown" for row in rows] == [
        float(row["probability"]) < threshold for row in rows
    ]
    assert 0 < result["rejected"] == sum(row["class"] == "unknown" for row in rows) < len(rows)
    with pytest.raises(UsageError, match="reject_below must lie between 0 and 1, got 2"):
        predict(run, trained[1], tmp_path / "p.csv", reject_below=2)


def test_only_clips_that_were_not_trained_on_calibrate(run: Path, trained: tuple[Path, Path]) -> None:
    with pytest.raises(
        UsageError, match="--calibrate needs 20 labelled clips of validation or new splits, got 0"
    ):
        evaluate(run, trained[1], ("train", "test"), "cpu", calibrate=True)


def test_a_damaged_calibration_is_named(run: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    (run / calibration.NAME).write_text('{"temperature": "hot"}')
    with pytest.raises(ShardwaveError, match=r"calibration\.json"):
        predict(run, trained[1], tmp_path / "p.csv")


def test_the_held_out_predictions_of_a_run_are_those_of_predict(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    run, shard_set = trained
    predict(run, shard_set, tmp_path / "p.csv", True, "cpu", splits=("val", "test"))
    rows, classes = read_held_out(run)
    assert classes == ["bell", "rain", "saw"] and len(rows) == 80
    assert {row.split for row in rows} == {"val", "test"} and all(row.source.group for row in rows)
    by_path = sorted(rows, key=lambda row: row.source.path)
    assert np.array([row.probabilities for row in by_path]) == pytest.approx(
        probabilities(tmp_path / "p.csv"), abs=1e-5
    )
