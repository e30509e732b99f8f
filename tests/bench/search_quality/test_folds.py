"""Searches that train on one fold after another."""

import math

import pytest

from shardwave.bench.search_quality import curves, folds, suite
from shardwave.search.budget import SearchBudget
from shardwave.search.trial import Trial


def test_a_step_is_a_fold_and_the_last_one_finds_the_mean(table):
    read = curves.read(table)
    row = folds.FoldSteps(read).lookup(read.rows[3].params)
    assert list(row.values) == pytest.approx([max(read.rows[3].values)] * 5)  # all folds are equal there
    assert row.found == [-math.inf] * 4 + [max(read.rows[3].values)]
    assert row.seconds == pytest.approx(read.rows[3].seconds * read.epochs / 5)


def test_a_configuration_that_is_worse_on_four_folds_is_stopped(table):
    """Four pairs are the fewest whose one-sided test falls below the default of 0.1: 1 / 2 ** 4."""
    driver = folds.WilcoxonFolds(curves.read(table).space, SearchBudget(trials=3, sampler="tpe"), 0)

    def stops(values):
        trial = Trial(driver.ask().trial, {})
        for value in values:
            trial.values.append(value)
            if driver.report(trial):
                break
        driver.end(trial)
        return trial.epochs

    assert stops([0.8, 0.7, 0.9, 0.75, 0.85]) == 5
    assert stops([0.7, 0.6, 0.8, 0.65, 0.75]) == 4
    assert stops([0.7, 0.6, 0.8, 0.99, 0.99]) == 5
    assert driver.ask() is None


def test_the_budget_is_in_epochs(table):
    search = suite.setup((str(table),), 4)(suite.Task(0, "optuna/tpe/wilcoxon", 1, 0))
    assert search.steps[-1].epochs == 40 and 4 <= search.trials <= 6
    assert all(step.epochs % 2 == 0 for step in search.steps)
