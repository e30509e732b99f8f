"""Names of strategies, and the settings that they contain."""

import pytest

from shardwave.bench.search_quality import curves, replay, strategies, suite
from shardwave.common.errors import UsageError
from shardwave.search.budget import SearchBudget


def first_stops(name, table, jobs=1):
    """The first trial's parameters and the epochs of the stopped trials of a replay of 20 trainings."""
    read_table = curves.read(table)
    driver = strategies.make_driver(name, read_table.space, SearchBudget(trials=200, epochs=10, jobs=jobs), 0)
    asked, stopped, ask, end = [], set(), driver.ask, driver.end

    def asking():
        if (assignment := ask()) is not None:
            asked.append(assignment.params)
        return assignment

    def ending(trial):
        if trial.state == "PRUNED":
            stopped.add(trial.epochs)
        end(trial)

    driver.ask, driver.end = asking, ending
    replay.replay_one(read_table, driver, jobs, 10, 200)
    return asked[0], stopped


def test_names_are_unique_and_their_settings_take_effect(table):
    assert len(set(strategies.names())) == len(strategies.names())
    prior = curves.read(table).space.prior
    assert prior and first_stops("optuna/tpe/asha+first:default", table)[0] == prior
    assert first_stops("optuna/tpe/asha", table)[0] != prior
    assert first_stops("optuna/random/asha", table)[1] == {1, 3, 9}
    assert first_stops("optuna/random/asha+grace:auto", table)[1] == {3, 9}
    assert first_stops("optuna/random/asha+reduction:2", table)[1] == {1, 2, 4, 8}
    assert first_stops("optuna/random/asha+grace:99", table)[1] == set()


@pytest.mark.parametrize("trainings", [1, 50])
@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize("sampler", ["tpe-univariate", "cmaes", "qmc", "priorband"])
def test_small_and_large_budgets_are_spent(table, sampler, workers, trainings):
    work = suite.setup((str(table),), trainings)
    found = work(suite.Task(0, f"optuna/{sampler}/asha+first:default", workers, 0))
    assert found.steps[-1].epochs == 10 * trainings


def test_wrong_settings_are_named(table):
    for setting in ("grace:soon", "reduction:x", "speed:2"):
        with pytest.raises(UsageError, match=f"a strategy takes .*, got .{setting}"):
            first_stops(f"optuna/tpe/asha+{setting}", table)
