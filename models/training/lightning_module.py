"""Adapter of a Learner to Lightning's Trainer."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.learner import Batch, Learner


class Classifier(pl.LightningModule):
    """LightningModule that delegates to a Learner; with several processes each reads its part of the data.

    Args:
        learner: Model and its training state.
        data: Training and validation data.
    """

    def __init__(self, learner: Learner, data: TrainingData) -> None:
        super().__init__()
        self.learner, self.data = learner, data

    def train_dataloader(self) -> Batches:
        """Return the training batches of this process."""
        return self.data.train_batches(self.learner.config, self.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> list[Batches]:
        """Return the validation batches of this process, one entry per view."""
        return self.data.val_batches(self.global_rank, self.trainer.world_size)

    def on_fit_start(self) -> None:
        """Set the rank of the learner, which is part of the seed of its random numbers."""
        self.learner.rank = self.global_rank

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of a batch."""
        return self.learner.training_step(batch)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimiser and notify the learner."""
        super().optimizer_step(*args, **kwargs)
        # Not in on_train_batch_end: callbacks, which may save the state, run before the hook of the module
        self.learner.after_step()

    def validation_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Predict a batch of a validation view."""
        self.learner.validation_step(batch, dataloader_idx)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the learning rate schedule, which is stepped after each batch."""
        optimizer, schedule = self.learner.optimizers()
        return [optimizer], [] if schedule is None else [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the learner to a checkpoint."""
        checkpoint["learner"] = self.learner.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of the learner from a checkpoint."""
        self.learner.restore(checkpoint["learner"])
