"""Replays: simulated time, everyone's own parts deciding, reproducible, exact budgets."""

import pytest

from shardwave.bench.harness.record import read
from shardwave.bench.search_quality import curves, replay, strategies, suite
from shardwave.common.errors import UsageError
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space, Uniform
from shardwave.search.trial import Assignment, Trial

LINE = Space({"x": Uniform(0.0, 1.0)})


def straight(rows):
    """A table whose row x has the value x after every epoch and takes `seconds` an epoch."""
    return curves.Table(
        "line",
        LINE,
        [curves.Row({"x": x}, [x / 2, x, x], seconds, test=[0.1, x / 4, 0.2]) for x, seconds in rows],
    )


class Fixed:
    """Hands out given points; stops trials at given epochs."""

    def __init__(self, points, stops=()):
        self.points, self.stops, self.log, self.asked = list(points), dict(stops), [], 0

    def ask(self):
        if self.asked == len(self.points):
            return None
        self.asked += 1
        return Assignment(self.asked - 1, {"x": self.points[self.asked - 1]})

    def report(self, trial):
        self.log.append((trial.trial, trial.epochs, trial.values[-1]))
        return self.stops.get(trial.trial) == trial.epochs

    def end(self, trial):
        self.log.append(trial.state)


def test_workers_run_side_by_side_in_simulated_time():
    """The last step and those at which the best value rose are kept."""
    table = straight([(0.2, 1.0), (0.8, 2.5)])
    one = replay.replay_one(table, Fixed([0.2, 0.8]), 1, 3, 100)
    rises = [(1, 1, 0.1), (2, 2, 0.2), (5.5, 4, 0.4), (8, 5, 0.8), (10.5, 6, 0.8)]
    assert [step[:3] for step in one.steps] == rises and one.trials == 2
    two = replay.replay_one(table, Fixed([0.2, 0.8]), 2, 3, 100)
    rises = [(1, 1, 0.1), (2, 2, 0.2), (2.5, 3, 0.4), (5, 5, 0.8), (7.5, 6, 0.8)]
    assert [step[:3] for step in two.steps] == rises


def test_the_test_accuracy_is_that_of_the_best_epoch():
    found = replay.replay_one(straight([(0.2, 1.0), (0.8, 1.0)]), Fixed([0.2, 0.8]), 1, 3, 100)
    assert [step.test for step in found.steps] == [0.1, 0.05, 0.1, 0.2, 0.2]


def test_stopped_trials_free_their_workers_and_the_budget_is_not_exceeded():
    driver = Fixed([0.2, 0.8, 0.8], {0: 1})
    found = replay.replay_one(straight([(0.2, 1.0), (0.8, 1.0)]), driver, 1, 3, 5)
    assert found.steps[-1].epochs == 5
    assert [entry for entry in driver.log if isinstance(entry, str)] == ["PRUNED", "COMPLETE"]


FAST = [name for name in strategies.names() if not name.startswith("optuna/gp")]


@pytest.mark.parametrize("name", FAST)
def test_every_strategy_spends_the_budget_and_beats_chance(name, table):
    work = suite.setup((str(table),), 6)
    task = suite.Task(0, name, 4, 1)
    steps = work(task).steps
    assert 55 <= steps[-1].epochs <= 60
    assert work(task).steps == steps, "the same seed gives the same search"
    assert steps[-1].best > 0.6
    assert all(later.seconds >= earlier.seconds for earlier, later in zip(steps, steps[1:], strict=False))


def test_gp_replays(table):
    work = suite.setup((str(table),), 2)
    assert work(suite.Task(0, "optuna/gp/asha", 1, 0)).steps[-1].epochs == 20


@pytest.mark.parametrize("name", ["optuna/random/asha", "ray/random/asha", "optuna/random/hyperband"])
def test_schedulers_really_stop(name, table):
    found = {}
    budget = SearchBudget(trials=60, epochs=10)
    read_table = curves.read(table)
    driver = strategies.make_driver(name, read_table.space, budget, 0)
    real = driver.end
    driver.end = lambda trial: (found.__setitem__(trial.trial, (trial.epochs, trial.state)), real(trial))
    replay.replay_one(read_table, driver, 2, 10, 200)
    states = [state for _, state in found.values()]
    assert states.count("PRUNED") > states.count("COMPLETE") >= 1
    assert {epochs for epochs, state in found.values() if state == "PRUNED"} <= {1, 3, 9}


def test_ray_objects_stop_as_tune_would(table):
    """Ray's own rule on a hand-made rung: a value below the best third of those at epoch 1 is stopped, one
    above goes on."""
    driver = strategies.make_driver(
        "ray/random/asha", curves.read(table).space, SearchBudget(trials=9, epochs=9), 0
    )
    decisions = []
    for value in (0.9, 0.8, 0.7, 0.1, 0.95):
        assignment = driver.ask()
        decisions.append(driver.report(Trial(assignment.trial, assignment.params, values=[value])))
    assert decisions == [False, True, True, True, False]


def test_baseline_gives_one_epoch_to_all_and_the_rest_to_the_best(table):
    seen = {}
    driver = strategies.make_driver(
        strategies.BASELINES[1], curves.read(table).space, SearchBudget(trials=60, epochs=10), 0
    )
    real = driver.report
    driver.report = lambda trial: (
        seen.__setitem__(trial.trial, (trial.epochs, trial.values[0])),
        real(trial),
    )[1]
    replay.replay_one(curves.read(table), driver, 3, 10, 60)
    full = {number for number, (epochs, _) in seen.items() if epochs == 10}
    assert len(seen) == 30 and len(full) == 3
    assert full == set(sorted(seen, key=lambda number: seen[number][1])[-3:])


@pytest.mark.slow
def test_the_suite_writes_records_with_speed_ups_ranks_and_a_report(tmp_path, table):
    only = ("optuna/tpe/asha+reduction:2", "ray/tpe/median")
    result = suite.replay(tmp_path / "out", [table], workers=(1, 4), seeds=3, trainings=4, only=only)
    rows = read(tmp_path / "out")
    assert result["searches"] == 27 and len(rows) == 6, "the random search is added"
    assert "Friedman" in (tmp_path / "out" / "report.html").read_text()
    for row in rows:
        assert (row["unit"], row["n"], row["stage"]) == ("regret", 3, "search-quality")
        regret = row["params"]["regret"]
        assert [point for point, *_ in regret] == [0.5, 1, 2, 3]
        assert all(low <= middle <= high for _, low, middle, high in regret)
        slow, speed, fast = row["params"]["speed_up"]
        assert slow <= speed <= fast
        if row["role"] == "baseline":
            assert speed == 1 and row["params"]["beaten_by"] == []
    assert suite.replay(tmp_path / "again", [table], (1,), 3, 4, ["ray/tpe/median"])["searches"] == 12
    again = {row["case"]: row["repeats"] for row in read(tmp_path / "again")}
    assert all(row["repeats"] == again[row["case"]] for row in rows if row["case"] in again)
    with pytest.raises(UsageError, match="holds bench records already"):
        suite.replay(tmp_path / "out", [table])


WRONG = [({"seeds": 0}, "--seeds must be 1 or more, got 0"), ({"only": ("nothing",)}, "--only nothing")]


@pytest.mark.parametrize(("options", "rule"), WRONG)
def test_wrong_usage(tmp_path, table, options, rule):
    with pytest.raises(UsageError, match=rule):
        suite.replay(tmp_path, [table], **options)
