"""Replays: simulated time, everyone's own parts deciding, reproducible, exact budgets."""

import pytest

from shardwave.bench.harness.record import read
from shardwave.bench.search_quality import curves, replay, strategies
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
        [{"params": {"x": x}, "values": [x / 2, x, x], "seconds": seconds} for x, seconds in rows],
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
    table = straight([(0.2, 1.0), (0.8, 2.5)])
    one = replay.replay_one(table, Fixed([0.2, 0.8]), 1, 3, 100)
    assert [step.seconds for step in one] == [1, 2, 3, 5.5, 8, 10.5]
    two = replay.replay_one(table, Fixed([0.2, 0.8]), 2, 3, 100)
    assert [(step.seconds, step.best) for step in two] == [
        (1, 0.1),
        (2, 0.2),
        (2.5, 0.4),
        (3, 0.4),
        (5, 0.8),
        (7.5, 0.8),
    ]
    assert [step.epochs for step in two] == [1, 2, 3, 4, 5, 6]


def test_stopped_trials_free_their_workers_and_the_budget_is_not_exceeded():
    driver = Fixed([0.2, 0.8, 0.8], {0: 1})
    steps = replay.replay_one(straight([(0.2, 1.0), (0.8, 1.0)]), driver, 1, 3, 5)
    assert len(steps) == 5
    assert [entry for entry in driver.log if isinstance(entry, str)] == ["PRUNED", "COMPLETE"]


def test_value_at_a_point_of_an_axis():
    steps = [replay.Step(1.0, 1, 0.3), replay.Step(2.0, 2, 0.5)]
    assert replay.best_at(steps, "seconds", (0.5, 1.0, 1.9, 9.0)).tolist() == [0.0, 0.3, 0.3, 0.5]
    assert replay.best_at(steps, "epochs", [2]) == 0.5


FAST = [name for name in strategies.names() if not name.startswith("optuna/gp")]


@pytest.mark.parametrize("name", FAST)
def test_every_strategy_spends_the_budget_and_beats_chance(name, table):
    work = replay.replay_setup(str(table), 10, 6)
    steps = work((name, 4, 1))
    assert 55 <= len(steps) <= 60
    assert work((name, 4, 1)) == steps, "the same seed gives the same search"
    assert steps[-1].best > 0.6
    assert all(later.seconds >= earlier.seconds for earlier, later in zip(steps, steps[1:], strict=False))


def test_gp_replays(table):
    assert len(replay.replay_setup(str(table), 10, 2)(("optuna/gp/asha", 1, 0))) == 20


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
def test_replay_writes_records_with_curves_and_ranks(tmp_path, table):
    only = ("optuna/tpe/asha", "ray/random/asha", "random/random/none")
    result = replay.replay(tmp_path / "out", table, workers=(1, 4), seeds=3, trainings=4, only=only)
    rows = read(tmp_path / "out")
    assert result["searches"] == 18 and len(rows) == 6 and (tmp_path / "out" / "report.html").exists()
    for row in rows:
        assert (row["unit"], row["n"], row["stage"]) == ("regret", 3, "search-quality")
        assert all(value >= 0 for value in row["repeats"])
        curve = row["params"]["over"]["epochs"]
        assert len(curve) == replay.GRID and curve[-1][0] == 40
        assert all(low <= middle <= high for _, low, middle, high in curve)
        assert [one[2] for one in curve] == sorted(one[2] for one in curve)
    assert sum(row["params"]["rank"] for row in rows) == pytest.approx(2 * 6, abs=0.1)
    assert {row["case"].split(": ")[1] for row in rows} == {
        "optuna/tpe/asha",
        "ray objects/random/asha",
        "random/random/none",
    }
    assert {row["role"] for row in rows if "random/random/none" in row["case"]} == {"peer"}
    with pytest.raises(UsageError, match="holds bench records already"):
        replay.replay(tmp_path / "out", table)


WRONG = [
    ({"seeds": 0}, "--seeds"),
    ({"only": ("nothing",)}, "--only"),
    ({"epochs": 99}, "--epochs must be between 1 and 10"),
]


@pytest.mark.parametrize(("options", "rule"), WRONG)
def test_wrong_usage(tmp_path, table, options, rule):
    with pytest.raises(UsageError, match=rule):
        replay.replay(tmp_path, table, **options)
