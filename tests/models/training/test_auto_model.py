"""`--model auto` trains the candidates that the set allows, and takes the better one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shardwave.common.errors import UsageError
from shardwave.models.training import auto_model
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train

QUICK = {"device": "cpu", "epochs": 2, "train_view": "full"}


def test_the_better_candidate_is_taken_and_both_scores_are_named(
    split: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_model, "MARGIN", -2.0)
    assert auto_model.choose(split, QUICK) == "cnn-plus"
    monkeypatch.setattr(auto_model, "MARGIN", 2.0)
    assert auto_model.choose(split, QUICK) == "mlp"
    message = capsys.readouterr().err
    assert "% validation accuracy after 2 epochs" in message and "mlp is taken" in message


def test_a_cross_validation_chooses_without_the_first_fold(
    folded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = []
    real = auto_model.TrainingData
    monkeypatch.setattr(
        auto_model, "TrainingData", lambda *given: roles.append(real(*given).roles) or real(*given)
    )
    auto_model.choose(folded, {**QUICK, "folds": "all"})
    assert {(role.test, role.val) for role in roles} == {(("fold1",), ("fold2",))}


def test_the_only_possible_candidate_is_taken(
    make_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_set(tmp_path / "table", ["train", "val"], images=False, slices=0)
    images = make_set(tmp_path / "images", ["train", "val"], features=False)
    assert auto_model.choose(table, QUICK) == "mlp" and auto_model.choose(images, QUICK) == "cnn-plus"
    assert "lacks the npy of cnn-plus" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_model(split: Path, tmp_path: Path) -> None:
    train(split, defaults("cnn-plus", **QUICK), tmp_path / "run")
    assert auto_model.resolve_model("auto", split, tmp_path / "run", QUICK, resume=True) == "cnn-plus"
    assert auto_model.resolve_model("cnn", split, tmp_path / "run", QUICK, resume=True) == "cnn"
    with pytest.raises(UsageError, match="chooses on one device"):
        auto_model.resolve_model("auto", split, tmp_path / "new", {**QUICK, "devices": 2}, resume=False)
