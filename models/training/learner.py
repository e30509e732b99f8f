"""Training steps, optimiser, augmentation and scores, independent of the training loop.

`shardwave.models.training.lightning_module.Classifier` runs a Learner in Lightning's Trainer;
`shardwave.models.training.fit` runs it in a plain loop, without importing Lightning.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from shardwave.models.evaluation import metrics
from shardwave.models.networks.base import Network
from shardwave.models.training import augment
from shardwave.models.training.config import WARM_UP, TrainConfig

VIEW_SCORES = {"full": "full", "slice": "slice_mean"}
SCORE_VIEWS = {score: view for view, score in VIEW_SCORES.items()}

Batch = dict[str, Tensor]


class LearnerState(TypedDict):
    """State of an unfinished epoch."""

    steps: int  # since the start of training
    losses: list[Tensor]  # of the steps of the epoch, scalars
    trained: list[tuple[Tensor, Tensor, Tensor, Tensor]]  # see `metrics.PredictionAccumulator.parts`


class Learner(nn.Module):
    """Compute losses, update the moving average of the weights and collect the scores of an epoch.

    Batches are dictionaries of raw tensors: `field` [batch, ...], "cls" int64 [batch], "clip" int64 [batch],
    and "full" bool [batch] if `train_view` is "both".

    Args:
        config: Training settings.
        network: Network to train.
        field: Array field of the samples that the network takes.
        steps_per_epoch: Number of training batches per epoch.
        train_view: View of the training samples: "full", "slice" or "both".
        views: Views of the validation batches, in order.
        selected: Score that selects the epoch, "full" or "slice_mean".
        class_weights: Weight of each class in the loss, float32 [classes]; None: all are equal.
        floor_db: Level of the pixel value 0 in dB, for augmentation; None if the samples are no spectrograms.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        field: str,
        steps_per_epoch: int,
        train_view: str,
        views: tuple[str, ...],
        selected: str,
        class_weights: Tensor | None = None,
        floor_db: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.config, self.network, self.field = config, network, field
        self.steps_per_epoch, self.train_view, self.views, self.selected = (
            steps_per_epoch,
            train_view,
            views,
            selected,
        )
        self.average = copy.deepcopy(network).requires_grad_(False).eval() if config.ema_decay else None
        self.steps = 0  # since the start of training; the random numbers of a step depend on it and the seed
        self.rank = 0
        self.floor_db = floor_db
        self.reset_epoch()

    @property
    def evaluated(self) -> nn.Module:
        """Network that is scored and saved: the moving average of the weights, if enabled, or `network`."""
        return self.network if self.average is None else self.average

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the state dict of `evaluated`, on the CPU."""
        return {
            name: value.detach().to("cpu", copy=True) for name, value in self.evaluated.state_dict().items()
        }

    # Training

    def training_step(self, batch: Batch) -> Tensor:
        """Augment a batch and return its loss, a scalar with gradient."""
        config = self.config
        self._seed_step()
        levels, label = batch[self.field], batch["cls"]
        partner, weight = None, None
        if self.network.images and self.floor_db is not None:
            if config.mix_powers:
                levels, partner, weight = augment.mix_powers(levels, self.floor_db, config.mix_powers)
            if config.random_gain:
                levels = augment.random_gain(levels, self.floor_db, config.random_gain)
        samples = self.network.prepare(levels)
        if self.network.images:
            if config.time_shift:
                samples = augment.time_shift(samples)
            for axis, widest in ((2, config.frequency_mask), (3, config.time_mask)):
                if widest:
                    samples = augment.mask(samples, axis, widest)
        if config.mixup:
            samples, partner, weight = augment.mixup(samples, config.mixup)
        logits = self.network.logits(samples)
        if partner is None or weight is None:
            loss = self._loss(logits, label)
        else:
            reduction = "none" if weight.ndim else "mean"
            own, other = (self._loss(logits, each, reduction) for each in (label, label[partner]))
            loss = (weight * own + (1 - weight) * other).mean()
        self.losses.append(loss.detach())
        self.trained.add(logits.detach(), batch)
        return loss

    def _loss(self, logits: Tensor, label: Tensor, reduction: str = "mean") -> Tensor:
        smoothing = self.config.label_smoothing
        weight = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        return F.cross_entropy(logits, label, weight, label_smoothing=smoothing, reduction=reduction)

    def after_step(self) -> None:
        """Count a step and update the moving average; to be called after each optimiser step."""
        self.steps += 1
        if self.average is not None:
            # smaller at first: reduces the weight of the initial values
            decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
            means, values = _tensors(self.average), _tensors(self.network)
            # One kernel for all tensors. `AveragedModel` itself would wait for the GPU in each step.
            get_ema_multi_avg_fn(decay)(means[True], values[True], self.steps)  # type: ignore[no-untyped-call]
            for mean, value in zip(means[False], values[False], strict=True):
                mean.copy_(value)

    def optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        """Create the optimiser (AdamW) and the learning rate schedule.

        Returns:
            The optimiser, and the schedule, which is stepped after each step of the optimiser, or None for a
            constant rate.
        """
        decayed = [
            parameter
            for parameter in self.network.parameters()
            if parameter.requires_grad and parameter.ndim > 1
        ]
        plain = [
            parameter
            for parameter in self.network.parameters()
            if parameter.requires_grad and parameter.ndim <= 1
        ]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )
        if self.config.schedule == "none":
            return optimizer, None
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self.one_cycle)

    def one_cycle(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the peak (one-cycle schedule, Smith 2018).

        The rate rises from 1/25 of the peak during the fraction `WARM_UP` of the steps, then falls to 0, both
        along a cosine.
        """
        progress = min(1.0, step / max(1, self.config.epochs * self.steps_per_epoch))
        if progress < WARM_UP:
            return 1 - (1 - 1 / 25) * (1 + math.cos(math.pi * progress / WARM_UP)) / 2
        return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2

    def _seed_step(self) -> None:
        seed = ((self.config.seed * 2_654_435_761 + self.steps) * 1_021 + self.rank) % 2**63
        torch.default_generator.manual_seed(seed)
        if self.network.mean.is_cuda:
            torch.cuda.manual_seed(seed)

    # Validation

    def validation_step(self, batch: Batch, view: int) -> None:
        """Predict a batch of the validation view `views[view]`."""
        self.validated[view].add(self.evaluated(batch[self.field]), batch)

    # Scores of an epoch, after its training and validation

    def epoch_scores(self) -> metrics.ScoreSet:
        """Compute the scores of the epoch and reset the collected predictions.

        The training scores are those of the training steps, with augmentation, dropout and changing weights.

        Returns:
            The scores, with the losses "train_loss" and, after a validation, "val_loss".
        """
        values = metrics.ScoreSet({"train_loss": self._mean_loss()})
        for view in ("full", "slice") if self.train_view == "both" else (self.train_view,):
            full = view == "full" if self.train_view == "both" else None
            metrics.add_scores(values, f"train_{VIEW_SCORES[view]}", self.trained.by_clip(full))
        for view, accumulator in zip(self.views, self.validated, strict=True):
            predictions = accumulator.by_clip()
            metrics.add_scores(values, f"val_{VIEW_SCORES[view]}", predictions)
            if VIEW_SCORES[view] == self.selected:
                values.scores["val_loss"] = metrics.loss(predictions)
        self.reset_epoch()
        return values

    def _mean_loss(self) -> float:
        mean = torch.stack(self.losses).float().mean()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        return float(mean)

    def reset_epoch(self) -> None:
        """Discard the losses and predictions of the current epoch."""
        self.losses: list[Tensor] = []
        self.trained = metrics.PredictionAccumulator()
        self.validated = [metrics.PredictionAccumulator() for _ in self.views]

    # State of an unfinished epoch, which a checkpoint stores beside the weights

    def state(self) -> LearnerState:
        """Return the number of steps and the collected losses and predictions, for a checkpoint."""
        return {"steps": self.steps, "losses": self.losses, "trained": self.trained.parts}

    def restore(self, state: LearnerState) -> None:
        """Restore a state that `state` returned."""
        self.steps, self.losses, self.trained.parts = state["steps"], state["losses"], state["trained"]


def _tensors(network: nn.Module) -> dict[bool, list[Tensor]]:
    """Return the parameters and buffers of a network by whether they hold real numbers (not counters)."""
    tensors: dict[bool, list[Tensor]] = {True: [], False: []}
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        tensors[tensor.is_floating_point()].append(tensor.detach())
    return tensors
