"""What a Trainer's run leaves behind as it goes: history, times, the best epoch's checkpoint, last.ckpt, the progress bar."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from shardwave.common.messages import say
from shardwave.common.progress import bar
from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import TrainingData
from shardwave.models.runs import checkpoint
from shardwave.models.runs.result import Result
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.history import History
from shardwave.models.training.interruption import Interruption
from shardwave.models.training.lightning_module import Classifier

LAST = "last.ckpt"
SAVE_SECONDS = 20.0  # least time between two saved states, unless another is given
SAVE_SHARE = 0.05  # of the time that saving may take
WRITE_SECONDS = 1.0  # least time between two writes of result.json during a training


class Recorder(pl.Callback):
    """Keeps the run folder current. Its own state travels in last.ckpt, so that a resumed run goes on with it.

    last.ckpt is written every `save_seconds` at most, between epochs or within one, at the end of training, and when a signal
    asks for the end: after the batch under way, or after the validation under way. Then KeyboardInterrupt is raised.

    Args:
        result: The run's result.json, updated after each epoch.
        data: What is trained on.
        config: The training.
        save_seconds: The least time between two states, in seconds; 0 saves whenever it can.
        title: The text beside the progress bar.
        begin: The moment, by time.perf_counter, from which the run's seconds count.
    """

    def __init__(
        self, result: Result, data: TrainingData, config: TrainConfig, save_seconds: float, title: str, begin: float
    ) -> None:
        self.history, self.result, self.data, self.config = History(data.selected), result, data, config
        self.epochs, self.save_seconds, self.title = config.stop_after or config.epochs, save_seconds, title
        self.interruption, self._told, self._begin = Interruption(), False, begin
        self.seconds = {"total": 0.0, "step": 0.0, "validation": 0.0, "data_wait": 0.0, "save": 0.0}
        self.best: dict[str, Tensor] | None = None
        self._step = self._validation = self._waited = 0.0
        self._saved, self._save_cost = time.perf_counter(), 0.0
        self._written, self._write_cost = -WRITE_SECONDS, 0.0
        self._bar: Any = None
        self._last_batch = 0  # samples of the epoch's last batch, counted once the epoch is scored

    # Time, and the bar

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.interruption.arm()
        samples = len(_batches(trainer).view)
        self._bar = bar(
            total=self.epochs * samples,
            unit=" samples",
            desc=self.title,
            unit_scale=True,
            initial=trainer.current_epoch * samples,
            every=samples,
            shown=trainer.is_global_zero,
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _batches(trainer).set_epoch(trainer.current_epoch)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self._step = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if last and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # the steps' work is still under way: count it as theirs
        self.seconds["step"] += time.perf_counter() - self._step
        waited = _batches(trainer).wait_seconds
        self.seconds["data_wait"] += waited - self._waited
        self._waited = waited
        samples = len(batch["cls"]) * trainer.world_size
        if last:  # validation and the epoch's end follow, and are part of the state
            self._last_batch = samples
            return
        self._bar.update(samples)
        often = batch_idx % 16 == 15
        if often or trainer.world_size == 1:
            self._pause(trainer, often)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.interruption.requested and self.result.writes and not self._told:
            self._told = True
            say("interrupted: the validation of this epoch is finished, then the state is saved; Ctrl-C again ends at once")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds["validation"] += time.perf_counter() - self._validation

    # The epoch's end

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        if self.history.add(pl_module.learner.epoch_scores()):
            self.best = pl_module.learner.weights()
        self._bar.set_postfix_str(self._state(), refresh=False)
        self._bar.update(self._last_batch)
        self.seconds["total"] = time.perf_counter() - self._begin
        self.result.fields |= {"history": self.history.entries, "best_epoch": self.history.best_epoch, "seconds": self.seconds}
        if time.perf_counter() - self._written >= max(WRITE_SECONDS, self._write_cost / SAVE_SHARE):
            begin = time.perf_counter()
            self.result.write()
            self._written = time.perf_counter()
            self._write_cost = self._written - begin
        self._pause(trainer, True)

    def _state(self) -> str:
        entry, value = self.history.entries[-1], self.history.value
        epoch = f"epoch {entry['epoch']}/{self.epochs}"
        if value is None:
            return epoch
        return f"{epoch}, validation {entry[self.history.metric]:.1%}, best {value:.1%} at {self.history.best_epoch}"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.close()
        self._save(trainer)  # what follows, scores and figures, may be interrupted too

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.close()

    # Saving

    def _pause(self, trainer: pl.Trainer, due: bool) -> None:
        """Save the state and end the training if a signal asks one of the processes to; save alone if `due` and it is time."""
        if trainer.strategy.reduce_boolean_decision(self.interruption.requested, all=False):
            self._save(trainer)
            self._bar.close()
            if self.result.writes:
                say(f"interrupted: the state is saved in {self.result.folder}; --resume goes on from here")
            raise KeyboardInterrupt
        wait = self.save_seconds and max(self.save_seconds, self._save_cost / SAVE_SHARE)  # 0: whenever there is occasion
        if due and trainer.strategy.broadcast(time.perf_counter() - self._saved >= wait):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        begin = time.perf_counter()
        if trainer.is_global_zero and self.best is not None:
            known = checkpoint.describe(self.data, self.history.best_epoch or 0)
            checkpoint.save(self.result.folder / checkpoint.NAME, self.best, self.data.inputs, self.config, known)
            self.best = None
        trainer.save_checkpoint(self.result.folder / LAST)  # atomic, see `shardwave.models.training.run.AtomicCheckpoints`
        self._saved = time.perf_counter()
        self._save_cost = self._saved - begin
        self.seconds["save"] += self._save_cost

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history.state(), "seconds": dict(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history.restore(state_dict["history"])
        if self.result.writes:
            say(f"{self.result.folder}: goes on after {len(self.history.entries)} of {self.epochs} epochs")
        self.seconds = dict(state_dict["seconds"])


def _batches(trainer: pl.Trainer) -> Batches:
    assert isinstance(trainer.train_dataloader, Batches)
    return trainer.train_dataloader
