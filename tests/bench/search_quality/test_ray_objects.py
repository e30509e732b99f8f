"""Ray's HyperBand pauses trials and continues the best."""

import pytest

from shardwave.bench.search_quality import curves, replay, strategies
from shardwave.search.budget import SearchBudget


@pytest.mark.parametrize("name", strategies.RAY_HYPERBAND)
def test_hyperband_halves_its_brackets(name, table):
    if name not in strategies.names():
        pytest.skip("needs the package hpbandster")
    read_table, asked, last = curves.read(table), [], {}
    driver = strategies.make_driver(name, read_table.space, SearchBudget(trials=400, epochs=10, jobs=2), 0)
    ask, report = driver.ask, driver.report

    def asking():
        assignment = ask()
        if assignment is not None:
            asked.append(assignment.trial)
            assert read_table.space.contains(assignment.params)
        return assignment

    def reporting(trial):
        last[trial.trial] = (trial.epochs, trial.values[-1])
        return report(trial)

    driver.ask, driver.report = asking, reporting
    found = replay.replay_one(read_table, driver, 2, 10, 400)
    assert found.steps[-1].epochs == 400
    assert len(asked) > len(set(asked)), "paused trials are continued"
    ended = {epochs for epochs, _ in last.values()}
    assert {1, 3, 10} <= ended  # the rungs of the largest bracket
    first = [last[number][0] for number in range(17) if number in last]
    assert sum(epochs == 10 for epochs in first) <= 8, "most trials of the first brackets are stopped"
