"""Temperature of a run, stored as `calibration.json` in the run folder and applied by `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np

from shardwave.common import typed
from shardwave.common.errors import UsageError
from shardwave.models.evaluation.clip_csv import ClipRow
from shardwave.models.evaluation.reliability import calibration_error, fit_temperature, log_loss, scaled
from shardwave.shards.storage.atomic import write_json

NAME = "calibration.json"
FORMAT = "shardwave-calibration-1"
LEAST_CLIPS = 20  # with fewer clips, a fitted temperature is not reliable


class Calibration(TypedDict):
    """Content of calibration.json."""

    format: str
    temperature: Annotated[float, typed.Range(0.01, 100)]
    clips: typed.Count  # that the temperature was fitted to
    splits: list[str]
    set_id: str
    loss_before: float  # in nats, on the clips of the fit
    loss_after: float
    error_before: float  # expected calibration error, on the clips of the fit
    error_after: float


def calibrate(rows: Sequence[ClipRow], classes: Sequence[str], set_id: str) -> Calibration:
    """Fit a temperature to labelled clips that a run was not trained on.

    Args:
        rows: Predictions of the clips.
        classes: Names of the classes.
        set_id: Identity of their set.

    Raises:
        UsageError: There are fewer than `LEAST_CLIPS` labelled clips.
    """
    number = {name: i for i, name in enumerate(classes)}
    used = [row for row in rows if row.label in number]
    if len(used) < LEAST_CLIPS:
        raise UsageError(
            f"--calibrate needs {LEAST_CLIPS} labelled clips of validation or new splits, got {len(used)}: "
            "give a set with such clips, or name them with --split"
        )
    probabilities = np.stack([row.probabilities for row in used])
    label = np.array([number[row.label] for row in used])
    temperature = fit_temperature(probabilities, label)
    after = scaled(probabilities, temperature)
    return {
        "format": FORMAT,
        "temperature": temperature,
        "clips": len(used),
        "splits": sorted({row.split for row in used}),
        "set_id": set_id,
        "loss_before": log_loss(probabilities, label),
        "loss_after": log_loss(after, label),
        "error_before": calibration_error(probabilities, label),
        "error_after": calibration_error(after, label),
    }


def write(run: Path, calibration: Calibration) -> None:
    """Write calibration.json into a run folder."""
    write_json(run / NAME, dict(calibration))


def read(run: Path) -> Calibration | None:
    """Read calibration.json of a run folder; None if there is none.

    Raises:
        ShardwaveError: The file is damaged.
    """
    path = run / NAME
    if not path.exists():
        return None
    return typed.read(path, Calibration, "remove it, or run evaluate --calibrate again")


def temperature(run: Path) -> float:
    """Return the temperature of a run, 1 if it is not calibrated.

    Raises:
        ShardwaveError: calibration.json is damaged.
    """
    calibration = read(run)
    return 1.0 if calibration is None else calibration["temperature"]
