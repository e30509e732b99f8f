"""Trainings whose values rise above all others and then fall, in a module that workers can import."""

from __future__ import annotations

import os
from typing import Any

from shardwave.models.training.config import TrainConfig
from shardwave.models.training.fit import FitResult
from shardwave.search.objective import TrainingObjective

PEAK = 2  # the trial that leads, though the schedulers stop it


class Peaking(TrainingObjective):
    """Adds 1 to the first value of trial `PEAK`, and reports 0 for its later ones.

    It fails in the process that made it, so that a search that trains its best trial again fails.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.maker = getattr(self, "maker", os.getpid())

    def fit(self, config: TrainConfig, report: Any = None) -> FitResult:
        assert os.getpid() != self.maker, "the main process trains"
        if config.seed != PEAK:
            return super().fit(config, report)

        def peaking(epoch: int, value: float, scores: Any) -> bool:
            return report(epoch, 1.0 + value if epoch == 1 else 0.0, scores)

        # the weights are those of the first epoch
        once = super().fit(config, lambda *values: peaking(*values) or values[0] == 1)
        for epoch in range(2, config.epochs + 1):
            if report.stopped is not None or peaking(epoch, 0.0, {"seconds": once.seconds}):
                break
        return once._replace(value=1.0 + once.value)
