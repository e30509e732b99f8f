"""Lightning's side: the one LightningModule and the one LightningDataModule."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.learner import Batch, Learner


class Classifier(pl.LightningModule):
    """A Learner in Lightning's hooks."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, batch: Tensor) -> Tensor:
        return self.learner.evaluated(batch)

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


class ShardDataModule(pl.LightningDataModule):
    """TrainingData as a Trainer takes it: each process reads its share."""

    def __init__(self, data: TrainingData, config: TrainConfig) -> None:
        super().__init__()
        self.data, self.config = data, config

    def train_dataloader(self) -> Batches:
        return self.data.train_batches(self.config, *self._place())

    def val_dataloader(self) -> list[Batches]:
        return self.data.val_batches(*self._place())

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
