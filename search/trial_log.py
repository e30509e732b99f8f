"""The record of a search: `trials.jsonl` (a line when a trial ends) and `started.jsonl` (a line when one starts, for
`--resume`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

from shardwave.common import regular_file, typed
from shardwave.common.errors import DamagedFile, ShardwaveError
from shardwave.common.messages import say
from shardwave.common.redact import redact_values
from shardwave.search import line_file
from shardwave.search.trial import Assignment, Trial, check_report
from shardwave.shards.storage.atomic import json_bytes

T = TypeVar("T")
TRIALS, STARTED = "trials.jsonl", "started.jsonl"
BEGINNING = b'{"trial"'  # of every line of both


class TrialInfo(TypedDict):
    """What an objective tells of a trial beyond its values; more than these fields are allowed."""

    best_epoch: NotRequired[typed.Count | None]
    scores: NotRequired[dict[str, float | None]]
    parameters: NotRequired[typed.Count]


class TrialRow(TypedDict):
    """A line of trials.jsonl (see `shardwave.search.trial.Trial`)."""

    trial: typed.Count
    params: dict[str, int | float | str | bool | None]
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


class StartedRow(TypedDict):
    """A line of started.jsonl."""

    trial: typed.Count
    params: dict[str, int | float | str | bool | None]
    attempt: typed.Count
    worker: NotRequired[str]


class TrialLog:
    """Every trial of a search, in memory and (with a folder) on disk; the one place where they change.

    `listener(trial)` is called after every change, for progress.
    """

    def __init__(self, folder: Path | None = None, listener: Callable[[Trial], None] | None = None) -> None:
        self.listener = listener
        self.finished: dict[int, Trial] = {}
        self.running: dict[int, Trial] = {}
        self._lost: dict[int, Assignment] = {}  # started in an earlier run, never ended
        self.folder = folder
        self._mended: set[str] = set()  # files whose torn last line was removed
        if folder is not None:
            for ended in _read(folder / TRIALS, TrialRow):
                if len(ended["times"]) != len(ended["values"]):
                    raise DamagedFile(f"{folder / 'trials.jsonl'} is damaged: trial {ended['trial']} has not one time a value")
                self.finished[ended["trial"]] = Trial.from_row(ended)
            for row in _read(folder / STARTED, StartedRow):
                if row["trial"] not in self.finished:
                    self._lost[row["trial"]] = Assignment(row["trial"], row["params"], row["attempt"] + 1)

    @property
    def trials(self) -> list[Trial]:
        """The trials that ended, in order of their numbers."""
        return [self.finished[number] for number in sorted(self.finished)]

    def lost(self) -> list[Assignment]:
        """Trials that an earlier run started and did not end, as their next attempts."""
        return [self._lost[number] for number in sorted(self._lost)]

    def start(self, assignment: Assignment, worker: str) -> Trial:
        """A trial starts, or starts anew."""
        trial = Trial(assignment.trial, assignment.params, worker=worker, attempt=assignment.attempt)
        self.running[trial.trial] = trial
        self._append(STARTED, {"trial": trial.trial, "params": trial.params, "attempt": trial.attempt, "worker": worker})
        self._tell(trial)
        return trial

    def report(
        self,
        number: int,
        epoch: int,
        value: float,
        spent: Mapping[str, float] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Trial:
        """A running trial has a value for its next epoch."""
        trial = self.running[number]
        check_report(trial.epochs, epoch, value)
        trial.values.append(float(value))
        trial.times.append(round(time.time() - trial.start, 6))
        if spent:
            trial.spent = {kind: round(seconds, 6) for kind, seconds in spent.items()}
        trial.info.update(info or {})
        self._tell(trial)
        return trial

    def end(self, number: int, state: str, error: str | None = None) -> Trial:
        """A running trial ends as COMPLETE, PRUNED or FAILED: its line is written."""
        trial = self.running.pop(number)
        trial.state, trial.error = state, error
        trial.seconds = trial.seconds or round(time.time() - trial.start, 6)
        return self.add(trial)

    def add(self, trial: Trial) -> Trial:
        """A trial that has ended, here or on another machine of the same study."""
        self.finished[trial.trial] = trial
        self._append(TRIALS, trial.row())
        self._tell(trial)
        return trial

    def _append(self, name: str, row: dict[str, Any]) -> None:
        """Append a line, after removing half a line that an earlier run left."""
        if self.folder is None:
            return
        if name not in self._mended:
            line_file.cut_torn_line(self.folder / name, BEGINNING)
            self._mended.add(name)
        line_file.append(self.folder / name, json_bytes(redact_values(row)), sync=name == TRIALS)

    def _tell(self, trial: Trial) -> None:
        if self.listener is not None:
            self.listener(trial)


def read_trials(folder: Path | str) -> list[Trial]:
    """The trials of a search's run folder, in order of their numbers."""
    folder = Path(folder)
    if not (folder / TRIALS).exists():
        raise ShardwaveError(f"{folder} holds no trials.jsonl: it is not a search's run folder, or no trial has ended")
    return TrialLog(folder).trials


def _read(path: Path, kind: type[T]) -> list[T]:
    """Read the rows of a JSON-lines file; a damaged line is passed over, and named unless it is the last, cut off by a kill."""
    if not path.exists():
        return []
    rows = []
    lines = regular_file.read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        try:
            rows.append(typed.check(typed.parse(line, where), kind, where))
        except DamagedFile as error:
            if number < len(lines):
                say(f"{error}: passed over, a search that goes on runs its trial again")
    return rows
