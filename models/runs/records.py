"""Typed definitions of the files of a run folder."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from torch import Tensor

from shardwave.common import typed

Scores = dict[str, float | None]  # None stands for NaN
Matrix = list[list[typed.Count]]  # [true class, predicted class]


class HistoryEntry(TypedDict):
    """Scores of one epoch; it also has fields named `{split}_{score}_{metric}`."""

    epoch: typed.Count
    train_loss: float | None
    per_class: NotRequired[dict[str, Any]]
    confusion: NotRequired[dict[str, Matrix]]


class BestTrial(TypedDict):
    """Best trial of a search."""

    trial: typed.Count
    params: dict[str, Any]
    value: float
    epoch: typed.Count


class Epochs(TypedDict):
    """Number of epochs that a search ran, and that it saved by stopping trials early."""

    run: typed.Count
    saved: int


class RunResult(TypedDict):
    """Fields of result.json. Optional fields are written as soon as they are known."""

    format: str
    command: str
    state: Literal["RUNNING", "COMPLETE", "INTERRUPTED", "FAILED"]
    environment: dict[str, Any]
    error: NotRequired[str | None]
    model: NotRequired[str]
    params: NotRequired[dict[str, Any] | None]
    seed: NotRequired[int]
    config: NotRequired[dict[str, Any]]
    set: NotRequired[str]
    fingerprint: NotRequired[str]
    set_id: NotRequired[str]
    set_config: NotRequired[dict[str, Any] | None]
    clips: NotRequired[dict[str, typed.Count]]
    classes: NotRequired[list[str]]
    folds: NotRequired[dict[str, Any] | list[typed.Count]]
    selected_by: NotRequired[str]
    best_epoch: NotRequired[typed.Count | None]
    scores: NotRequired[Scores]
    spread: NotRequired[Scores]
    per_class: NotRequired[dict[str, Any]]
    confusion: NotRequired[dict[str, Matrix]]
    history: NotRequired[list[HistoryEntry]]
    per_fold: NotRequired[list[dict[str, Any]]]
    parameters: NotRequired[typed.Count]
    seconds: NotRequired[dict[str, float | dict[str, Any] | None]]
    space: NotRequired[dict[str, Any]]
    backend: NotRequired[str]
    sampler: NotRequired[str | None]
    scheduler: NotRequired[str | None]
    jobs: NotRequired[typed.Count | None]
    started: NotRequired[float]
    trials: NotRequired[typed.Count]
    states: NotRequired[dict[str, typed.Count]]
    best: NotRequired[BestTrial | None]
    epochs: NotRequired[Epochs]


class CheckpointInputs(TypedDict):
    """Input and output of the network of a checkpoint."""

    field: str
    shape: list[Annotated[int, typed.Range(1, 1 << 26)]]
    classes: Annotated[int, typed.Range(1, 1 << 20)]


class Checkpoint(TypedDict):
    """Content of checkpoint.ckpt."""

    format: str
    model: str
    config: dict[str, Any]
    inputs: CheckpointInputs
    state_dict: dict[str, Tensor]
    classes: list[str]
    fingerprint: str
    set_id: str
    set_config: dict[str, Any] | None
    splits: dict[str, list[str]]
    spectrogram: dict[str, Any] | None
    selected: Literal["full", "slice_mean"]
    epoch: typed.Count
    backbone: NotRequired[dict[str, Tensor]]


class LastCheckpoint(TypedDict):
    """Fields of last.ckpt that are checked before Lightning reads the file."""

    epoch: typed.Count
    global_step: typed.Count
    state_dict: dict[str, Tensor]
    loops: dict[str, Any]
    callbacks: dict[str, Any]
    optimizer_states: list[Any]
    lr_schedulers: list[Any]
