"""Workers of one GPU, which is faked, share resident copies; here these lie in shared memory of the host."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from objectives import lines
from shared_training import SharedTraining

from shardwave.common.errors import ShardwaveError
from shardwave.search import gpus
from shardwave.search.backends.random import RandomBackend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, Space
from shardwave.search.trial import Trial
from shardwave.search.workers.copy_owner import CopyOwner, request

SPACE = Space({"learning_rate": Grid((1e-3, 3e-3, 1e-2, 3e-2)), "dropout": Grid((0.2,))})


def run(
    feature_set: Path, notes: Path, share: float, kill_owner: bool = False, device: str = "cpu"
) -> list[Trial]:
    budget = SearchBudget(trials=4, epochs=3, jobs=2, sampler="grid", scheduler="none", gpus_per_trial=share)
    notes.mkdir(exist_ok=True)
    result = RandomBackend().run(SharedTraining(feature_set, notes, kill_owner, device), SPACE, budget, 0)
    assert [trial.state for trial in result.trials] == ["COMPLETE"] * 4, [t.error for t in result.trials]
    return result.trials


def outcome(trial: Trial) -> object:
    return trial.params, trial.values, trial.info["scores"], trial.info["best_epoch"]


def test_the_workers_of_a_gpu_map_one_copy(
    feature_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the trials have the results of trainings with copies of their own."""
    own = run(feature_set, tmp_path / "own", 0.0)
    assert not lines(tmp_path / "own/made")
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ["7"])
    shared = run(feature_set, tmp_path / "shared", 0.5)
    made = [line.split() for line in lines(tmp_path / "shared/made")]
    places, workers = defaultdict(set), set()
    for line in lines(tmp_path / "shared/mapped"):
        pid, key, place = line.split()
        places[key].add(place)
        workers.add(pid)
    assert len(workers) == 2 and not {pid for pid, _ in made} & workers
    assert sorted(key for _, key in made) == sorted(places)  # each copy is made once
    assert all(len(each) == 1 for each in places.values())
    assert [outcome(trial) for trial in shared] == [outcome(trial) for trial in own]


def test_trials_run_again_if_their_owner_dies(
    feature_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = run(feature_set, tmp_path / "own", 0.0)
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ["7"])
    shared = run(feature_set, tmp_path / "shared", 0.5, kill_owner=True)
    assert (tmp_path / "shared/killed").exists() and shared[2].attempt == 2
    assert len({line.split()[0] for line in lines(tmp_path / "shared/made")}) == 2  # owners
    assert [outcome(trial) for trial in shared] == [outcome(trial) for trial in own]


@pytest.mark.gpu
def test_the_workers_of_a_real_gpu_map_one_copy(feature_set: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    own = run(feature_set, tmp_path / "own", 0.0, device="cuda")
    shared = run(feature_set, tmp_path / "shared", 0.5, device="cuda")
    assert {line.split()[2] for line in lines(tmp_path / "shared/mapped")} == {"gpu"}
    keys = [line.split()[1] for line in lines(tmp_path / "shared/made")]
    assert len(keys) == len(set(keys))
    assert [outcome(trial) for trial in shared] == [outcome(trial) for trial in own]


class Failing:
    modules = ("torch",)

    def load_copy(self, key: str) -> object:
        if key == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if key == "shards":
            raise ValueError("no such\nshards")
        return None if key == "large" else Unshareable()

    def __call__(self, params: dict, report: object) -> None: ...


class Unshareable:
    """Fails as a CUDA tensor does where processes cannot share the memory of a GPU."""

    def __reduce__(self) -> object:
        raise RuntimeError("CUDA error: operation not supported")


def test_errors_of_the_owner_reach_the_worker() -> None:
    owner = CopyOwner(Failing(), "0", 1)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        request(owner.address, "memory")
    with pytest.raises(ShardwaveError, match="^ValueError: no such shards$"):
        request(owner.address, "shards")
    assert request(owner.address, "large") is None
    assert request(owner.address, "unshareable") is None
    assert not owner.has_ended()
    assert owner.end() == 0 and not os.path.exists(owner.address)
    with pytest.raises(SystemExit, match="has ended"):
        request(owner.address, "large")
