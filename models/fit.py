"""The lean path: the same Learner trained in a plain loop, without a Trainer's start-up. What a search trial runs.

The same seed gives the same history as `train` (tested): both draw a step's randomness from (seed, step) alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.allocator import keep_freed_memory
from models.config import TrainConfig
from models.data import TrainingData
from models.history import History
from models.learner import Learner
from models.threads import limited, useful_threads
from preprocess.errors import UsageError

Report = Callable[[int, float, dict[str, Any]], None]
_AUTOCAST = {"bf16-mixed": torch.bfloat16}
_DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}


class FitResult(NamedTuple):
    history: list[dict[str, Any]]  # per epoch, as in result.json
    best_epoch: int
    value: float  # the best epoch's selected validation accuracy
    state_dict: dict[str, Tensor]  # of the best epoch's network, on the CPU
    seconds: dict[str, float]  # total, step, validation, data_wait


def fit(data: TrainingData, config: TrainConfig, *, report: Report | None = None) -> FitResult:
    """Train once on `data`, which may serve many trainings.

    `report(epoch, value, scores)` is called after each epoch (from 1) with the selected validation accuracy and all scores, among
    them the "seconds" so far; what it raises passes through, which is how a scheduler stops a trial. Raises ShardwaveError for a
    loss that is not a number.
    """
    if config.precision not in _DTYPES:
        raise UsageError(f"precision of a trial must be one of {', '.join(_DTYPES)}, got {config.precision}")
    if config.devices != 1:
        raise UsageError(f"a trial runs on one device, got --devices {config.devices}")
    keep_freed_memory()
    begin = time.perf_counter()
    seconds = {"total": 0.0, "step": 0.0, "validation": 0.0, "data_wait": 0.0}
    training, validations = data.train_batches(config), data.val_batches()
    learner = data.learner(config, len(training)).to(data.device, _DTYPES[config.precision])
    optimizer, schedule = learner.optimizers()
    history, best = History(data.selected), {}
    with limited(useful_threads(learner.network, config.batch_size)):
        for epoch in range(config.stop_after or config.epochs):
            started, waited = time.perf_counter(), training.wait_seconds
            training.set_epoch(epoch)
            learner.train()
            for batch in training:
                with _precision(config, data.device):
                    loss = learner.training_step(data.to_device(batch))
                take_step(learner, loss, optimizer, schedule)
            _synchronize(data.device)
            trained, wait = time.perf_counter(), training.wait_seconds - waited
            learner.eval()
            with torch.inference_mode():
                for number, batches in enumerate(validations):
                    for batch in batches:
                        with _precision(config, data.device):
                            learner.validation_step(data.to_device(batch), number)
                values = learner.epoch_scores()
            seconds["step"] += trained - started - wait
            seconds["data_wait"] += wait
            seconds["validation"] += time.perf_counter() - trained
            if history.add(values):
                best = {name: value.detach().to("cpu", copy=True) for name, value in learner.evaluated.state_dict().items()}
            if report is not None:
                seconds["total"] = time.perf_counter() - begin
                told = {**history.entries[-1], "seconds": dict(seconds)}
                report(epoch + 1, told.get(history.metric, float("nan")), told)
    seconds["total"] = time.perf_counter() - begin
    assert history.best is not None
    value = history.value
    return FitResult(history.entries, history.best["epoch"], float("nan") if value is None else value, best, seconds)


def _precision(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if config.precision in _AUTOCAST:
        return torch.autocast(device.type, _AUTOCAST[config.precision])
    return contextlib.nullcontext()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def take_step(learner: Learner, loss: Tensor, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    """Take one training step.

    Args:
        learner: What is trained; told when the step is taken.
        loss: The loss of a batch.
        optimizer: Of the learner's parameters.
        schedule: Of the learning rate, a step per batch; None for a constant rate.
    """
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if schedule is not None:
        schedule.step()
    learner.after_step()
