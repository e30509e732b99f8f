"""Syne Tune: a missing package, reproducible searches, the schedulers' decisions in replays."""

from __future__ import annotations

import sys

import objectives
import pytest
from objectives import EPOCHS

from shardwave.common.errors import UsageError
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Choice, Space, Uniform

SPACE = Space({"quality": Uniform(0.1, 0.9), "kind": Choice(("a", "b"))})


def test_a_missing_package_raises_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("syne_tune.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "syne_tune", None)
    with pytest.raises(UsageError, match=r"needs the package syne-tune .*pip install .shardwave.syne-tune.."):
        make_backend("syne-tune")


@pytest.mark.parametrize(("sampler", "scheduler"), [("cqr", "asha"), ("bore", "none"), ("kde", "asha")])
def test_with_one_job_the_seed_reproduces_everything_and_models_learn(sampler: str, scheduler: str) -> None:
    pytest.importorskip("syne_tune", reason="Syne Tune is not installed")
    budget = SearchBudget(trials=10, epochs=EPOCHS, jobs=1, scheduler=scheduler, sampler=sampler)
    one, same = (
        [
            (trial.params, trial.state, trial.epochs)
            for trial in make_backend("syne-tune").run(objectives.smooth, SPACE, budget, seed).trials
        ]
        for seed in (1, 1)
    )
    assert one == same and all(SPACE.contains(params) for params, _, _ in one)
    assert {state for _, state, _ in one} == ({"COMPLETE", "PRUNED"} if scheduler == "asha" else {"COMPLETE"})
    if sampler == "cqr":  # five random ones first
        assert max(params["quality"] for params, _, _ in one[5:]) > 0.85
