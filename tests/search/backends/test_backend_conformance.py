"""What every search backend promises; a new backend inherits all of it by a line in `BACKENDS`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import objectives
import pytest
from objectives import EPOCHS, curve, lines

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import BACKENDS, SAMPLERS, SCHEDULERS, SearchBudget
from shardwave.search.space import Choice, Grid, LogUniform, Space, Uniform
from shardwave.search.trial import SearchResult, Trial
from shardwave.search.trial_log import TrialLog, read_trials

SPACE = Space(
    {
        "quality": Uniform(0.2, 0.9),
        "rate": LogUniform(1e-5, 1e-1),
        "width": Grid((8, 16, 32)),
        "size": Grid((1, 2)),
        "kind": Choice(("a", "b")),
    },
    {"fixed": 3},
    {"quality": 0.5, "rate": 1e-3, "width": 16, "size": 2, "kind": "b"},
)
LEVELS = Space({"quality": Grid((0.9, 0.5, 0.1))})


class Case:
    """A backend with what its tests need to run it."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options

    def run(
        self, objective: Any, space: Space, seed: int = 0, log: TrialLog | None = None, **budget: Any
    ) -> SearchResult:
        jobs = 1 if self.name == "ray" else 2  # an actor takes seconds to start
        chosen = SearchBudget(**{"epochs": EPOCHS, "jobs": jobs, "scheduler": "none", **budget})
        return make_backend(self.name, **self.options).run(objective, space, chosen, seed, log)


@pytest.fixture(params=BACKENDS)
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "syne-tune":
        pytest.importorskip("syne_tune", reason="Syne Tune is not installed")
    address = {"address": request.getfixturevalue("ray_address")} if request.param == "ray" else {}
    return Case(request.param, address)


def test_values_epochs_and_times_arrive_as_reported(case: Case, tmp_path: Path) -> None:
    result = case.run(objectives.smooth, SPACE, trials=5, log=TrialLog(tmp_path))
    assert result.state == "COMPLETE" and result.error is None
    assert [trial.trial for trial in result.trials] == [0, 1, 2, 3, 4]
    for trial in result.trials:
        assert trial.state == "COMPLETE" and trial.attempt == 1 and trial.error is None
        assert trial.values == [curve(trial.params, epoch) for epoch in range(1, EPOCHS + 1)]
        assert trial.value == max(trial.values) and trial.best_epoch == EPOCHS and trial.epochs == EPOCHS
        assert trial.times == sorted(trial.times) and 0 <= trial.times[0] <= trial.times[-1] <= trial.seconds
        assert trial.spent == {"step": 0.06, "validation": 0.006} and trial.info["size"] == 7
        assert trial.worker.count(":") == 1
    best = max(result.trials, key=lambda trial: trial.params["quality"])
    assert result.best is best
    assert read_trials(tmp_path) == result.trials


@pytest.mark.parametrize("sampler", sorted(set().union(*SAMPLERS.values())))
def test_the_space_is_respected(case: Case, sampler: str) -> None:
    if sampler not in SAMPLERS[case.name]:
        with pytest.raises(
            UsageError, match=f"sampler of backend {case.name} must be one of .*, got {sampler}"
        ):
            case.run(objectives.smooth, SPACE, sampler=sampler)
        return
    result = case.run(
        objectives.smooth, SPACE, sampler=sampler, trials=12 if sampler == "gp" else 18
    )  # GP: 10 random ones first
    assert all(SPACE.contains(trial.params) for trial in result.trials)
    cells = Counter((trial.params["width"], trial.params["size"]) for trial in result.trials)
    if sampler in ("random", "grid"):
        assert cells == dict.fromkeys(cells, 3) and len(cells) == 6  # every cell, evenly
        assert result.trials[0].params == SPACE.point(
            0, 0, shuffle=sampler == "random"
        )  # the same on every backend
    assert len(result.trials) == (12 if sampler == "gp" else 18)
    if sampler == "priorband":  # keeps values of the prior and of the best trial
        return
    decades = Counter(math.floor(math.log10(trial.params["rate"])) for trial in result.trials[:10])
    assert (
        len(decades) >= 3 and max(decades.values()) <= 6
    )  # uniformly drawn, nine in ten would lie in the top decade
    assert len({trial.params["quality"] for trial in result.trials[:10]}) == 10


@pytest.mark.parametrize("scheduler", ["asha", "median", "hyperband"])
def test_a_bad_trial_is_stopped_early_and_a_good_one_is_not(case: Case, scheduler: str) -> None:
    if scheduler not in SCHEDULERS[case.name]:
        with pytest.raises(
            UsageError, match=f"scheduler of backend {case.name} must be one of .*, got {scheduler}"
        ):
            case.run(objectives.smooth, LEVELS, scheduler=scheduler)
        return
    result = case.run(objectives.smooth, LEVELS, scheduler=scheduler, sampler="grid", trials=12, jobs=1)
    good = [trial for trial in result.trials if trial.params["quality"] == 0.9]
    hopeless = [trial for trial in result.trials if trial.params["quality"] == 0.1]
    assert all(trial.state == "COMPLETE" and trial.epochs == EPOCHS for trial in good)
    assert all(trial.state == "PRUNED" and trial.epochs < EPOCHS for trial in hopeless[2:])
    if scheduler != "hyperband":
        assert all(trial.epochs <= 2 for trial in hopeless[2:])
    for trial in result.trials:
        assert trial.values == [curve(trial.params, epoch) for epoch in range(1, trial.epochs + 1)]


def test_no_trial_stops_within_the_grace_period(case: Case) -> None:
    scheduler = "median" if case.name == "random" else "asha"
    result = case.run(
        objectives.smooth, LEVELS, scheduler=scheduler, sampler="grid", trials=12, jobs=1, grace_period=3
    )
    assert min(trial.epochs for trial in result.trials) == 3


def test_failures_are_recorded_and_the_search_goes_on(case: Case) -> None:
    space = Space({"kind": Grid(("error", "memory", "nan", "silent", "good"))})
    result = case.run(objectives.several, space, trials=10)
    reasons = {
        "error": "ValueError: no such luck",
        "memory": "MemoryError: cannot allocate 12 GB",
        "nan": "ValueError: the value of epoch 1 is nan",
        "silent": "the objective reported no value",
    }
    assert result.state == "COMPLETE" and len(result.trials) == 10
    for trial in result.trials:
        kind = trial.params["kind"]
        if kind == "good":
            assert trial.state == "COMPLETE" and trial.epochs == EPOCHS and trial.error is None
        else:
            assert (
                trial.state == "FAILED"
                and trial.error == reasons[kind]
                and trial.values == []
                and trial.attempt == 1
            )
    assert result.best is not None and result.best.params["kind"] == "good"


def test_a_search_whose_trials_all_fail_says_so(case: Case) -> None:
    result = case.run(objectives.broken, LEVELS, trials=4)
    assert result.state == "FAILED" and result.best is None and len(result.trials) == 4
    assert result.error == "all 4 trials failed; the first: ValueError: no such luck"


def test_an_objective_that_cannot_be_prepared_ends_the_search_at_once(case: Case) -> None:
    with pytest.raises(
        ShardwaveError, match="a search worker could not start: FileNotFoundError: no shard set here"
    ):
        case.run(objectives.Unpreparable(), LEVELS, trials=4)


def test_the_seed_reproduces_the_parameters(case: Case) -> None:
    result = case.run(objectives.smooth, SPACE, seed=1, trials=4, sampler="random")
    points = [SPACE.point(number, 1) for number in range(4)]
    assert [trial.params for trial in result.trials] == points
    assert points != [SPACE.point(number, 2) for number in range(4)]


@pytest.mark.parametrize("sampler", ["random", "grid", "tpe", "priorband"])
def test_the_first_trial_has_the_default_values(case: Case, sampler: str) -> None:
    if sampler not in SAMPLERS[case.name]:
        return
    result = case.run(objectives.smooth, SPACE, trials=3, jobs=1, sampler=sampler, first_trial="default")
    points = [trial.params for trial in result.trials]
    assert points[0] == {**SPACE.prior, "fixed": 3} and points[0] not in points[1:]
    if sampler in ("random", "grid"):
        assert points[1:] == [SPACE.point(number, 0, shuffle=sampler == "random") for number in (1, 2)]


@pytest.mark.parametrize("sampler", ["random", "tpe", "cqr"])
def test_the_first_trials_have_the_recorded_values(case: Case, sampler: str) -> None:
    if sampler not in SAMPLERS[case.name]:
        return
    starts = [{"quality": 0.75}, {"quality": 0.5}]
    space = SPACE.with_starts(starts)
    result = case.run(objectives.smooth, space, trials=4, jobs=1, sampler=sampler, first_trial="recorded")
    points = [trial.params for trial in result.trials]
    assert [point["quality"] for point in points[:2]] == [0.75, 0.5]
    assert not {point["quality"] for point in points[2:]} & {0.75, 0.5}
    assert all(space.contains(point) for point in points)


def test_a_worker_starts_once_for_many_trials(case: Case, tmp_path: Path) -> None:
    case.run(objectives.Counting(tmp_path), LEVELS, trials=8)
    workers = set(lines(tmp_path / "ran"))
    assert len(lines(tmp_path / "ran")) == 8 and len(workers) <= 2
    assert workers <= set(lines(tmp_path / "prepared"))
    assert len(lines(tmp_path / "prepared")) <= (
        4 if case.name == "ray" else 2
    )  # Tune may start an actor that it then does not need


def test_a_killed_worker_is_replaced_and_its_trial_run_again(case: Case, tmp_path: Path) -> None:
    space = Space({"quality": Grid((0.25, 0.5, 0.75))})
    result = case.run(objectives.Dying(tmp_path), space, trials=3, sampler="grid")
    assert len(lines(tmp_path / "deaths")) == 1
    assert [trial.state for trial in result.trials] == ["COMPLETE"] * 3
    again = next(trial for trial in result.trials if trial.params["quality"] == 0.25)
    assert again.attempt == 2
    assert again.values == [
        curve(again.params, epoch) for epoch in range(1, EPOCHS + 1)
    ]  # those of the first attempt do not count


def test_a_trial_that_kills_every_worker_fails_with_the_reason(case: Case, tmp_path: Path) -> None:
    space = Space({"quality": Grid((0.25, 0.5))})
    result = case.run(objectives.Dying(tmp_path, times=9), space, trials=2, jobs=1, sampler="grid")
    failed, fine = sorted(result.trials, key=lambda trial: trial.params["quality"])
    assert (
        failed.state == "FAILED" and failed.attempt == 3 and "in each of 3 attempts" in (failed.error or "")
    )
    assert fine.state == "COMPLETE" and fine.attempt == 1
    assert len(lines(tmp_path / "deaths")) == 3


def recorded(number: int, quality: float) -> Trial:
    params = {"quality": quality}
    values = [curve(params, epoch) for epoch in range(1, EPOCHS + 1)]
    times = [0.1 * epoch for epoch in range(1, EPOCHS + 1)]
    return Trial(
        number, params, "COMPLETE", values, times, start=float(number), seconds=1.0, worker="elsewhere:1"
    )


def test_rungs_are_rebuilt_from_recorded_values(case: Case, tmp_path: Path) -> None:
    """Only the records are there: the first new trial is hopeless beside them, and is stopped as it would
    have been then."""
    earlier = TrialLog(tmp_path)
    for number in range(6):
        earlier.add(recorded(number, 0.9))
    scheduler = "median" if case.name == "random" else "asha"
    space = Space({"quality": Choice((0.1, 0.9))})
    points = [space.point(number, 0)["quality"] for number in range(6, 16)]
    result = case.run(
        objectives.smooth,
        space,
        trials=16,
        jobs=1,
        scheduler=scheduler,
        sampler="random",
        log=TrialLog(tmp_path),
    )
    assert len(result.trials) == 16 and [trial.params["quality"] for trial in result.trials[6:]] == points
    assert {trial.epochs for trial in result.trials[6:] if trial.params["quality"] == 0.1} == {1}
    assert {trial.epochs for trial in result.trials[6:] if trial.params["quality"] == 0.9} == {EPOCHS}
    assert [trial.worker for trial in result.trials[:6]] == ["elsewhere:1"] * 6


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_trials_that_were_running_are_run_again_under_their_numbers(
    case: Case, sampler: str, tmp_path: Path
) -> None:
    if sampler not in SAMPLERS[case.name]:
        return
    from shardwave.search.trial import Assignment

    space = Space({"quality": Uniform(0.1, 0.9)})
    earlier = TrialLog(tmp_path)
    earlier.start(Assignment(0, space.point(0, 0)), "elsewhere:1")
    earlier.report(0, 1, 0.5)
    earlier.end(0, "COMPLETE")
    lost = space.point(1, 0)
    earlier.start(Assignment(1, lost), "elsewhere:1")
    earlier.report(1, 1, 0.4)
    result = case.run(objectives.smooth, space, trials=3, sampler=sampler, log=TrialLog(tmp_path))
    assert [trial.trial for trial in result.trials] == [0, 1, 2]
    assert [trial.attempt for trial in result.trials] == [1, 2, 1]
    assert result.trials[1].params == lost and result.trials[0].values == [0.5]
    assert result.trials[1].values == [curve(lost, epoch) for epoch in range(1, EPOCHS + 1)]
    assert (
        len({trial.params["quality"] for trial in result.trials}) == 3
    )  # what comes next does not repeat what was


def test_a_finished_search_runs_nothing_more(case: Case, tmp_path: Path) -> None:
    space = Space({"quality": Grid((0.25, 0.5))})
    first = case.run(objectives.Counting(tmp_path), space, trials=2, log=TrialLog(tmp_path))
    again = case.run(objectives.Counting(tmp_path), space, trials=2, log=TrialLog(tmp_path))
    assert again.trials == first.trials and len(lines(tmp_path / "ran")) == 2
