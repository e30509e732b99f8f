"""The record of a search: a line per ended trial in `trials.jsonl`, per attempt in `started.jsonl`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar

from shardwave.common import regular_file, typed
from shardwave.common.errors import DamagedFile, ShardwaveError
from shardwave.common.messages import say
from shardwave.common.redact import redact_values
from shardwave.search import line_file
from shardwave.search.trial import Assignment, ParamValue, Trial, TrialRow, check_report
from shardwave.shards.storage.atomic import json_bytes

T = TypeVar("T")
TRIALS, STARTED = "trials.jsonl", "started.jsonl"
KEPT = "kept"  # subfolder of the run folder for checkpoints of trials, removed when the search is complete
BEGINNING = b'{"trial"'  # first bytes of every line of both files


class StartedRow(TypedDict):
    """A line of started.jsonl."""

    trial: typed.Count
    params: dict[str, ParamValue]
    attempt: typed.Count
    worker: NotRequired[str]


class TrialLog:
    """The trials of a search, in memory and optionally in a run folder; all changes of trials use this class.

    Args:
        folder: The run folder; trials that it contains are read. None: the trials are not written.
        listener: Called with a trial after each of its changes.

    Attributes:
        finished: The trials that ended, by number.
        running: The running trials, by number.

    Raises:
        DamagedFile: If `trials.jsonl` contains a trial with different numbers of times and values.
    """

    def __init__(self, folder: Path | None = None, listener: Callable[[Trial], None] | None = None) -> None:
        self.listener = listener
        self.finished: dict[int, Trial] = {}
        self.running: dict[int, Trial] = {}
        self._unfinished: dict[int, Assignment] = {}  # trials that an earlier process did not finish
        self.folder = folder
        self._repaired: set[str] = set()  # files checked for an incomplete last line
        if folder is not None:
            for ended in _read(folder / TRIALS, TrialRow):
                if len(ended["times"]) != len(ended["values"]):
                    raise DamagedFile(
                        f"{folder / TRIALS} is damaged: trial {ended['trial']} has {len(ended['times'])} "
                        f"times for {len(ended['values'])} values"
                    )
                self.finished[ended["trial"]] = Trial.from_row(ended)
            for row in _read(folder / STARTED, StartedRow):
                if row["trial"] not in self.finished:
                    self._unfinished[row["trial"]] = Assignment(
                        row["trial"], row["params"], row["attempt"] + 1
                    )

    @property
    def trials(self) -> list[Trial]:
        """Trials that ended, in order of their numbers."""
        return [self.finished[number] for number in sorted(self.finished)]

    def unfinished(self) -> list[Assignment]:
        """Return the next attempts of the trials that an earlier process started and did not finish."""
        return [self._unfinished[number] for number in sorted(self._unfinished)]

    def start(self, assignment: Assignment, worker: str) -> Trial:
        """Record the start of an attempt at a trial."""
        trial = Trial(assignment.trial, assignment.params, worker=worker, attempt=assignment.attempt)
        self.running[trial.trial] = trial
        self._append(
            STARTED,
            {"trial": trial.trial, "params": trial.params, "attempt": trial.attempt, "worker": worker},
        )
        self._notify(trial)
        return trial

    def report(
        self,
        number: int,
        epoch: int,
        value: float,
        spent: Mapping[str, float] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Trial:
        """Record the value of a running trial's next epoch.

        Args:
            number: Number of the trial.
            epoch: Number of the epoch, from 1.
            value: Value after the epoch.
            spent: Time spent so far by kind, in seconds.
            info: Further results, added to those of the trial.

        Returns:
            The trial.

        Raises:
            ValueError: If an epoch is missing or repeated, or the value is not finite.
        """
        trial = self.running[number]
        check_report(trial.epochs, epoch, value)
        trial.values.append(float(value))
        trial.times.append(round(time.time() - trial.start, 6))
        if spent:
            trial.spent = {kind: round(seconds, 6) for kind, seconds in spent.items()}
        trial.info.update(info or {})
        self._notify(trial)
        return trial

    def end(self, number: int, state: str, error: str | None = None) -> Trial:
        """Record the end of a running trial.

        Args:
            number: Number of the trial.
            state: COMPLETE, PRUNED or FAILED.
            error: Reason of a failure.

        Returns:
            The trial.
        """
        trial = self.running.pop(number)
        trial.state, trial.error = state, error
        trial.seconds = trial.seconds or round(time.time() - trial.start, 6)
        return self.add(trial)

    def add(self, trial: Trial) -> Trial:
        """Record a trial that has ended, also one of another machine of the same study."""
        self.finished[trial.trial] = trial
        self._append(TRIALS, trial.row())
        self._notify(trial)
        return trial

    def _append(self, name: str, row: Mapping[str, object]) -> None:
        """Append a line to a file; before the first one, remove an incomplete last line."""
        if self.folder is None:
            return
        if name not in self._repaired:
            line_file.remove_incomplete_line(self.folder / name, BEGINNING)
            self._repaired.add(name)
        line_file.append(self.folder / name, json_bytes(redact_values(row)), sync=name == TRIALS)

    def _notify(self, trial: Trial) -> None:
        if self.listener is not None:
            self.listener(trial)


def read_trials(folder: Path | str) -> list[Trial]:
    """Return the trials in the run folder of a search, in order of their numbers.

    Raises:
        ShardwaveError: If the folder contains no trials.jsonl.
    """
    folder = Path(folder)
    if not (folder / TRIALS).exists():
        raise ShardwaveError(
            f"{folder} contains no {TRIALS}: it is not a run folder of `search`, or no trial has ended; "
            "choose another"
        )
    return TrialLog(folder).trials


def _read(path: Path, kind: type[T]) -> list[T]:
    """Read a JSON-lines file; skips damaged lines, with a message except for the last line."""
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
                say(f"{error}: the line is skipped, and --resume runs its trial again")
    return rows
