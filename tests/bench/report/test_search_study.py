"""Blocks of a search's trials: importances, charts, and what is said when there are too few trials."""

from __future__ import annotations

import base64
import random

import optuna

from shardwave.bench.report.blocks import Bars, Chart, Text
from shardwave.bench.report.search_study import importances, study_blocks, study_of
from shardwave.search.space import Choice, LogUniform, Space, Uniform
from shardwave.search.trial import Trial

SPACE = Space(
    {"rate": LogUniform(1e-4, 1e-1), "kind": Choice(("a", "b")), "idle": Uniform(0.0, 1.0)}, {"fixed": 3}
)


def trials(count: int) -> list[Trial]:
    """Trials of two workers, whose value follows from `rate`, a little from `kind`, not from `idle`."""
    made = []
    for number in range(count):
        params = SPACE.point(number, 0)
        top = 0.9 - 3 * abs(params["rate"] - 0.02) - 0.02 * (params["kind"] == "b")
        state = random.Random(number).choice(["COMPLETE", "COMPLETE", "PRUNED"])
        values = [top * (1 - 0.5**epoch) for epoch in range(1, 6 if state == "COMPLETE" else 2)]
        made.append(
            Trial(
                number, params, state, values, [0.1 * epoch for epoch in range(1, len(values) + 1)],
                start=float(number // 2), seconds=0.9, worker=f"host:{number % 2}",
            )
        )  # fmt: skip
    failed = Trial(count, SPACE.point(count, 0), "FAILED", start=9.0, seconds=0.1, worker="host:1", error="x")
    return [*made, failed]


def svg(chart: Chart) -> str:
    assert chart.source.startswith("data:image/svg+xml;base64,")
    return base64.b64decode(chart.source.partition(",")[2]).decode()


def test_the_study_has_the_trials_and_the_parameter_that_matters_is_the_most_important() -> None:
    study = study_of(trials(40), SPACE)
    states = [trial.state for trial in study.trials]
    assert len(states) == 41 and states[-1] == optuna.trial.TrialState.FAIL
    assert states.count(optuna.trial.TrialState.COMPLETE) == sum(
        trial.state == "COMPLETE" for trial in trials(40)
    )
    assert study.trials[3].intermediate_values == dict(enumerate(trials(40)[3].values, 1))
    shares = importances(study)
    assert list(shares)[0] == "rate" and sum(shares.values()) > 0.99
    assert shares["rate"] > 0.5 > shares["idle"]


def test_charts_show_the_two_most_important_parameters_all_trials_and_the_workers() -> None:
    blocks = study_blocks(trials(40), SPACE.describe())
    (bars,) = [block for block in blocks if isinstance(block, Bars)]
    names = [bar.label for bar in bars.bars]
    assert sorted(names) == ["idle", "kind", "rate"]
    charts = {block.title: svg(block) for block in blocks if isinstance(block, Chart)}
    assert list(charts) == [
        "Values over epochs, all trials",
        "Timeline of the trials by worker",
        f"Complete trials over {names[0]} and over {names[1]}",
        f"Contours over {names[0]} and {names[1]}",
    ]
    values, timeline, slices, contours = charts.values()
    assert "worker 1" in timeline and "worker 2" in timeline and "worker 3" not in timeline
    assert all(f">{state}<" in timeline for state in ("COMPLETE", "PRUNED", "FAILED"))
    assert "epoch" in values and "Trial39" not in values  # no entry per trial
    for name in names[:2]:
        assert name in slices and name in contours
    assert any(isinstance(block, Text) and "is not estimated" in block.text for block in blocks)


def test_few_trials_have_no_importances_but_curves() -> None:
    blocks = study_blocks(trials(1), SPACE.describe())
    assert [type(block) for block in blocks] == [Text, Chart, Chart, Text]
    assert "need 4 complete trials" in blocks[0].text


def test_the_settings_of_matplotlib_are_restored() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    study_blocks(trials(8), SPACE.describe())
    assert dict(matplotlib.rcParams) == before
