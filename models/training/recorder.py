"""Lightning callback that records a training: history, times, checkpoints and the progress bar."""

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
from shardwave.models.runs.records import Seconds, score
from shardwave.models.runs.result import Result
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.history import History
from shardwave.models.training.interruption import Interruption
from shardwave.models.training.lightning_module import Classifier

LAST = "last.ckpt"
SAVE_SECONDS = 20.0  # default of the minimum interval between two saved states
SAVE_SHARE = 0.05  # maximum fraction of the time that is spent saving
WRITE_SECONDS = 1.0  # minimum interval between two writes of result.json during training


class Recorder(pl.Callback):
    """Update the run folder during training.

    The callback saves the training state, with its own state, in last.ckpt: at the end of training, and
    before that at intervals of at least `save_seconds`, also within an epoch. After SIGINT or SIGTERM it
    saves the state at the end of the current batch or validation, then raises KeyboardInterrupt.

    Args:
        result: Result of the run, updated after each epoch.
        data: Data of the training.
        config: Training settings.
        save_seconds: Minimum interval between two saved states, in seconds; 0 saves as often as possible.
        title: Text beside the progress bar.
        begin: Start of the run, as returned by `time.perf_counter`.
    """

    def __init__(
        self,
        result: Result,
        data: TrainingData,
        config: TrainConfig,
        save_seconds: float,
        title: str,
        begin: float,
    ) -> None:
        self.history, self.result, self.data, self.config = (
            History(data.selected, config.select_metric),
            result,
            data,
            config,
        )
        self.epochs, self.save_seconds, self.title = config.stop_after or config.epochs, save_seconds, title
        self.interruption, self._announced, self._begin = Interruption(), False, begin
        self.seconds: Seconds = {"total": 0.0, "step": 0.0, "validation": 0.0, "data_wait": 0.0, "save": 0.0}
        self.best: dict[str, Tensor] | None = None
        self._step = self._validation = self._waited = 0.0
        self._saved, self._save_cost = time.perf_counter(), 0.0
        self._written, self._write_cost = -WRITE_SECONDS, 0.0
        self._bar: Any = None
        self._last_batch = 0  # samples of the last batch, which the bar counts after the validation

    # Times and progress bar

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer signals and show the progress bar."""
        self.interruption.install()
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
        """Set the epoch, which determines the sample order."""
        _batches(trainer).set_epoch(trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the timer of the step."""
        self._step = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the times, advance the progress bar, and save the state if it is due."""
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if last and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # counts the unfinished GPU work as part of the steps
        self.seconds["step"] += time.perf_counter() - self._step
        waited = _batches(trainer).wait_seconds
        self.seconds["data_wait"] += waited - self._waited
        self._waited = waited
        samples = len(batch["cls"]) * trainer.world_size
        if last:  # on_train_epoch_end saves the state, after the validation
            self._last_batch = samples
            return
        self._bar.update(samples)
        due = batch_idx % 16 == 15
        if due or trainer.world_size == 1:
            self._save_if_needed(trainer, due)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Report an interruption, which takes effect after the validation."""
        if self.interruption.requested and self.result.writes and not self._announced:
            self._announced = True
            say(
                "interrupted: the state is saved after the validation of this epoch; "
                "Ctrl-C again stops at once"
            )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the timer of the validation."""
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the timer of the validation."""
        self.seconds["validation"] += time.perf_counter() - self._validation

    # End of an epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the scores of the epoch to the history and to result.json, and save the state if it is due."""
        assert isinstance(pl_module, Classifier)
        if self.history.add(pl_module.learner.epoch_scores()):
            self.best = pl_module.learner.weights()
        entry = self.history.entries[-1]
        numbers = {name: value for name, value in entry.items() if isinstance(value, float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, entry["epoch"])
        self._bar.set_postfix_str(self._progress_text(), refresh=False)
        self._bar.update(self._last_batch)
        self.seconds["total"] = time.perf_counter() - self._begin
        self.result.fields |= {
            "history": self.history.entries,
            "best_epoch": self.history.best_epoch,
            "seconds": self.seconds,
        }
        if time.perf_counter() - self._written >= max(WRITE_SECONDS, self._write_cost / SAVE_SHARE):
            begin = time.perf_counter()
            self.result.write()
            self._written = time.perf_counter()
            self._write_cost = self._written - begin
        self._save_if_needed(trainer, True)

    def _progress_text(self) -> str:
        entry, value = self.history.entries[-1], self.history.value
        epoch = f"epoch {entry['epoch']}/{self.epochs}"
        if value is None:
            return epoch
        now = score(entry, self.history.metric)
        if self.history.lower_is_better:
            return f"{epoch}, validation loss {now:.4g}, best {-value:.4g} at {self.history.best_epoch}"
        return f"{epoch}, validation {now:.1%}, best {value:.1%} at {self.history.best_epoch}"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the progress bar and save the state."""
        self._bar.close()
        self._save(trainer)  # scoring and drawing follow, and may be interrupted too

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.close()

    # Saving

    def _save_if_needed(self, trainer: pl.Trainer, due: bool) -> None:
        """Save the state if `due` and it is time; after a signal, save it and raise KeyboardInterrupt."""
        if trainer.strategy.reduce_boolean_decision(self.interruption.requested, all=False):
            self._save(trainer)
            self._bar.close()
            if self.result.writes:
                say(f"interrupted: the state is saved in {self.result.folder}; continue with --resume")
            raise KeyboardInterrupt
        wait = self.save_seconds and max(self.save_seconds, self._save_cost / SAVE_SHARE)
        if due and trainer.strategy.broadcast(time.perf_counter() - self._saved >= wait):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        begin = time.perf_counter()
        if trainer.is_global_zero and self.best is not None:
            metadata = checkpoint.describe(self.data, self.history.best_epoch or 0)
            checkpoint.save(
                self.result.folder / checkpoint.NAME, self.best, self.data.inputs, self.config, metadata
            )
            self.best = None
        trainer.save_checkpoint(self.result.folder / LAST)  # atomic, by run.AtomicCheckpoints
        self._saved = time.perf_counter()
        self._save_cost = self._saved - begin
        self.seconds["save"] += self._save_cost

    def state_dict(self) -> dict[str, Any]:
        """Return the history and the times."""
        return {"history": self.history.state(), "seconds": dict(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the history and the times."""
        self.history.restore(state_dict["history"])
        if self.result.writes:
            say(f"{self.result.folder}: resuming after {len(self.history.entries)} of {self.epochs} epochs")
        self.seconds = state_dict["seconds"]


def _batches(trainer: pl.Trainer) -> Batches:
    assert isinstance(trainer.train_dataloader, Batches)
    return trainer.train_dataloader
