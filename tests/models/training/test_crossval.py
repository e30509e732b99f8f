"""`--folds all`: nothing is chosen on the fold that is scored."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.runs import result
from shardwave.models.training.config import defaults
from shardwave.models.training.crossval import enough_epochs
from shardwave.models.training.train import train

SMALL = {"epochs": 2, "batch_size": 8, "hidden_size": 16, "device": "cpu", "folds": "all"}


@pytest.fixture(scope="module")
def whole(folded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cross-validation."""
    out = tmp_path_factory.mktemp("full") / "run"
    train(folded, defaults("mlp", **SMALL), out)
    return out


def test_each_fold_is_tested_once_by_a_model_retrained_for_the_chosen_epochs(whole: Path) -> None:
    found = result.read(whole)
    assert found["state"] == "COMPLETE" and found["folds"] == [1, 2, 3, 4]
    assert [(entry["fold"], entry["val_fold"]) for entry in found["per_fold"]] == [
        (1, 2),
        (2, 3),
        (3, 4),
        (4, 1),
    ]
    for entry in found["per_fold"]:
        folder = whole / f"fold{entry['fold']}"
        choice, final = result.read(folder / "choice"), result.read(folder)
        test, val = f"fold{entry['fold']}", f"fold{entry['val_fold']}"
        assert (
            choice["folds"]["val"] == [val]
            and not choice["folds"]["test"]
            and test not in choice["folds"]["train"]
        )
        assert sorted([*final["folds"]["train"], test]) == ["fold1", "fold2", "fold3", "fold4"]
        assert final["folds"] == {"train": final["folds"]["train"], "val": [], "test": [test]}
        assert len(final["history"]) == entry["epochs"] == enough_epochs(choice["history"], "full")
        assert not any(name.startswith("test") for name in choice["scores"])
        assert final["scores"]["test_full_accuracy"] == entry["scores"]["test_full_accuracy"]
    mean = np.mean([entry["scores"]["test_full_f1"] for entry in found["per_fold"]])
    assert found["scores"]["test_full_f1"] == pytest.approx(mean)
    assert sum(map(sum, found["confusion"]["test_full"])) == 36
    assert (whole / "curves.png").exists() and (whole / "confusion.png").exists()
    with open(whole / "errors.csv", newline="") as file:
        wrong = list(csv.DictReader(file))
    assert len(wrong) == 36 - np.trace(found["confusion"]["test_slice_mean"])
    assert [row["probability"] for row in wrong] == sorted(
        (row["probability"] for row in wrong), reverse=True
    )
    assert {row["split"] for row in wrong} <= {"fold1", "fold2", "fold3", "fold4"}


def test_a_cross_validation_has_no_model_of_its_own(folded: Path, whole: Path) -> None:
    with pytest.raises(
        UsageError, match="is a cross-validation: give the run folder of one fold, such as .*fold1"
    ):
        evaluate(whole, folded, device="cpu")
    kinds = {
        name: about["kind"]
        for name, about in evaluate(whole / "fold2", folded, device="cpu")["splits"].items()
    }
    assert kinds == {"fold1": "trained", "fold2": "test", "fold3": "trained", "fold4": "trained"}


@pytest.mark.parametrize(
    ("correct", "epochs"),
    [
        ((60, 72, 70, 71), 4),  # one standard error of 72 of 80 is 2.7 clips: 70 and 71 are as good
        ((60, 72, 71, 50), 3),  # it has come apart by the end
        ((60, 72, 69, 68), 2),
        ((80, 79, 79, 80), 4),  # no error at all: only equals count
    ],
)
def test_the_last_epoch_within_one_standard_error_is_chosen(correct: tuple[int, ...], epochs: int) -> None:
    history = [
        {"val_full_accuracy": right / 80, "confusion": {"val_full": [[right, 80 - right], [0, 0]]}}
        for right in correct
    ]
    assert enough_epochs(history, "full") == epochs


def test_interrupted_cross_validation_continues_with_the_remaining_folds(
    folded: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardwave.models.training import crossval

    run, calls = crossval.run, []

    def interrupted(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(*arguments, **named)

    monkeypatch.setattr(crossval, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(folded, defaults("mlp", **SMALL), tmp_path / "run")
    assert result.read(tmp_path / "run")["state"] == "INTERRUPTED"
    kept = (tmp_path / "run" / "fold1" / "checkpoint.ckpt").stat().st_mtime_ns
    found = train(folded, defaults("mlp", **SMALL), tmp_path / "run", resume=True)
    assert found["scores"] == result.read(whole)["scores"] and found["state"] == "COMPLETE"
    assert (tmp_path / "run" / "fold1" / "checkpoint.ckpt").stat().st_mtime_ns == kept
