"""Lightning's side: the one LightningModule."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.learner import Batch, Learner


class Classifier(pl.LightningModule):
    """A Learner and its data in Lightning's hooks; of several processes each reads its share."""

    def __init__(self, learner: Learner, data: TrainingData) -> None:
        super().__init__()
        self.learner, self.data = learner, data

    def train_dataloader(self) -> Batches:
        return self.data.train_batches(self.learner.config, self.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> list[Batches]:
        return self.data.val_batches(self.global_rank, self.trainer.world_size)

    def on_fit_start(self) -> None:
        self.learner.rank = self.global_rank

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.learner.training_step(batch)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        self.learner.after_step()  # here, for callbacks may save the state before on_train_batch_end reaches the module

    def validation_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        self.learner.validation_step(batch, dataloader_idx)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.learner.optimizers()
        return [optimizer], [] if schedule is None else [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["learner"] = self.learner.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.learner.restore(checkpoint["learner"])
