"""History of the epochs of a training, and selection of the best one."""

from __future__ import annotations

import logging
import math
from typing import Any

from shardwave.common.errors import ShardwaveError

_log = logging.getLogger(__name__)


class History:
    """Scores of all epochs, and the best epoch.

    The best epoch has the highest validation accuracy; among equal ones, the lowest validation loss. Without
    validation (retraining for a fixed number of epochs) it is the last epoch.

    Args:
        selected: Score that selects the epoch, "full" or "slice_mean".
    """

    def __init__(self, selected: str) -> None:
        self.selected = selected
        self.entries: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    @property
    def metric(self) -> str:
        """Name of the validation accuracy that selects the epoch."""
        return f"val_{self.selected}_accuracy"

    @property
    def best_epoch(self) -> int | None:
        """Number of the best epoch, from 1; None before the first epoch."""
        return None if self.best is None else self.best["epoch"]

    @property
    def value(self) -> float | None:
        """Validation accuracy of the best epoch; None without validation."""
        return None if self.best is None else self.best.get(self.metric)

    def add(self, values: dict[str, Any]) -> bool:
        """Append the scores of an epoch.

        Args:
            values: Scores of the epoch, with "train_loss", and "val_loss" if the epoch was validated.

        Returns:
            Whether the epoch is the best so far.

        Raises:
            ShardwaveError: The training loss is infinite or NaN.
        """
        entry = {"epoch": len(self.entries) + 1, **values}
        if not math.isfinite(entry["train_loss"]):
            raise ShardwaveError(
                f"the training loss became {entry['train_loss']} in epoch {entry['epoch']}: "
                "lower --learning-rate, or use --precision 32-true"
            )
        self.entries.append(entry)
        better = self.best is None or self.metric not in entry or self._rank(entry) > self._rank(self.best)
        if better:
            self.best = entry
        numbers = ", ".join(
            f"{name} {value:.4g}" for name, value in entry.items() if isinstance(value, int | float)
        )
        _log.debug("%s%s", numbers, ", the best so far" if better else "")
        return better

    def _rank(self, entry: dict[str, Any]) -> tuple[float, float]:
        return entry[self.metric], -entry["val_loss"]

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"entries": self.entries, "best": self.best_epoch}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.entries = list(state["entries"])
        self.best = next((entry for entry in self.entries if entry["epoch"] == state["best"]), None)
