"""What Optuna's backend has beyond the others: shared storages, several machines on one study, model-based
samplers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import objectives
import pytest
from objectives import EPOCHS, lines

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.search.backends.optuna.owner import is_running, register_owner, unregister
from shardwave.search.backends.optuna.parts import distributions, open_storage
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, LogUniform, Space, Uniform
from shardwave.search.trial_log import TrialLog

SPACE = Space({"quality": Uniform(0.1, 0.9), "rate": LogUniform(1e-4, 1e-1), "width": Grid((8, 16))})


def test_several_processes_share_one_study(tmp_path: Path) -> None:
    storage, script = f"journal:{tmp_path}/study.journal", Path(__file__).parents[2] / "run_search.py"
    folders = [tmp_path / name for name in ("one", "two")]
    processes = []
    for folder in folders:
        folder.mkdir()
        command = [sys.executable, str(script), "optuna", str(folder), "Counting", "10", storage]
        processes.append(
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env={**os.environ, "SHARDWAVE_QUIET": "1"}
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    ran = [len(lines(folder / "ran")) for folder in folders]
    assert sum(ran) == 10  # exactly as many as asked for, together
    last = max(
        (json.loads((folder / "outcome.json").read_text()) for folder in folders),
        key=lambda found: len(found["trials"]),
    )
    assert [row["trial"] for row in last["trials"]] == list(range(10)) and last["state"] == "COMPLETE"


def test_another_search_under_the_same_name_is_refused(tmp_path: Path) -> None:
    backend = make_backend("optuna", storage=f"sqlite:///{tmp_path}/study.db", study="one")
    backend.run(objectives.smooth, SPACE, SearchBudget(trials=2, epochs=EPOCHS, jobs=1), 0)
    with pytest.raises(UsageError, match="study one is another search: epochs 6 .there. and 3 .here."):
        backend.run(objectives.smooth, SPACE, SearchBudget(trials=2, epochs=3, jobs=1), 0)
    more = backend.run(objectives.smooth, SPACE, SearchBudget(trials=4, epochs=EPOCHS, jobs=1), 0)
    assert [trial.trial for trial in more.trials] == [0, 1, 2, 3]  # two were there, two came


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_with_one_job_the_seed_reproduces_everything(sampler: str) -> None:
    budget = SearchBudget(trials=14, epochs=EPOCHS, jobs=1, scheduler="asha", sampler=sampler)
    one, same, other = (
        make_backend("optuna").run(objectives.smooth, SPACE, budget, seed) for seed in (1, 1, 2)
    )
    assert [(trial.params, trial.values, trial.state) for trial in one.trials] == [
        (trial.params, trial.values, trial.state) for trial in same.trials
    ]
    assert one.trials[0].params != other.trials[0].params


def test_tpe_learns_and_a_resumed_search_keeps_its_trials(tmp_path: Path) -> None:
    def search(trials: int) -> list[float]:
        budget = SearchBudget(trials=trials, epochs=EPOCHS, jobs=1, scheduler="none", sampler="tpe")
        result = make_backend("optuna").run(objectives.smooth, SPACE, budget, 0, TrialLog(tmp_path))
        return [trial.params["quality"] for trial in result.trials]

    first, all_of_them = search(12), search(40)
    assert all_of_them[:12] == first and len(set(all_of_them)) == 40
    assert sum(all_of_them[25:]) / 15 > 0.7 > sum(all_of_them[:10]) / 10  # random ones average 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage": "somewhere"}, "--storage must be a URL"),
        ({"storage": "grpc://host"}, "--storage of a gRPC proxy must be grpc://HOST:PORT, got grpc://host"),
        (
            {"storage": "mysql://user:pass@host/db"},
            "--storage mysql://user:...@host/db needs a database driver",
        ),
        ({"study": "name"}, "--study needs --storage URL"),
        ({"address": "auto"}, "backend optuna does not take --address"),
    ],
)
def test_wrong_usage(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_backend("optuna", **options).run(
            objectives.smooth, SPACE, SearchBudget(trials=1, epochs=1, jobs=1), 0
        )


def test_a_missing_database_raises_one_line(tmp_path: Path) -> None:
    backend = make_backend("optuna", storage=f"sqlite:///{tmp_path}/no/such/folder/study.db")
    with pytest.raises(ShardwaveError, match="--storage sqlite.*unable to open database file"):
        backend.run(objectives.smooth, SPACE, SearchBudget(trials=1, epochs=1, jobs=1), 0)


def test_trials_of_a_machine_without_heartbeats_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    monkeypatch.setattr("shardwave.search.backends.optuna.owner.STALE_SECONDS", 1.5)
    url, budget = f"journal:{tmp_path}/study.journal", SearchBudget(trials=3, epochs=EPOCHS, jobs=1)
    backend = make_backend("optuna", storage=url, study="one")
    backend.run(objectives.smooth, SPACE, SearchBudget(trials=2, epochs=EPOCHS, jobs=1), 0)
    study = optuna.load_study(storage=open_storage(url, None), study_name="one")
    study.enqueue_trial({"quality": 0.5, "rate": 0.01, "width": 8}, user_attrs={"trial": 2, "attempt": 1})
    live = study.ask(distributions(SPACE))
    live.set_user_attr("owner", {**register_owner(), "host": "elsewhere"})  # and then that machine was lost
    trials = backend.run(objectives.smooth, SPACE, budget, 0).trials
    assert [(trial.trial, trial.attempt) for trial in trials] == [(0, 1), (1, 1), (2, 2)]
    assert trials[2].params == {"quality": 0.5, "rate": 0.01, "width": 8}


def test_running_and_ended_owners_are_distinguished() -> None:
    me = register_owner()
    assert (
        is_running(me) and not is_running({**me, "started": "0"}) and not is_running({**me, "pid": 2**22 + 1})
    )
    assert is_running({**me, "host": "elsewhere", "pid": 2**22 + 1})  # of another machine nothing is known
    unregister(me)
    assert not is_running(me)  # its process goes on, and must not wait for itself
