"""Experiment trackers: Lightning's loggers for TensorBoard, MLflow, Weights & Biases and CSV files."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shardwave.common.errors import UsageError, require
from shardwave.models.training.config import LOGGERS

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

PROJECT = "shardwave"  # of Weights & Biases, and experiment of MLflow


def check_logger(logger: str | None) -> None:
    """Raise UsageError if a logger is unknown or its package is not installed; None is no logger."""
    if logger is None:
        return
    require(logger in LOGGERS, f"--logger must be one of {', '.join(LOGGERS)}", logger)
    if logger != "csv" and importlib.util.find_spec(logger) is None:
        raise UsageError(f"--logger {logger}: {logger} is not installed: pip install 'shardwave[{logger}]'")


def open_logger(
    logger: str, folder: Path, name: str, params: Mapping[str, object], parent: Logger | None = None
) -> Logger:
    """Start a run of a tracker.

    TensorBoard and CSV files are written to `folder`/tensorboard and `folder`/csv. MLflow uses the server of
    MLFLOW_TRACKING_URI, or the database `folder`/mlflow.db. Weights & Biases uses its own settings (such as
    WANDB_MODE=offline) and `folder`/wandb.

    Args:
        logger: One of `LOGGERS`.
        folder: Run folder of the command.
        name: Name of the training within the command, such as "trial-3"; empty if there is only one.
        params: Hyper-parameters.
        parent: MLflow: the run that contains this one.

    Returns:
        The logger; `close_logger` ends its run.
    """
    from lightning.pytorch import loggers

    title = "/".join(filter(None, (folder.name, name)))
    opened: Logger
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if logger == "tensorboard":
            opened = loggers.TensorBoardLogger(
                folder / "tensorboard", name=name, version="", default_hp_metric=False
            )
        elif logger == "csv":
            opened = loggers.CSVLogger(folder / "csv", name=name, version="")
        elif logger == "mlflow":
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            opened = loggers.MLFlowLogger(
                PROJECT,
                run_name=title,
                tracking_uri=os.environ.get("MLFLOW_TRACKING_URI")
                or f"sqlite:///{folder.resolve()}/mlflow.db",
                tags=None if parent is None else {"mlflow.parentRunId": str(parent.version)},
            )
        else:
            import wandb

            folder.mkdir(parents=True, exist_ok=True)
            opened = loggers.WandbLogger(
                title,
                save_dir=folder,
                project=PROJECT,
                group=folder.name,
                settings=wandb.Settings(silent=True, console="off"),
            )
        opened.log_hyperparams({key: value for key, value in params.items() if value is not None})
    return opened


def close_logger(logger: Logger, *, failed: bool = False) -> None:
    """End the run of a logger, as failed or as finished."""
    logger.save()
    logger.finalize("failed" if failed else "success")
    if type(logger).__name__ == "WandbLogger":  # else the next training of this process would continue it
        logger.experiment.finish(exit_code=int(failed))  # type: ignore[attr-defined]


@contextlib.contextmanager
def logged(
    logger: str | None, folder: Path, name: str, params: Mapping[str, object]
) -> Iterator[Logger | None]:
    """Open a logger for the context, see `open_logger`; an error closes it as failed.

    Args:
        logger: Name of the logger; None: the context yields None.
        folder: Run folder.
        name: Name of the run.
        params: Settings of the run.
    """
    opened = None if logger is None else open_logger(logger, folder, name, params)
    try:
        yield opened
    except BaseException:
        if opened is not None:
            close_logger(opened, failed=True)
        raise
    if opened is not None:
        close_logger(opened)
