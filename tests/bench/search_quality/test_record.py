"""Recording of tables: folds, an interruption, and curves equal to those of a search's trials."""

import csv
import json

import numpy as np
import pytest

from shardwave.bench.search_quality import curves, record
from shardwave.common.errors import UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import defaults
from shardwave.search.fused.mlp import fit

RECIPE = record.Recipe("mlp", {"hidden_layers": 1}, 3, 24)  # two passes over 12 cells


@pytest.fixture
def features(tmp_path, monkeypatch):
    """The path of a table of 72 rows in three classes."""
    monkeypatch.setitem(record.RECIPES, "mlp-gtzan", RECIPE)
    monkeypatch.setattr(record, "REPEATED", 2)
    generator = np.random.default_rng(0)
    path = tmp_path / "features.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "length", "a", "b", "label"])
        for number in range(72):
            values = generator.normal(number % 3, 0.7, 2).round(4)
            writer.writerow([f"{number}.wav", 661_794, *values, "xyz"[number % 3]])
    return path


def test_a_recorded_curve_is_that_of_a_trial_and_an_interrupted_recording_continues(features, tmp_path):
    path = record.record("mlp-gtzan", features, tmp_path / "out", workers=1)
    table = curves.read(path)
    assert (len(table.rows), table.epochs, table.repeats.shape) == (24, 3, (2, 3, 3))
    assert table.rows[0].params == {"batch_size": 64, "hidden_size": 256, **table.space.prior}

    row = table.rows[5]
    values = []
    for fold in range(1, curves.FOLDS + 1):
        config = defaults(
            "mlp", hidden_layers=1, epochs=3, device="cpu", val_fold=fold, test_fold=record.TEST_FOLD,
            **row.params,
        )  # fmt: skip
        data = TrainingData(tmp_path / "out" / "mlp-gtzan-set", config)
        values.append([entry["val_full_accuracy"] for entry in fit(data, config).history])
    np.testing.assert_allclose(np.mean(values, axis=0), row.values, atol=1e-6)  # folds have equal sizes

    before = path.read_bytes()
    lines = (tmp_path / "out" / "mlp-gtzan.jsonl").read_bytes().splitlines(keepends=True)
    path.unlink()
    (tmp_path / "out" / "mlp-gtzan.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:40])
    record.record("mlp-gtzan", features, tmp_path / "out", workers=1)
    again = [json.loads(line) for line in (tmp_path / "out" / "mlp-gtzan.jsonl").read_text().splitlines()]
    assert len(again) == len(lines) == 28
    assert [row["val_correct"] for row in again] == [json.loads(line)["val_correct"] for line in lines]
    assert len(path.read_bytes()) == pytest.approx(len(before), rel=0.02)


def test_groups_are_not_divided_and_classes_are_spread():
    labels = ["a", "b"] * 60
    groups = [f"{number // 4}" for number in range(120)]
    folds = record.folds_of(labels, groups)
    assert set(folds) == set(range(1, 7))
    assert all(
        len({fold for fold, own in zip(folds, groups, strict=True) if own == group}) == 1 for group in groups
    )
    assert all(
        8 <= sum(f == fold and label == "a" for f, label in zip(folds, labels, strict=True)) <= 12
        for fold in range(1, 7)
    )


def test_an_unknown_recipe_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no recipe cnn: choose from mlp-gtzan, mlp-esc10"):
        record.record("cnn", tmp_path, tmp_path)
