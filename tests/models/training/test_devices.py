"""Trainings on other devices than the CPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.evaluate import evaluate
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.train import train
from shardwave.shards.read.resident import Resident
from tests.one_device import OneDevice

AUGMENTED = {"time_shift": True, "frequency_mask": 0.2, "time_mask": 0.2, "ema_decay": 0.9}
AUGMENTED |= {"schedule": "one-cycle", "label_smoothing": 0.1, "class_weights": "balanced"}
MODELS = pytest.mark.parametrize(
    ("model", "options"), [("mlp", {}), ("cnn", {}), ("cnn-plus", {**AUGMENTED, "train_view": "both"})]
)


def config_of(model: str, device: str, **options: Any) -> TrainConfig:
    return defaults(model, **{"val_fold": 1, "epochs": 2, "batch_size": 8, "device": device, **options})


@MODELS
def test_no_tensor_of_a_step_is_on_the_cpu(folded: Path, model: str, options: dict[str, Any]) -> None:
    """So a GPU can compute it; the device `meta`, which has no memory, cannot draw the weight of mixup."""
    config = config_of(model, "cpu", mixup=0.0, **options)
    data = TrainingData(folded, config)
    learner = data.learner(config, 3).to("meta").train()
    batch = {name: tensor.to("meta") for name, tensor in next(iter(data.train_batches(config))).items()}
    with OneDevice():
        loss = learner.training_step(batch)
        torch.autograd.backward(loss)
        learner.after_step()
        with torch.no_grad():
            learner.validation_step(batch, 0)
    assert loss.is_meta and learner.validated[0].parts[0][0].is_meta
    learner.class_weights = torch.ones(3)
    with OneDevice(), pytest.raises(RuntimeError, match="device"):
        learner.training_step(batch)


@MODELS
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_training_and_scores_on_a_device(
    folded: Path, tmp_path: Path, device: str, model: str, options: dict[str, Any]
) -> None:
    """Equal for both loops; on a GPU from a copy there, in bfloat16 where the GPU has it.

    Not all gradients are deterministic on a GPU, so only the first loss is compared there, within rounding.
    """
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = config_of(model, device, mixup=0.2, **options)
    data = TrainingData(folded, config)
    source = data.train_batches(config).source
    assert isinstance(source, Resident) and {each.device.type for each in source.tensors.values()} == {device}
    found = fit(data, config)
    assert all(tensor.device.type == "cpu" for tensor in found.state_dict.values())
    result = train(folded, config, tmp_path / "run")
    losses = [history[0]["train_loss"] for history in (found.history, result["history"])]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and math.isfinite(found.value)
    assert device == "cuda" or found.history == result["history"]
    scored = evaluate(tmp_path / "run", folded, ("fold1",), device=device)["scores"]
    name = f"{result['selected_by']}_accuracy"
    assert scored[f"fold1_{name}"] == result["scores"][f"val_{name}"]
