"""Typed definitions of the files of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from torch import Tensor

from shardwave.common import typed

Scores = dict[str, float]  # by name, `{split}_{score}_{metric}` or `{split}_loss`
StoredScores = dict[str, float | None]  # in a file: None stands for NaN
Matrix = list[list[typed.Count]]  # [true class, predicted class]
# JSON object whose fields depend on the model, the set or the library that wrote it
Settings = dict[str, Any]
SelectedScore = Literal["full", "slice_mean"]
SplitKind = Literal["trained", "validation", "test", "new", "mixed", "unknown"]


class ClassScores(TypedDict):
    """Scores of each class, in the order of the classes."""

    precision: list[float]
    recall: list[float]
    f1: list[float]
    support: list[typed.Count]  # clips of the class


class HistoryEntry(TypedDict):
    """Scores of one epoch. It also has the fields of `Scores`, which `score` reads."""

    epoch: typed.Count
    train_loss: float | None
    val_loss: NotRequired[float | None]
    per_class: NotRequired[dict[str, ClassScores]]
    confusion: NotRequired[dict[str, Matrix]]


def score(entry: HistoryEntry, name: str) -> float:
    """Return the score `name` of an epoch, NaN if it is missing or None."""
    fields: Mapping[str, object] = entry
    value = fields.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")


def scores(entry: HistoryEntry) -> Scores:
    """Return all losses and scores of an epoch by name."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name != "epoch" and isinstance(value, int | float)
    }


class BackboneCost(TypedDict):
    """Cost of the outputs of a frozen network."""

    seconds: float
    samples: typed.Count
    cached: bool  # whether the outputs were computed before


class Seconds(TypedDict):
    """Wall times of a run, in seconds."""

    total: NotRequired[float]
    step: NotRequired[float]
    validation: NotRequired[float]
    data_wait: NotRequired[float]
    save: NotRequired[float]
    overhead: NotRequired[float]
    backbone: NotRequired[BackboneCost]


class FoldChoice(TypedDict):
    """Training that selected the number of epochs for a test fold."""

    scores: StoredScores
    history: NotRequired[list[HistoryEntry]]


class FoldEntry(TypedDict):
    """Result of one test fold of a cross-validation."""

    fold: typed.Count
    val_fold: typed.Count
    epochs: typed.Count
    params: NotRequired[Settings]  # chosen for this fold alone
    scores: StoredScores
    confusion: NotRequired[dict[str, Matrix]]
    choice: FoldChoice
    parameters: typed.Count
    threads: typed.Count
    seconds: Seconds


class BestTrial(TypedDict):
    """Best trial of a search."""

    trial: typed.Count
    params: Settings
    value: float
    epoch: typed.Count


class Epochs(TypedDict):
    """Number of epochs that a search ran, and number that early stopping saved."""

    run: typed.Count
    saved: int


class RunResult(TypedDict):
    """Fields of result.json. Optional fields are written as soon as they are known."""

    format: str
    command: str
    state: Literal["RUNNING", "COMPLETE", "INTERRUPTED", "FAILED"]
    environment: Settings
    error: NotRequired[str | None]
    model: NotRequired[str]
    params: NotRequired[Settings | None]
    seed: NotRequired[int]
    config: NotRequired[Settings]
    set: NotRequired[str]
    fingerprint: NotRequired[str]
    set_id: NotRequired[str]
    set_config: NotRequired[Settings | None]
    clips: NotRequired[dict[str, typed.Count]]
    classes: NotRequired[list[str]]
    folds: NotRequired[dict[str, list[str]] | list[typed.Count]]  # splits by role, or all folds
    selected_by: NotRequired[str]
    select_metric: NotRequired[str]
    best_epoch: NotRequired[typed.Count | None]
    scores: NotRequired[StoredScores]
    spread: NotRequired[StoredScores]
    per_class: NotRequired[dict[str, ClassScores]]
    confusion: NotRequired[dict[str, Matrix]]
    history: NotRequired[list[HistoryEntry]]
    per_fold: NotRequired[list[FoldEntry]]
    parameters: NotRequired[typed.Count]
    threads: NotRequired[typed.Count]
    seconds: NotRequired[Seconds]
    space: NotRequired[Settings]
    backend: NotRequired[str]
    sampler: NotRequired[str | None]
    scheduler: NotRequired[str | None]
    choice: NotRequired[Settings]  # algorithms and reason of `--sampler auto` or `--scheduler auto`
    jobs: NotRequired[typed.Count | None]
    started: NotRequired[float]
    trials: NotRequired[typed.Count]
    states: NotRequired[dict[str, typed.Count]]
    best: NotRequired[BestTrial | None]
    epochs: NotRequired[Epochs]


class SplitKnowledge(TypedDict):
    """Purpose for which a run used the clips of a split."""

    kind: SplitKind
    clips: typed.Count
    trained: typed.Count | None  # clips that were trained on; None if unknown


# A misclassified clip that was not trained on
ConfidentError = TypedDict(
    "ConfidentError", {"path": str, "split": str, "label": str, "class": str, "probability": float}
)


class Evaluation(TypedDict):
    """Return value of `evaluate`."""

    command: str
    run: str
    set: str
    set_id: str
    model: str
    classes: list[str]
    selected_by: str
    splits: dict[str, SplitKnowledge]
    scores: Scores
    per_class: dict[str, ClassScores]
    confusion: dict[str, Matrix]
    errors: str
    confident_errors: list[ConfidentError]  # the most confident first
    calibration: Settings | None  # content of calibration.json if it was written


class CheckpointInputs(TypedDict):
    """Input and output of the network of a checkpoint."""

    field: str
    shape: list[Annotated[int, typed.Range(1, 1 << 26)]]
    classes: Annotated[int, typed.Range(1, 1 << 20)]


class CheckpointMetadata(TypedDict):
    """Fields of checkpoint.ckpt that describe the set, the roles of its splits and the epoch."""

    classes: list[str]
    fingerprint: str
    set_id: str
    set_config: Settings | None
    splits: dict[str, list[str]]
    spectrogram: Settings | None
    selected: SelectedScore
    epoch: typed.Count
    backbone: NotRequired[dict[str, Tensor]]


class Checkpoint(CheckpointMetadata):
    """Content of checkpoint.ckpt."""

    format: str
    model: str
    config: Settings
    inputs: CheckpointInputs
    state_dict: dict[str, Tensor]


class LastCheckpoint(TypedDict):
    """Fields of last.ckpt that are checked before Lightning reads the file."""

    epoch: typed.Count
    global_step: typed.Count
    state_dict: dict[str, Tensor]
    loops: Settings
    callbacks: Settings
    optimizer_states: list[Any]
    lr_schedulers: list[Any]
