"""Trials of a search in an experiment tracker, as runs within the run of the search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from shardwave.models.training.tracking import close_logger, open_logger
from shardwave.search.trial import Trial, best_trial


class TrialTracker:
    """Listener of a `TrialLog` that logs each trial when it has ended.

    MLflow nests the runs of the trials in that of the search; Weights & Biases groups them; TensorBoard and
    CSV files have one subfolder per trial.

    Attributes:
        logger: One of `shardwave.models.training.config.LOGGERS`.
        folder: The run folder.
        params: Settings of the search.
    """

    def __init__(self, logger: str, folder: Path, params: Mapping[str, object]) -> None:
        self.logger, self.folder, self.params = logger, folder, params
        # only MLflow must know the outer run first; a process has one run of Weights & Biases at a time
        self._parent = open_logger(logger, folder, "", params) if logger == "mlflow" else None
        self._ended: dict[int, Trial] = {}

    def __call__(self, trial: Trial) -> None:
        """Log `trial` if it has ended."""
        if trial.state == "RUNNING" or trial.trial in self._ended:
            return
        self._ended[trial.trial] = trial
        run = open_logger(self.logger, self.folder, f"trial-{trial.trial}", trial.params, self._parent)
        for epoch, value in enumerate(trial.values, 1):
            run.log_metrics({"value": value}, epoch)
        scores = {
            name: score for name, score in (trial.info.get("scores") or {}).items() if score is not None
        }
        if scores:
            run.log_metrics(scores, trial.best_epoch)
        close_logger(run, failed=trial.state == "FAILED")

    def close(self, *, failed: bool) -> None:
        """Log the best trial and end the run of the search."""
        best = best_trial(list(self._ended.values()))
        run = self._parent or open_logger(self.logger, self.folder, "", self.params)
        if best is not None and best.value is not None:
            run.log_metrics({"best_value": best.value, "best_trial": best.trial})
        close_logger(run, failed=failed)


@contextlib.contextmanager
def tracked(
    logger: str | None, folder: Path, params: Mapping[str, object], listener: Callable[[Trial], None]
) -> Iterator[Callable[[Trial], None]]:
    """Return `listener`, extended to log the trials of a search if `logger` is not None.

    Args:
        logger: Name of the logger.
        folder: The run folder.
        params: Settings of the search.
        listener: Listener of a `TrialLog`.
    """
    if logger is None:
        yield listener
        return
    tracker = TrialTracker(logger, folder, params)

    def both(trial: Trial) -> None:
        listener(trial)
        tracker(trial)

    try:
        yield both
    except BaseException:
        tracker.close(failed=True)
        raise
    tracker.close(failed=False)
