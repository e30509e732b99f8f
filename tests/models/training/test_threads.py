"""Threads: idle ones sleep, small models use one, and the number changes no result beyond rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from shardwave.models.data.training_data import TrainingData
from shardwave.models.networks.base import Inputs
from shardwave.models.networks.build import build_model
from shardwave.models.training.config import defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.threads import limit_threads, useful_threads
from shardwave.models.training.train import train

FEATURES = Inputs("features.npy", (130,), 10, torch.zeros(130), torch.ones(130))
IMAGES = Inputs("npy", (128, 128), 10, torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize(
    "module", ["shardwave.models.training.fit", "shardwave.shards.read.loader", "shardwave.search.fused.mlp"]
)
def test_idle_threads_sleep_whichever_package_is_imported_first(module: str) -> None:
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in _openmp(module)


def test_a_wait_policy_of_the_user_is_kept() -> None:
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in _openmp("shardwave.models.training.fit", OMP_WAIT_POLICY="ACTIVE")


def _openmp(module: str, **variables: str) -> str:
    """What the OpenMP runtime of torch says of its settings in a process that imports `module`."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "GOMP_"))
    }
    environment |= {"OMP_DISPLAY_ENV": "true", **variables}
    run = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return run.stderr


@pytest.mark.parametrize(
    ("model", "inputs", "options", "threads"),
    [
        ("mlp", FEATURES, {}, 1),
        ("mlp", FEATURES, {"batch_size": 16, "hidden_size": 128}, 1),
        ("mlp", FEATURES, {"batch_size": 1024, "hidden_size": 2048}, 8),
        ("cnn", IMAGES, {}, 8),
        ("cnn-plus", IMAGES, {}, 8),
    ],
)
def test_small_models_use_one_thread(
    model: str, inputs: Inputs, options: dict[str, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    config = defaults(model, **options)
    with limit_threads(8):
        assert useful_threads(build_model(config, inputs), config.batch_size) == threads


def test_omp_num_threads_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with limit_threads(3):
        assert useful_threads(build_model(defaults("mlp"), FEATURES), 32) == 3


@pytest.mark.parametrize("model", ["mlp", "cnn-plus"])
def test_results_do_not_depend_on_the_number(
    model: str, folded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "as set below")
    config = defaults(
        model, epochs=2, batch_size=8, val_fold=1, device="cpu", hidden_size=32, conv1_channels=4
    )
    data, losses = TrainingData(folded, config), []
    for threads in (1, 4):
        with limit_threads(threads):
            losses.append([entry["train_loss"] for entry in fit(data, config).history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_records_its_threads_and_restores_the_number(
    folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with limit_threads(2):
        small = {"epochs": 1, "val_fold": 1, "device": "cpu", "hidden_size": 8, "conv1_channels": 4}
        for model, threads in (("mlp", 1), ("cnn-plus", 2)):
            found = train(folded, defaults(model, **small), tmp_path / model)
            assert found["threads"] == threads
        assert torch.get_num_threads() == 2
