"""History of the epochs of a training, and selection of the best one."""

from __future__ import annotations

import logging
import math
from typing import TypedDict, cast

from shardwave.common.errors import ShardwaveError
from shardwave.models.evaluation.metrics import ScoreSet
from shardwave.models.runs.records import HistoryEntry, score, scores

_log = logging.getLogger(__name__)


class HistoryState(TypedDict):
    """State of a `History` in a checkpoint."""

    entries: list[HistoryEntry]
    best: int | None  # number of the best epoch


def selecting_score(selected: str, select_metric: str) -> str:
    """Return the name of the validation score that selects the epoch.

    Args:
        selected: Predictions that select the epoch, "full" or "slice_mean".
        select_metric: One of `config.METRICS`.
    """
    return "val_loss" if select_metric == "loss" else f"val_{selected}_{select_metric}"


class History:
    """Scores of all epochs, and the best epoch.

    The best epoch has the highest validation score (or the lowest loss); among equal ones, the lowest
    validation loss. Without validation (retraining for a fixed number of epochs) it is the last epoch.

    Args:
        selected: Predictions that select the epoch, "full" or "slice_mean".
        select_metric: Metric that selects the epoch, one of `config.METRICS`.
    """

    def __init__(self, selected: str, select_metric: str = "accuracy") -> None:
        self.metric = selecting_score(selected, select_metric)
        self.lower_is_better = select_metric == "loss"
        self.entries: list[HistoryEntry] = []
        self.best: HistoryEntry | None = None

    @property
    def best_epoch(self) -> int | None:
        """Number of the best epoch, from 1; None before the first epoch."""
        return None if self.best is None else self.best["epoch"]

    @property
    def value(self) -> float | None:
        """Score of the best epoch, see `value_of`; None without validation."""
        return None if self.best is None or self.metric not in self.best else self.value_of(self.best)

    def value_of(self, entry: HistoryEntry) -> float:
        """Return the score that selects the epoch, a loss with a negative sign; NaN if it is missing."""
        value = score(entry, self.metric)
        return -value if self.lower_is_better else value

    def add(self, values: ScoreSet) -> bool:
        """Append the scores of an epoch.

        Args:
            values: Scores of the epoch, with "train_loss", and "val_loss" if the epoch was validated.

        Returns:
            Whether the epoch is the best so far.

        Raises:
            ShardwaveError: The training loss is infinite or NaN.
        """
        loss, epoch = values.scores["train_loss"], len(self.entries) + 1
        parts = {"per_class": values.per_class, "confusion": values.confusion}
        entry = cast(HistoryEntry, {"epoch": epoch, **values.scores, **parts})
        if not math.isfinite(loss):
            raise ShardwaveError(
                f"the training loss became {loss} in epoch {epoch}: "
                "lower --learning-rate, or use --precision 32-true"
            )
        self.entries.append(entry)
        better = self.best is None or self.metric not in entry or self._rank(entry) > self._rank(self.best)
        if better:
            self.best = entry
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in scores(entry).items())
        _log.debug("epoch %d: %s%s", epoch, numbers, ", the best so far" if better else "")
        return better

    def _rank(self, entry: HistoryEntry) -> tuple[float, float]:
        return self.value_of(entry), -score(entry, "val_loss")

    def state(self) -> HistoryState:
        """Return the state for a checkpoint."""
        return {"entries": self.entries, "best": self.best_epoch}

    def restore(self, state: HistoryState) -> None:
        """Restore a state that `state` returned."""
        self.entries = list(state["entries"])
        self.best = next((entry for entry in self.entries if entry["epoch"] == state["best"]), None)
