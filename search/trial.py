"""Trials: their records, the interface of an objective, and the result of a search."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict, cast

from shardwave.common import typed

Params = dict[str, Any]  # hyper-parameters by name: numbers, texts, booleans or None
Info = dict[str, Any]  # further results of an objective by name, in JSON
ParamValue = int | float | str | bool | None


class TrialInfo(TypedDict):
    """Further results of an objective; other fields are allowed."""

    best_epoch: NotRequired[typed.Count | None]
    scores: NotRequired[dict[str, float | None]]
    parameters: NotRequired[typed.Count]


class TrialRow(TypedDict):
    """A line of trials.jsonl, see `Trial`."""

    trial: typed.Count
    params: dict[str, ParamValue]
    state: Literal["COMPLETE", "PRUNED", "FAILED"]
    value: float | None
    epochs: typed.Count
    values: list[float]
    times: list[float]
    start: float
    seconds: float
    worker: str
    attempt: typed.Count
    error: str | None
    spent: dict[str, float]
    info: TrialInfo


MAX_ATTEMPTS = 3  # a trial whose worker dies this often is FAILED


class TrialStopped(Exception):
    """Raised by a `Report` when the scheduler stops the trial; an objective must not suppress it."""


@dataclasses.dataclass
class Trial:
    """One trial, with the fields of a line of `trials.jsonl`.

    Attributes:
        trial: Number of the trial, from 0.
        params: Hyper-parameters, by name.
        state: RUNNING; COMPLETE, PRUNED or FAILED after the end.
        values: Objective value of each epoch; higher is better.
        times: Time from the start of the trial to each value, in seconds.
        start: Start of the last attempt, in Unix time.
        seconds: Duration, in seconds.
        worker: Process that runs the trial, as HOST:PID.
        attempt: Number of the attempt, from 1; a trial is repeated when its worker dies.
        error: Reason of the failure.
        spent: Time by kind (step, validation, data_wait), in seconds.
        info: Further results of the objective, such as the number of parameters.
    """

    trial: int
    params: Params
    state: str = "RUNNING"
    values: list[float] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)
    start: float = dataclasses.field(default_factory=time.time)
    seconds: float = 0.0
    worker: str = ""
    attempt: int = 1
    error: str | None = None
    spent: dict[str, float] = dataclasses.field(default_factory=dict)
    info: Info = dataclasses.field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs with a value."""
        return len(self.values)

    @property
    def value(self) -> float | None:
        """Highest value so far; None before the first epoch."""
        return max(self.values, default=None)

    @property
    def best_epoch(self) -> int | None:
        """Epoch `info["best_epoch"]`, from 1, or else the first with the highest value, or None."""
        if not self.values:
            return None
        return self.info.get("best_epoch") or self.values.index(max(self.values)) + 1

    def row(self) -> TrialRow:
        """Return the trial as an object of `trials.jsonl`."""
        fields = dataclasses.asdict(self)
        leading = {name: fields.pop(name) for name in ("trial", "params", "state")}
        return cast(TrialRow, {**leading, "value": self.value, "epochs": self.epochs, **fields})

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Trial:
        """Create a trial from an object of `trials.jsonl`."""
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls) if field.name in row})


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A trial to run.

    Attributes:
        trial: Number of the trial, from 0.
        params: Hyper-parameters, by name.
        attempt: Number of the attempt, from 1.
        alone: Whether no other trial may use the GPU at the same time, because its memory was exhausted in an
            earlier attempt.
    """

    trial: int
    params: Params
    attempt: int = 1
    alone: bool = False


class Ending(NamedTuple):
    """The end of an attempt at a trial.

    Attributes:
        state: COMPLETE, PRUNED or FAILED.
        error: Reason of the failure, or None.
        info: Further results of the objective.
        out_of_gpu_memory: Whether the trial failed because the memory of its GPU was exhausted.
    """

    state: str
    error: str | None
    info: Info
    out_of_gpu_memory: bool = False


@dataclasses.dataclass
class SearchResult:
    """Result of a search.

    Attributes:
        state: COMPLETE, FAILED (no trial succeeded) or INTERRUPTED.
        trials: The trials that ended, in order of their numbers.
        seconds: Wall time of the search, in seconds.
        error: Reason of a failure.
    """

    state: str
    trials: list[Trial]
    seconds: float
    error: str | None = None

    @property
    def best(self) -> Trial | None:
        """The best trial, see `best_trial`."""
        return best_trial(self.trials)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the COMPLETE or PRUNED trial with the highest value, of equal ones the first, or None."""
    usable = [trial for trial in trials if trial.state in ("COMPLETE", "PRUNED") and trial.values]
    return max(usable, key=lambda trial: (trial.value, -trial.trial), default=None)


def best_so_far(trials: Sequence[Trial]) -> list[tuple[float, int, float]]:
    """Return the best value over time.

    Returns:
        For every epoch of every trial, in order of time: seconds since the start of the first trial, epochs
            of all trials so far, highest value so far.
    """
    origin = min((trial.start for trial in trials), default=0.0)
    timed_values = sorted(
        (trial.start + elapsed - origin, value)
        for trial in trials
        for elapsed, value in zip(trial.times, trial.values, strict=True)
    )
    steps, best = [], -math.inf
    for epochs, (seconds, value) in enumerate(timed_values, 1):
        best = max(best, value)
        steps.append((seconds, epochs, best))
    return steps


class Report(Protocol):
    """Callback with which an objective reports the value of an epoch.

    Attributes:
        trial: Number of the trial.
        info: Further results, stored with the trial; the objective may add entries.
    """

    trial: int
    info: Info

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        """Report a value.

        Args:
            epoch: Number of the epoch: 1, 2, 3, …
            value: Value after the epoch; higher is better.
            spent: Time since the start of the trial by kind, in seconds.

        Raises:
            TrialStopped: If the scheduler stops the trial.
            ValueError: If an epoch is missing or repeated, or the value is not finite.
        """


class Objective(Protocol):
    """Function whose reported values a search maximizes; it is pickled to the worker processes.

    Optional attributes: `modules`, names of modules that are imported once before the workers are forked
    (importing them must neither start threads nor use a GPU); `threads`, the number of CPU threads per trial;
    `prepare()`, which each worker calls once; `terms`, the settings that must be equal on all machines of a
    shared study; `load_copy(key)`, which returns tensors on the GPU: if several workers share a GPU, one
    process calls it once per key, and `shared` is a function in each worker that returns the same tensors,
    mapped from that process; `store`, which is set where the objective runs on another machine of a cluster:
    a function of a name and bytes that writes a file to the folder `kept` of the run folder.
    """

    def __call__(self, params: Params, report: Report) -> None:
        """Run one trial with the hyper-parameters `params`, and call `report` after every epoch."""


def check_report(last_epoch: int, epoch: int, value: float) -> int:
    """Check the epoch and the value of a report.

    Args:
        last_epoch: Last epoch that was reported; 0 before the first.
        epoch: Epoch that is reported.
        value: Its value.

    Returns:
        `epoch`.

    Raises:
        ValueError: If an epoch is missing or repeated, or the value is not finite.
    """
    if epoch != last_epoch + 1:
        raise ValueError(f"an objective reports epochs 1, 2, 3, …; epoch {epoch} came after {last_epoch}")
    if not math.isfinite(value):
        raise ValueError(f"the value of epoch {epoch} is {value}")
    return epoch


def final_state(trial: Trial, state: str, error: str | None, epochs: int) -> tuple[str, str | None]:
    """Correct the state and the error with which a trial ended.

    Args:
        trial: The trial.
        state: State that was reported.
        error: Error that was reported.
        epochs: Maximum number of epochs.

    Returns:
        The state and the error. A trial that was pruned after its last epoch is COMPLETE; a COMPLETE trial
            without values is FAILED.
    """
    if state == "PRUNED" and trial.epochs >= epochs:
        state = "COMPLETE"
    if state == "COMPLETE" and not trial.values:
        return "FAILED", "the objective reported no value"
    return state, error
