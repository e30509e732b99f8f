"""Trials: their records, how an objective reports their progress, and the result of a search."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

MAX_ATTEMPTS = 3  # a trial whose worker dies this often is FAILED


class TrialStopped(Exception):
    """Raised by `report` when the scheduler ends the trial; an objective lets it pass."""


@dataclasses.dataclass
class Trial:
    """One trial, as a line of `trials.jsonl` holds it; higher values are better."""

    trial: int  # its number, from 0
    params: dict[str, Any]
    state: str = "RUNNING"  # COMPLETE, PRUNED or FAILED once it has ended
    values: list[float] = dataclasses.field(default_factory=list)  # one per epoch
    times: list[float] = dataclasses.field(default_factory=list)  # seconds from the start to each value
    start: float = dataclasses.field(default_factory=time.time)  # Unix time
    seconds: float = 0.0
    worker: str = ""
    attempt: int = 1
    error: str | None = None
    spent: dict[str, float] = dataclasses.field(default_factory=dict)  # seconds by kind: step, validation, data_wait
    info: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the objective tells beyond: parameters, …

    @property
    def epochs(self) -> int:
        return len(self.values)

    @property
    def value(self) -> float | None:
        """The best value so far."""
        return max(self.values, default=None)

    @property
    def best_epoch(self) -> int | None:
        """The epoch (from 1) of the best value; where several share it, the one that the objective names, or the first."""
        if not self.values:
            return None
        return self.info.get("best_epoch") or self.values.index(max(self.values)) + 1

    def row(self) -> dict[str, Any]:
        """The trial as a JSON object (DESIGN §2, trials.jsonl)."""
        fields = dataclasses.asdict(self)
        first = {name: fields.pop(name) for name in ("trial", "params", "state")}
        return {**first, "value": self.value, "epochs": self.epochs, **fields}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Trial:
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls) if field.name in row})


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A trial to run: its number, its parameters, and which attempt this is."""

    trial: int
    params: dict[str, Any]
    attempt: int = 1


@dataclasses.dataclass
class SearchResult:
    """How a search ended, with every trial in order of its number."""

    state: str  # COMPLETE, FAILED (no trial succeeded) or INTERRUPTED
    trials: list[Trial]
    seconds: float  # wall time of `run`
    error: str | None = None

    @property
    def best(self) -> Trial | None:
        return best_trial(self.trials)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the greatest value among those that completed or were stopped early; the lowest number breaks a tie."""
    usable = [trial for trial in trials if trial.state in ("COMPLETE", "PRUNED") and trial.values]
    return max(usable, key=lambda trial: (trial.value, -trial.trial), default=None)


def best_so_far(trials: Sequence[Trial]) -> list[tuple[float, int, float]]:
    """After every epoch of a search, in order of time: (seconds since the first trial's start, epochs spent, best value)."""
    origin = min((trial.start for trial in trials), default=0.0)
    told = sorted(
        (trial.start + at - origin, value) for trial in trials for at, value in zip(trial.times, trial.values, strict=True)
    )
    steps, best = [], -math.inf
    for spent, (seconds, value) in enumerate(told, 1):
        best = max(best, value)
        steps.append((seconds, spent, best))
    return steps


class Report(Protocol):
    """What an objective tells its trial's progress to."""

    trial: int
    info: dict[str, Any]  # the objective may write here; stored with the trial

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        """Tell the value after `epoch` (1, 2, 3, …) and the seconds spent so far by kind. Raises `TrialStopped` to end the
        trial."""


class Objective(Protocol):
    """`objective(params, report)`: any function; it runs in a worker process, to which it (and not its data) is pickled.

    It may also offer `modules` (names to import, once, before workers are forked: importing them must not start threads nor touch
    a GPU), `threads` (that are of use to one trial) and `prepare()` (called once in each worker).
    """

    def __call__(self, params: dict[str, Any], report: Report) -> None: ...


def check_report(last_epoch: int, epoch: int, value: float) -> int:
    """Return `epoch`; raises `ValueError` unless it follows `last_epoch` and `value` is a finite number."""
    if epoch != last_epoch + 1:
        raise ValueError(f"an objective reports epochs 1, 2, 3, …; epoch {epoch} came after {last_epoch}")
    if not math.isfinite(value):
        raise ValueError(f"the value of epoch {epoch} is {value}")
    return epoch


def final_state(trial: Trial, state: str, error: str | None, epochs: int) -> tuple[str, str | None]:
    """The state and the error of an ended trial: complete if it was stopped in its last epoch, failed if it has no value."""
    if state == "PRUNED" and trial.epochs >= epochs:
        state = "COMPLETE"
    if state == "COMPLETE" and not trial.values:
        return "FAILED", "the objective reported no value"
    return state, error
