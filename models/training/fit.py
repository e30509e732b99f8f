"""Training in a plain loop, without the start-up time of Lightning's Trainer; used by search trials.

`fit` and `train` compute the same history for the same seed, since the random numbers of a step depend only
on the seed and the number of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from shardwave.common.errors import UsageError
from shardwave.models.data.training_data import TrainingData
from shardwave.models.runs.records import HistoryEntry
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.history import History
from shardwave.models.training.learner import Learner
from shardwave.models.training.malloc import keep_freed_memory
from shardwave.models.training.numerics import fixed_numerics
from shardwave.models.training.precision import DTYPES, autocast, resolved
from shardwave.models.training.threads import limit_threads, useful_threads


class EpochReport(HistoryEntry):
    """Scores of an epoch, as in the history, with the wall times since the start of the training."""

    seconds: dict[str, float]  # total, step, validation, data_wait


Report = Callable[[int, float, EpochReport], bool | None]
# float16 needs the loss scaling of a Trainer
PRECISIONS = tuple(name for name in DTYPES if not name.startswith("16"))


class FitResult(NamedTuple):
    """Result of a training."""

    history: list[HistoryEntry]  # one entry per epoch, as in result.json
    best_epoch: int
    value: float  # validation score of the best epoch, see `History.value_of`; NaN without validation
    state_dict: dict[str, Tensor]  # network of the best epoch, on the CPU
    seconds: dict[str, float]  # total, step, validation, data_wait


@fixed_numerics()
def fit(data: TrainingData, config: TrainConfig, *, report: Report | None = None) -> FitResult:
    """Train once in a plain loop.

    Args:
        data: Training and validation data; it can be used for several trainings.
        config: Training settings.
        report: Called as `report(epoch, value, scores)` after each epoch (counted from 1). `value` is the
            validation score that selects the epoch (a loss is negative); `scores` holds all scores, and the
            elapsed times under "seconds". If it returns True, training stops.

    Returns:
        The history of the epochs and the weights of the best epoch.

    Raises:
        UsageError: The precision needs loss scaling, or `config` asks for several devices.
        ShardwaveError: The training loss became infinite or NaN.
    """
    config = resolved(config, data.device)
    if config.precision not in PRECISIONS:
        raise UsageError(
            f"precision of a trial must be one of {', '.join(PRECISIONS)}, got {config.precision}"
        )
    if config.devices != 1:
        raise UsageError(f"a trial trains on one device, got --devices {config.devices}")
    keep_freed_memory()
    learner, train_epoch = plain_trainer(data, config)
    with limit_threads(useful_threads(learner.network, config.batch_size)):
        return run_epochs(data, config, learner, train_epoch, report)


def plain_trainer(data: TrainingData, config: TrainConfig) -> tuple[Learner, Callable[[int], float]]:
    """Prepare a training by autograd.

    Args:
        data: Training and validation data.
        config: Training settings, with a resolved precision.

    Returns:
        The model with its training state, and the function that trains one epoch, see `run_epochs`.
    """
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

    return learner, train_epoch


def run_epochs(
    data: TrainingData,
    config: TrainConfig,
    learner: Learner,
    train_epoch: Callable[[int], float],
    report: Report | None = None,
) -> FitResult:
    """Train and validate for all epochs, and keep the weights of the best one.

    Args:
        data: Training and validation data.
        config: Training settings.
        learner: Model and its training state; in evaluation mode after each call of `train_epoch`.
        train_epoch: Trains one epoch, whose number (from 0) it receives, and returns the seconds spent
            waiting for data.
        report: As for `fit`.

    Returns:
        The history of the epochs and the weights of the best epoch.

    Raises:
        ShardwaveError: The training loss became infinite or NaN.
    """
    begin = time.perf_counter()
    seconds = dict.fromkeys(("total", "step", "validation", "data_wait"), 0.0)
    validations, history, best = (
        data.val_batches(),
        History(data.selected, config.select_metric),
        dict[str, Tensor](),
    )
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
        described = cast(EpochReport, {**entry, "seconds": dict(seconds)})
        if report is not None and report(epoch + 1, history.value_of(entry), described):
            break
    assert history.best is not None
    value = float("nan") if history.value is None else history.value
    return FitResult(history.entries, history.best["epoch"], value, best, seconds)


def take_step(
    learner: Learner,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
) -> None:
    """Update the weights from the loss of one batch.

    Args:
        learner: Learner that computed the loss; its `after_step` is called.
        loss: Loss of the batch, a scalar.
        optimizer: Optimiser of the learner.
        schedule: Learning rate schedule, stepped once; None for a constant rate.
    """
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    if schedule is not None:
        schedule.step()
    learner.after_step()
