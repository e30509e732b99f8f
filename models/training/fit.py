"""The lean path: the same Learner trained in a plain loop, without a Trainer's start-up. What a search trial runs.

The same seed gives the same history as `train` (tested): both draw a step's randomness from (seed, step) alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shardwave.common.errors import UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.history import History
from shardwave.models.training.learner import Learner
from shardwave.models.training.malloc import keep_freed_memory
from shardwave.models.training.precision import DTYPES, autocast
from shardwave.models.training.threads import limited, useful_threads

Report = Callable[[int, float, dict[str, Any]], bool | None]
PRECISIONS = tuple(name for name in DTYPES if not name.startswith("16"))  # float16 needs a Trainer's scaling of the loss


class FitResult(NamedTuple):
    history: list[dict[str, Any]]  # per epoch, as in result.json
    best_epoch: int
    value: float  # the best epoch's selected validation accuracy
    state_dict: dict[str, Tensor]  # of the best epoch's network, on the CPU
    seconds: dict[str, float]  # total, step, validation, data_wait


def fit(data: TrainingData, config: TrainConfig, *, report: Report | None = None) -> FitResult:
    """Train once on `data`, which may serve many trainings.

    Args:
        data: What is trained on.
        config: The training.
        report: Called as `report(epoch, value, scores)` after each epoch (from 1) with the selected validation
            accuracy and all scores, among them the "seconds" so far. If it returns True, the training ends there.

    Returns:
        The epochs that were run, and the weights of the best of them.

    Raises:
        ShardwaveError: The training loss became infinite or NaN.
    """
    if config.precision not in PRECISIONS:
        raise UsageError(f"precision of a trial must be one of {', '.join(PRECISIONS)}, got {config.precision}")
    if config.devices != 1:
        raise UsageError(f"a trial runs on one device, got --devices {config.devices}")
    keep_freed_memory()
    training = data.train_batches(config)
    learner = data.learner(config, len(training)).to(data.device, DTYPES[config.precision])
    optimizer, schedule = learner.optimizers()

    def train_epoch(epoch: int) -> float:
        waited = training.wait_seconds
        training.set_epoch(epoch)
        learner.train()
        for batch in training:
            with autocast(config.precision, data.device):
                loss = learner.training_step(data.to_device(batch))
            take_step(learner, loss, optimizer, schedule)
        if data.device.type == "cuda":
            torch.cuda.synchronize(data.device)
        learner.eval()
        return training.wait_seconds - waited

    with limited(useful_threads(learner.network, config.batch_size)):
        return run_epochs(data, config, learner, train_epoch, report)


def run_epochs(
    data: TrainingData,
    config: TrainConfig,
    learner: Learner,
    train_epoch: Callable[[int], float],
    report: Report | None = None,
) -> FitResult:
    """Train and validate epoch after epoch, and keep the weights of the best one.

    Args:
        data: What is trained and validated on.
        config: The training.
        learner: What is trained, in evaluation mode after each `train_epoch`.
        train_epoch: Trains the epoch of a number (from 0); returns the seconds for which it waited for data.
        report: As for `fit`.
    """
    begin = time.perf_counter()
    seconds = dict.fromkeys(("total", "step", "validation", "data_wait"), 0.0)
    validations, history, best = data.val_batches(), History(data.selected), dict[str, Tensor]()
    for epoch in range(config.stop_after or config.epochs):
        started = time.perf_counter()
        wait = train_epoch(epoch)
        trained = time.perf_counter()
        with torch.inference_mode():
            for number, batches in enumerate(validations):
                for batch in batches:
                    with autocast(config.precision, data.device):
                        learner.validation_step(data.to_device(batch), number)
            values = learner.epoch_scores()
        now = time.perf_counter()
        seconds["step"] += trained - started - wait
        seconds["data_wait"] += wait
        seconds["validation"] += now - trained
        seconds["total"] = now - begin
        if history.add(values):
            best = learner.weights()
        entry = history.entries[-1]
        value = entry.get(history.metric, float("nan"))
        if report is not None and report(epoch + 1, value, {**entry, "seconds": dict(seconds)}):
            break
    assert history.best is not None
    value = float("nan") if history.value is None else history.value
    return FitResult(history.entries, history.best["epoch"], value, best, seconds)


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
