"""Train a model on a shard set: once, or over its folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.crossval import cross_validate
from shardwave.models.training.interruption import sigterm_as_interrupt
from shardwave.models.training.recorder import SAVE_SECONDS
from shardwave.models.training.run import run


def train(
    set_path: Path | str,
    config: TrainConfig,
    out: Path | str,
    resume: bool = False,
    command: str = "train",
    save_seconds: float = SAVE_SECONDS,
) -> dict[str, Any]:
    """Train as `config` says on the shard set, and return what result.json holds.

    Ctrl-C and SIGTERM save the state, leave a valid result (state INTERRUPTED) and raise KeyboardInterrupt.

    Args:
        set_path: The set's folder or URL.
        config: The training; `folds` "all" cross-validates.
        out: The run folder.
        resume: Go on with an interrupted run in `out`, also in the middle of an epoch.
        command: The name of the command in result.json.
        save_seconds: The least time between two saved states.
    """
    with sigterm_as_interrupt():
        if config.folds == "all":
            return cross_validate(set_path, config, out, resume=resume, command=command, save_seconds=save_seconds)
        data = TrainingData(set_path, config)
        return run(data, config, Path(out), resume=resume, command=command, save_seconds=save_seconds)
