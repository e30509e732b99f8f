"""The accuracy table on a small data set: every number in it comes from run folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score

from shardwave.bench import accuracy, accuracy_table
from shardwave.bench.nested import SPACE, nested_cross_validate
from shardwave.common.errors import UsageError
from shardwave.models.runs import result
from shardwave.models.training.config import defaults
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.table import build_table
from shardwave.shards.read.open_set import open_set

RATE = 8_000
SPECTROGRAM = SpectrogramConfig(
    sample_rate=RATE, n_fft=512, hop_length=128, image_size=32, frequency_scale="mel", slices=3, features=True
)


@pytest.mark.slow
def test_the_table_comes_from_cross_validations_and_continues(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng, lines = np.random.default_rng(0), ["path,label,fold"]
    (tmp_path / "audio").mkdir()
    for number in range(12):
        time = np.arange(RATE) / RATE
        samples = 0.3 * np.sin(2 * np.pi * (400 + 1500 * (number % 2)) * time) + 0.05 * rng.normal(size=RATE)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", samples, RATE)
        lines.append(f"{number}.wav,{'ab'[number % 2]},{1 + number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    options = {"epochs": 2, "batch_size": 4, "hidden_size": 8, "device": "cpu"}

    def run() -> dict:
        return accuracy.run(
            tmp_path / "audio", tmp_path / "labels.csv", tmp_path / "out", tmp_path / "work",
            rows=("mlp",), seeds=(0, 1), leaking=("mlp",), spectrogram=SPECTROGRAM, options=options,
        )  # fmt: skip

    found = run()
    assert "fold 1" not in capfd.readouterr().err, "processes print their progress at the same time"
    row = found["rows"][0]
    runs = [result.read(tmp_path / "work" / f"mlp-{seed}") for seed in (0, 1)]
    assert row["accuracy"] == [one["scores"]["test_full_accuracy"] for one in runs]
    assert row["mean"] == pytest.approx(np.mean(row["accuracy"])) and row["deviation"] == pytest.approx(
        np.std(row["accuracy"], ddof=1)
    )
    apart, mixed = (open_set(tmp_path / "work" / name) for name in ("set-recordings", "set-slices"))
    for made, together in ((apart, True), (mixed, False)):
        view = made.view(made.splits)
        assert len(view) == 36 and len(set(view.clip.tolist())) == 36
        folds: dict[str, set[int]] = {}
        for row_number in range(36):
            meta = view.meta(row_number)
            folds.setdefault(meta["path"], set()).add(meta["fold"])
        assert all(len(each) == 1 for each in folds.values()) == together
    assert set(found["leakage"][0]) == {"model", "of", "recordings apart", "slices at random"}
    text = (tmp_path / "out" / "accuracy.md").read_text()
    assert f"| mlp | full | {100 * row['mean']:.2f} ±" in text and "a difference of" in text
    before = (tmp_path / "work" / "mlp-0" / "result.json").stat().st_mtime_ns
    assert (
        run()["rows"] == json.loads((tmp_path / "out" / "accuracy.json").read_text())["rows"] == found["rows"]
    )
    assert (tmp_path / "work" / "mlp-0" / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_rows_of_vectors_searches_and_classifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of features: folds of tracks, a classifier, and earlier rows that stay."""
    rng, lines = np.random.default_rng(0), ["filename,length,one,two,label"]
    for number in range(30):
        one, two = rng.normal(size=2) + number % 2 * 3
        lines.append(f"{number}.wav,66{number},{one},{two},{'ab'[number % 2]}")
    (tmp_path / "features.csv").write_text("\n".join(lines))

    def run(*rows: str) -> dict:
        return accuracy_table.run(
            tmp_path / "features.csv", tmp_path / "out", tmp_path / "work", drop_columns="length", rows=rows,
            seeds=(0, 1), jobs=1,
        )  # fmt: skip

    [row] = run("random-forest")["rows"]
    opened = open_set(tmp_path / "work" / "set")
    assert opened.feature_names == ["one", "two"] and opened.splits == [f"fold{fold}" for fold in range(1, 6)]
    assert all(len(opened.view(split)) == 6 for split in opened.splits)
    features = np.concatenate(
        [opened.view(name).gather(range(6), ["features.npy"])["features.npy"] for name in opened.splits]
    )
    labels, folds = np.concatenate([opened.view(name).cls for name in opened.splits]), np.repeat(range(5), 6)
    expected = cross_val_score(
        RandomForestClassifier(500, random_state=1), features, labels, groups=folds, cv=LeaveOneGroupOut()
    )
    assert row["folds"][1] == pytest.approx(expected.tolist()) and row["validation"] is None
    found = run("svm")
    assert [one["model"] for one in found["rows"]] == ["svm", "random-forest"]
    assert found["rows"][1]["environment"]["commit"] and "environment" not in found["rows"][0]
    assert "| random-forest | full |" in (tmp_path / "out" / "accuracy-table.md").read_text()
    with pytest.raises(UsageError, match="--row of a table must be one of mlp; .*; got cnn"):
        run("cnn")


@pytest.mark.slow
def test_a_nested_search_never_sees_the_fold_that_is_scored(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), ["path,one,two,label,fold"]
    for number in range(36):
        one, two = rng.normal(size=2) + number % 2 * 3
        lines.append(f"{number}.wav,{one},{two},{'ab'[number % 2]},{1 + number // 12}")
    (tmp_path / "features.csv").write_text("\n".join(lines))
    build_table(tmp_path / "features.csv", tmp_path / "set")
    made = tmp_path / "set"
    config = defaults("mlp", train_view="full", epochs=2, batch_size=8, device="cpu", folds="all")
    result = nested_cross_validate(made, config, tmp_path / "run", trials=2)
    assert result["state"] == "COMPLETE" and [entry["fold"] for entry in result["per_fold"]] == [1, 2, 3]
    for entry in result["per_fold"]:
        searched = json.loads((tmp_path / f"run-search-{entry['fold']}" / "result.json").read_text())
        assert searched["folds"]["test"] == [f"fold{entry['fold']}"]
        assert searched["folds"]["val"] == [f"fold{entry['fold'] % 3 + 1}"]
        assert entry["params"] == {name: searched["params"][name] for name in SPACE}
        trained = json.loads((tmp_path / "run" / f"fold{entry['fold']}" / "result.json").read_text())
        assert trained["params"]["hidden_size"] == entry["params"]["hidden_size"]
