"""The weights that a search publishes are those that were scored: no trial is trained again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import peaking
import pytest
import torch

from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.runs import checkpoint
from shardwave.search import outcome, run
from shardwave.search.config import SearchConfig
from shardwave.search.objective import TrainingObjective
from shardwave.search.trial import SearchResult, Trial
from shardwave.search.trial_log import KEPT, read_trials

CONFIG = SearchConfig(
    "mlp", "random", train_view="slice", trials=5, epochs=9, jobs=1, val_fold=1, device="cpu", fused=False
)


@pytest.fixture(autouse=True)
def no_training_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TrainingObjective", peaking.Peaking)


def value_of_weights(out: Path, feature_set: Path) -> float:
    """Score the published checkpoint on the validation split."""
    scores = evaluate(out, feature_set, ("fold1",), device="cpu")["scores"]
    return float(scores["fold1_slice_mean_accuracy"])


BACKENDS = ["random", "optuna", "ray"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stopped_trial_that_leads_is_published(
    feature_set: Path, tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    """Also after a search with more trials, which do not lead, and with several workers."""
    address = request.getfixturevalue("ray_address") if backend == "ray" else None
    config = dataclasses.replace(CONFIG, backend=backend, address=address)
    result = run.search(feature_set, config, tmp_path / "run")
    trials = read_trials(tmp_path / "run")
    assert result["best"]["trial"] == peaking.PEAK and result["best"]["epoch"] == 1
    assert trials[peaking.PEAK].state == ("COMPLETE" if backend == "random" else "PRUNED")
    assert value_of_weights(tmp_path / "run", feature_set) == pytest.approx(result["best"]["value"] - 1)
    assert result["scores"]["val_slice_mean_accuracy"] == pytest.approx(result["best"]["value"] - 1)
    assert result["history"] and not (tmp_path / "run" / KEPT).exists()

    before = checkpoint.load(tmp_path / "run" / checkpoint.NAME).network.state_dict()
    more = dataclasses.replace(config, trials=8, jobs=2)
    resumed = run.search(feature_set, more, tmp_path / "run", resume=True)
    assert resumed["trials"] == 8 and resumed["best"] == result["best"]
    assert resumed["history"] == result["history"] and resumed["scores"] == result["scores"]
    after = checkpoint.load(tmp_path / "run" / checkpoint.NAME).network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "run" / KEPT).exists()


def test_a_search_killed_before_its_result_is_written(
    feature_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the best trial is still there when the search is resumed."""

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(outcome, "draw", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run.search(feature_set, CONFIG, tmp_path / "run")
    result = run.search(feature_set, CONFIG, tmp_path / "run", resume=True)
    assert result["best"]["trial"] == peaking.PEAK
    assert value_of_weights(tmp_path / "run", feature_set) == pytest.approx(result["best"]["value"] - 1)


def test_superseded_checkpoints_are_removed(tmp_path: Path) -> None:
    """Those of running trials, and that of the best one, are not."""
    (tmp_path / KEPT).mkdir()
    for number in range(4):
        for suffix in ("ckpt", "json"):
            (tmp_path / KEPT / f"trial-{number}.{suffix}").touch()
    ended = {number: Trial(number, {}, "COMPLETE", [value]) for number, value in ((0, 0.5), (1, 0.7))}
    ended[3] = Trial(3, {}, "FAILED", [0.9])
    outcome.remove_superseded(tmp_path, ended)
    names = {path.name for path in (tmp_path / KEPT).iterdir()}
    assert names == {"trial-1.ckpt", "trial-1.json", "trial-2.ckpt", "trial-2.json"}


def test_a_trial_of_another_machine_is_trained_again_and_a_message_says_so(
    feature_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its published scores are those of the new weights."""
    config = dataclasses.replace(CONFIG.training(), epochs=2)
    best = Trial(0, {"dropout": 0.0}, "COMPLETE", [0.1, 0.125], worker="elsewhere:7")
    best.info = {"best_epoch": 2, "scores": {"val_slice_mean_accuracy": 0.125}}
    searched = SearchResult("COMPLETE", [best], 1.0)
    objective = TrainingObjective(feature_set, config, tmp_path)
    fields = outcome.best_run(objective, searched, tmp_path, retrain=True)
    message = capsys.readouterr().err
    assert "it ran as elsewhere:7" in message and "the trial had 0.1250" in message
    assert fields["scores"]["val_slice_mean_accuracy"] != 0.125
    assert fields["scores"] == {
        name: value
        for name, value in fields["history"][fields["best_epoch"] - 1].items()
        if isinstance(value, float)
    }
