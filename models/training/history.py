"""A training's epochs, and which of them is kept."""

from __future__ import annotations

import logging
import math
from typing import Any

from shardwave.common.errors import ShardwaveError

_log = logging.getLogger(__name__)


class History:
    """Epochs as result.json lists them. The best has the highest validation accuracy (selected score), of equals the lowest loss.

    Without validation (retraining for a known number of epochs) the last one is kept.
    """

    def __init__(self, selected: str) -> None:
        self.selected = selected
        self.entries: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    @property
    def metric(self) -> str:
        return f"val_{self.selected}_accuracy"

    @property
    def best_epoch(self) -> int | None:
        return None if self.best is None else self.best["epoch"]

    @property
    def value(self) -> float | None:
        """The best epoch's validation accuracy; None without validation."""
        return None if self.best is None else self.best.get(self.metric)

    def add(self, values: dict[str, Any]) -> bool:
        """Append an epoch's scores; True where it is the best so far. Raises ShardwaveError for a loss that is no number."""
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
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in entry.items() if isinstance(value, int | float))
        _log.debug("%s%s", numbers, ", the best so far" if better else "")
        return better

    def _rank(self, entry: dict[str, Any]) -> tuple[float, float]:
        return entry[self.metric], -entry["val_loss"]

    def state(self) -> dict[str, Any]:
        return {"entries": self.entries, "best": self.best_epoch}

    def restore(self, state: dict[str, Any]) -> None:
        self.entries = list(state["entries"])
        self.best = next((entry for entry in self.entries if entry["epoch"] == state["best"]), None)
