"""GPUs of a search, counted and shared by trials; the GPUs are faked, so that no GPU is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.search import gpus
from shardwave.search.config import SearchConfig
from shardwave.search.run import search


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that makes PyTorch count a number of GPUs, in this process."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # the record of the environment asks for names if `is_available` counts by `device_count`, as it may
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "fake")
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def config(**options: Any) -> SearchConfig:
    return SearchConfig("cnn", "random", trials=20, epochs=1, val_fold=1, **options)


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 2, ["0", "1"]),
        ("", 0, []),
        ("3", 1, ["3"]),
        ("GPU-5f, GPU-7a", 2, ["GPU-5f", "GPU-7a"]),
        ("1,9,0", 1, ["1"]),  # CUDA ignores what follows an invalid number
    ],
)
def test_gpus_are_those_of_cuda_visible_devices(
    monkeypatch: pytest.MonkeyPatch, fake: Any, visible: str | None, count: int, expected: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    fake(count)
    assert gpus.visible_gpus() == expected and gpus.count_gpus("auto") == len(expected)
    assert gpus.count_gpus("cpu") == 0


@pytest.mark.parametrize(
    ("count", "options", "jobs", "share"),
    [
        (2, {}, 2, 1.0),
        (1, {"gpus_per_trial": 0.5}, 2, 0.5),
        (1, {"jobs": 4}, 4, 0.25),
        (2, {"jobs": 3}, 3, 0.5),  # with 2/3 of a GPU for each, the third trial would use parts of two GPUs
        (1, {"jobs": 1, "gpus_per_trial": 0.5}, 1, 0.5),
    ],
)
def test_trials_fit_the_gpus(fake: Any, count: int, options: dict[str, Any], jobs: int, share: float) -> None:
    fake(count)
    budget = config(**options).budget()
    assert (budget.jobs, budget.gpus_per_trial) == (jobs, share)
    gpus.check_capacity(jobs, share, count)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {"jobs": 4, "gpus_per_trial": 0.5}, "need more than the 1 GPU of this search; use --jobs 2,"),
        (2, {"jobs": 3, "gpus_per_trial": 0.6}, "need more than the 2 GPUs of this search; use --jobs 2,"),
        (0, {"gpus_per_trial": 0.5}, "--gpus-per-trial 0.5: the trials have no GPU"),
        (1, {"gpus_per_trial": 0.5, "device": "cpu"}, "--gpus-per-trial 0.5: the trials have no GPU"),
        (
            1,
            {"gpus_per_trial": 2},
            r"gpus_per_trial must be between 0 and 1 \(a trial trains on one GPU\), got 2",
        ),
    ],
)
def test_more_trials_than_fit_on_the_gpus_are_refused(
    fake: Any, count: int, options: dict[str, Any], message: str
) -> None:
    fake(count)
    with pytest.raises(UsageError, match=message):
        config(**options).budget()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fake GPU would be a real one")
def test_a_trial_with_a_gpu_share_does_not_use_the_cpu(feature_set: Path, tmp_path: Path, fake: Any) -> None:
    """PyTorch in the workers sees no GPU: the search must end, even though `device` is "auto"."""
    fake(1)
    options = SearchConfig("mlp", "random", trials=2, epochs=1, val_fold=1, fused=False)
    with pytest.raises(ShardwaveError, match="a search worker could not start: UsageError: device cuda"):
        search(feature_set, options, tmp_path / "run")
