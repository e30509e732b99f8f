"""PriorBand: shares of uniform, prior and best samples, and the configurations that they follow from."""

from __future__ import annotations

import math
import statistics

import optuna
import pytest

from shardwave.search.backends.optuna.parts import distributions
from shardwave.search.backends.optuna.priorband import PriorBandSampler
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Choice, LogUniform, Space, Uniform

DIMENSIONS = {
    "rate": LogUniform(1e-4, 1e-2),
    "drop": Uniform(0.0, 1.0),
    "kind": Choice(("a", "b", "c", "d")),
}
SPACE = Space(DIMENSIONS, prior={"rate": 1e-4, "drop": 0.0, "kind": "a"})
DRAWS = 1500


def study_of(space: Space, scheduler: str, finished: list[tuple[dict, list[float]]]) -> optuna.Study:
    budget = SearchBudget(trials=9, epochs=9, scheduler=scheduler, sampler="priorband")
    sampler = PriorBandSampler(space, distributions(space), budget, seed=1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for params, values in finished:
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=distributions(space),
                value=max(values),
                intermediate_values=dict(enumerate(values, 1)),
            )
        )
    return study


def drawn(study: optuna.Study, space: Space = SPACE) -> list[dict]:
    trial = study.ask()
    points = [study.sampler.sample_relative(study, trial, {}) for _ in range(DRAWS)]
    assert all(space.contains(point) for point in points)
    return points


@pytest.mark.parametrize(("scheduler", "uniform"), [("asha", 1 / 2), ("none", 1 / 10)])
def test_samples_before_the_first_results_are_uniform_or_near_the_prior(
    scheduler: str, uniform: float
) -> None:
    points = drawn(study_of(SPACE, scheduler, []))
    # near the prior, a category is kept with 1/2 + 1/8
    assert statistics.fmean(point["kind"] == "a" for point in points) == pytest.approx(
        uniform / 4 + (1 - uniform) * 5 / 8, abs=0.04
    )
    # a half-normal of width 0.25 lies below 0.25 with 68 %
    assert statistics.fmean(point["drop"] < 0.25 for point in points) == pytest.approx(
        uniform / 4 + (1 - uniform) * 0.683, abs=0.04
    )
    assert statistics.fmean(math.log10(point["rate"]) < -3.5 for point in points) == pytest.approx(
        uniform / 4 + (1 - uniform) * 0.683, abs=0.04
    )


def test_a_good_trial_far_from_the_prior_takes_over_its_share() -> None:
    far = {"rate": 1e-2, "drop": 1.0, "kind": "d"}
    bad = {"rate": 1e-4, "drop": 0.0, "kind": "a"}
    points = drawn(study_of(SPACE, "none", [(far, [0.9] * 9), (bad, [0.1] * 9), (bad, [0.2] * 9)]))
    assert statistics.fmean(point["kind"] == "d" for point in points) > 0.65
    assert statistics.fmean(point["drop"] == 1.0 for point in points) == pytest.approx(0.9 / 2, abs=0.05)


def test_trials_are_ranked_at_the_last_epoch_that_enough_of_them_reached() -> None:
    best = {"rate": 1e-2, "drop": 1.0, "kind": "d"}
    early = {"rate": 1e-2, "drop": 0.5, "kind": "c"}
    finished = [(best, [0.1, 0.1, 0.9]), (early, [0.8]), (early, [0.7])]
    # one epoch is all that three trials have: the first of `early` leads there, although `best` ends higher
    points = drawn(study_of(SPACE, "asha", finished))
    assert any(point["drop"] == 0.5 for point in points) and all(point["drop"] != 1.0 for point in points)
    more = [*finished, (best, [0.0, 0.0, 0.8]), (best, [0.0, 0.0, 0.7])]
    points = drawn(study_of(SPACE, "asha", more))
    assert any(point["drop"] == 1.0 for point in points) and all(point["drop"] != 0.5 for point in points)


def test_without_a_prior_its_share_is_uniform() -> None:
    space = Space(DIMENSIONS)
    points = drawn(study_of(space, "asha", []), space)
    assert statistics.fmean(point["drop"] for point in points) == pytest.approx(0.5, abs=0.03)
