"""The record of a search on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.search.trial import Assignment, Trial, best_so_far, best_trial
from shardwave.search.trial_log import TrialLog, read_trials


def filled(folder: Path) -> TrialLog:
    log = TrialLog(folder)
    for number, values in enumerate(([0.1, 0.4, 0.3], [0.4])):
        log.start(Assignment(number, {"width": 8}), "here:1")
        for epoch, value in enumerate(values, 1):
            log.report(number, epoch, value, {"step": epoch / 10})
    log.running[0].info["parameters"] = 5
    log.end(0, "COMPLETE")
    log.end(1, "PRUNED")
    log.start(Assignment(2, {"width": 16}, attempt=2), "here:1")
    return log


def test_rows_have_the_documented_fields(tmp_path: Path) -> None:
    filled(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    names = "trial params state value values epochs start seconds worker attempt error"
    assert all(set(names.split()) <= set(row) for row in rows)
    assert rows[0]["value"] == 0.4 and rows[0]["values"] == [0.1, 0.4, 0.3] and rows[0]["epochs"] == 3
    assert rows[0]["spent"] == {"step": 0.3} and rows[0]["info"] == {"parameters": 5}


def test_reading_a_log_with_unfinished_trials(tmp_path: Path) -> None:
    log = filled(tmp_path)
    again = TrialLog(tmp_path)
    assert again.trials == log.trials == read_trials(tmp_path)
    assert again.unfinished() == [Assignment(2, {"width": 16}, attempt=3)]


def test_an_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    log = filled(tmp_path)
    path = tmp_path / "trials.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    again = TrialLog(tmp_path)
    assert again.trials == log.trials[:1] and [assignment.trial for assignment in again.unfinished()] == [
        1,
        2,
    ]
    again.start(Assignment(1, {"width": 8}, 2), "here:2")
    again.report(1, 1, 0.5)
    again.end(1, "COMPLETE")
    assert [trial.value for trial in TrialLog(tmp_path).trials] == [0.4, 0.5]


def test_epochs_come_in_order_and_values_are_numbers(tmp_path: Path) -> None:
    log = filled(tmp_path)
    with pytest.raises(ValueError, match="epoch 2 came after 0"):
        log.report(2, 2, 0.5)
    with pytest.raises(ValueError, match="the value of epoch 1 is inf"):
        log.report(2, 1, float("inf"))


def test_the_best_trial(tmp_path: Path) -> None:
    trials = filled(tmp_path).trials
    best = best_trial(trials)
    assert best is trials[0] and best.best_epoch == 2  # of two equal ones the first; stopped ones count
    best.info["best_epoch"] = 3
    assert best.best_epoch == 3
    failed = Trial(3, {}, "FAILED", [0.9])
    assert best_trial([*trials, failed]) is best and best_trial([failed]) is None


def test_the_best_so_far() -> None:
    one = Trial(0, {}, "COMPLETE", [0.1, 0.5], [1.0, 3.0], start=100.0)
    two = Trial(1, {}, "COMPLETE", [0.3, 0.2], [1.0, 3.0], start=101.0)
    assert best_so_far([one, two]) == [(1.0, 1, 0.1), (2.0, 2, 0.3), (3.0, 3, 0.5), (4.0, 4, 0.5)]


def test_a_folder_without_trials(tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError, match="contains no trials.jsonl"):
        read_trials(tmp_path)
