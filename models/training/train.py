"""Training of a model on a shard set, once or by cross-validation."""

from __future__ import annotations

from pathlib import Path

from shardwave.models.data.balance import warn_of_imbalance
from shardwave.models.data.training_data import TrainingData
from shardwave.models.runs.records import RunResult
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.crossval import cross_validate
from shardwave.models.training.interruption import sigterm_as_interrupt
from shardwave.models.training.recorder import SAVE_SECONDS
from shardwave.models.training.run import run
from shardwave.models.training.tracking import check_logger
from shardwave.shards.read.open_set import open_set


def train(
    set_path: Path | str,
    config: TrainConfig,
    out: Path | str,
    resume: bool = False,
    command: str = "train",
    save_seconds: float = SAVE_SECONDS,
) -> RunResult:
    """Train a model on a shard set and write a run folder.

    On Ctrl-C or SIGTERM the function saves the training state, writes result.json with the state INTERRUPTED
    and raises KeyboardInterrupt.

    Args:
        set_path: Folder or URL of the set.
        config: Training settings; `folds="all"` cross-validates.
        out: Run folder.
        resume: Whether to continue an interrupted run in `out`, also within an epoch.
        command: Name of the command in result.json.
        save_seconds: Minimum interval between two saved states, in seconds.

    Returns:
        The content of result.json.

    Raises:
        UsageError: The set does not fit the settings, or `out` holds a run that cannot be resumed with them.
        ShardwaveError: The training loss became infinite or NaN, a file is damaged, or another process uses
            `out`.
    """
    check_logger(config.logger)
    warn_of_imbalance(open_set(set_path), config)
    with sigterm_as_interrupt():
        if config.folds == "all":
            return cross_validate(
                set_path, config, out, resume=resume, command=command, save_seconds=save_seconds
            )
        data = TrainingData(set_path, config)
        return run(data, config, Path(out), resume=resume, command=command, save_seconds=save_seconds)
