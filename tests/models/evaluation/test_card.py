"""Model cards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shardwave.cli import main_group
from shardwave.common.errors import UsageError
from shardwave.models.evaluation.card import write_card
from shardwave.models.runs import result
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train


def sections(text: str) -> dict[str, str]:
    return {part.split("\n")[0]: part for part in text.split("\n## ")}


def test_a_card_states_data_scores_confusion_limits_use_and_licences(split: Path, tmp_path: Path) -> None:
    fields = train(split, defaults("mlp", epochs=2, device="cpu"), tmp_path / "mine")
    main_group.main(
        ["card", str(tmp_path / "mine"), "--data-license", "CC BY 4.0", "--out", str(tmp_path / "card.md")],
        standalone_mode=False,
    )
    parts = sections((tmp_path / "card.md").read_text())
    assert list(parts)[1:] == ["Model", "Data", "Scores", "Limits", "Use", "Licences", "Origin"]
    assert fields["set_id"] in parts["Data"] and "| test | 12 | test |" in parts["Data"]
    assert "bell, rain, saw" in parts["Data"] and "CC BY 4.0" in parts["Licences"]
    accuracy = fields["scores"]["test_full_accuracy"]
    assert f"| test | 12 | 12 | {accuracy:.3f} (" in parts["Scores"]
    for name, row in zip(fields["classes"], fields["confusion"]["test_full"], strict=True):
        assert f"| {name} | {' | '.join(map(str, row))} |" in parts["Scores"]
    assert "Fewer than 10 clips of test are of the classes bell, rain." in parts["Limits"]
    assert "follow from 12 groups only" in parts["Limits"]
    assert "shardwave predict mine AUDIO" in parts["Use"] and "export" not in parts["Use"]
    assert "| hidden_size | 512 |" in parts["Origin"]


def test_a_card_of_a_cross_validation_scores_all_test_folds(folded: Path, tmp_path: Path) -> None:
    train(folded, defaults("mlp", epochs=1, device="cpu", folds="all"), tmp_path / "run")
    write_card(tmp_path / "run")
    parts = sections((tmp_path / "run/card.md").read_text())
    assert "| all folds | 36 | 36 | " in parts["Scores"] and "| fold3 | 9 | 9 | " in parts["Scores"]
    assert "one model per fold" in parts["Use"] and "not stated" in parts["Licences"]


def test_a_card_without_predictions_has_no_intervals(tone_run: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_bytes((tone_run("cnn") / "result.json").read_bytes())
    write_card(run)
    assert "no predictions for intervals" in (run / "card.md").read_text()
    assert "spectrogram of 32 x 32 pixels, mel frequency" in (run / "card.md").read_text()


def test_an_unfinished_run_has_no_card(tone_run: Callable[..., Path], tmp_path: Path) -> None:
    fields = dict(result.read(tone_run("cnn")))
    (tmp_path / "result.json").write_text(json.dumps({**fields, "state": "INTERRUPTED"}))
    with pytest.raises(UsageError, match=r"is not finished \(state INTERRUPTED\)"):
        write_card(tmp_path)
