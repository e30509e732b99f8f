"""Records of measured cases: one JSON line each in `records.jsonl`, with all repeats and the environment."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from shardwave.common import regular_file, typed
from shardwave.common.environment import Environment, environment
from shardwave.common.errors import ShardwaveError, UsageError

ROLES = ("ours", "peer", "baseline", "limit")
LOWER_IS_BETTER = (
    "s",
    "ms",
    "s/trial",
    "MB",
    "exponent",
    "regret",
    "error",
)  # in other units higher is better


class ClipStep(TypedDict):
    """Step of processing a 30 s clip, from its file through a training, that a record measures.

    Args:
        step: Name of the step.
        work: Units of work per clip, in the record's unit times seconds.
        when: Whether the step is done once or in every epoch.
    """

    step: str
    work: float
    when: Literal["once", "epoch"]


Params = dict[str, Any]  # parameters of a case by name, in JSON


class ReportParams(TypedDict, total=False):
    """Fields of `params` that all reports use; other fields are allowed."""

    clip_step: ClipStep
    parts: dict[str, float]
    whole: str
    group: str
    axis: str | None
    measure: str
    points: list[list[float]]
    sample_bytes: float


class _Row(TypedDict):
    """Fields of all lines of records.jsonl."""

    stage: str
    case: str
    role: Literal["ours", "peer", "baseline", "limit"]
    unit: str
    repeats: list[float]
    n: typed.Count
    of_limit: float | None
    params: ReportParams
    environment: Environment
    commit: str | None
    date: str | None


class RecordRow(_Row):
    """A line of records.jsonl."""

    median: float | None
    q1: float | None
    q3: float | None
    skipped: str | None


class MeasuredRow(_Row):
    """A line of records.jsonl that was not skipped."""

    median: float
    q1: float
    q3: float
    skipped: None


# in the order in which a line holds them
FIELDS = (
    *("stage", "case", "role", "unit", "repeats", "median", "q1", "q3", "n", "of_limit"),
    *("params", "environment", "commit", "date", "skipped"),
)


@dataclasses.dataclass(frozen=True)
class Record:
    """Repeats of one case, or the reason why it was skipped.

    Args:
        stage: Stage of the case.
        case: Name of the case, unique in the stage and unit.
        role: One of ROLES.
        unit: Unit of the repeats.
        repeats: Measured values; a computed limit has one.
        params: Parameters of the case.
        of_limit: Fraction of the limit that the median reaches, at most 1; None if there is no limit.
        skipped: Reason why there are no repeats.
        environment: Machine, library versions, commit and date.

    Raises:
        UsageError: The role is unknown, the record has both or neither of repeats and a reason, or `of_limit`
            is above 1.
    """

    stage: str
    case: str
    role: str
    unit: str
    repeats: Sequence[float] = ()
    params: Params = dataclasses.field(default_factory=dict)
    of_limit: float | None = None
    skipped: str | None = None
    environment: Environment = dataclasses.field(default_factory=environment)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UsageError(f"role must be one of {', '.join(ROLES)}, got {self.role}")
        if bool(self.repeats) == bool(self.skipped):
            raise UsageError(
                f"{self.stage}/{self.case}: a record has either repeats or the reason why it was skipped"
            )
        if self.of_limit is not None and self.of_limit > 1:
            raise UsageError(f"{self.stage}/{self.case}: of_limit must be at most 1, got {self.of_limit:.4g}")

    @property
    def median(self) -> float:
        """Median of the repeats, in `unit`; NaN for a skipped case."""
        return statistics.median(self.repeats) if self.repeats else float("nan")

    def row(self) -> RecordRow:
        """Return the record as a line of `records.jsonl`."""
        q1, q3 = quartiles(self.repeats) if self.repeats else (None, None)
        median = self.median if self.repeats else None
        figures = {"median": median, "q1": q1, "q3": q3, "of_limit": self.of_limit}
        origin = {
            "commit": self.environment["commit"],
            "date": self.environment["date"],
            "n": len(self.repeats),
        }
        values = {**vars(self), **origin, "repeats": [_round(value) for value in self.repeats]}
        values |= {name: _round(value) for name, value in figures.items()}
        return cast(RecordRow, {name: values[name] for name in FIELDS})


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile by linear interpolation, as NumPy's default."""
    if len(values) == 1:
        return values[0], values[0]
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, q3


def with_limit(record: Record, limit: float) -> Record:
    """Return the record with the fraction of `limit` that its median reaches.

    A median beyond the limit shows that the rate behind the limit was measured too low. The record then has
    no `of_limit`, and `params["limit_exceeded"]` is the fraction.

    Args:
        record: Measured or skipped record.
        limit: Bound of its values, in its unit: the highest rate, or the shortest time.
    """
    if not record.repeats:
        return record
    fraction = limit / record.median if record.unit in LOWER_IS_BETTER else record.median / limit
    if fraction > 1:
        return dataclasses.replace(record, params={**record.params, "limit_exceeded": _round(fraction)})
    return dataclasses.replace(record, of_limit=fraction)


def append(path: Path, record: Record) -> None:
    """Append one line to the file `path`."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record.row(), ensure_ascii=False) + "\n")


def read(path: Path | str) -> list[RecordRow]:
    """Read the rows of a `records.jsonl` (or of the folder that holds one).

    Raises:
        ShardwaveError: The file cannot be read, or a record is damaged. The message names the file, the line
            and the field.
    """
    path = Path(path)
    file = path / "records.jsonl" if path.is_dir() else path
    try:
        data = regular_file.read_bytes(file)
    except OSError as error:
        raise ShardwaveError(
            f"{file}: no bench records there ({error.strerror}); run: bench throughput --out FOLDER"
        ) from None
    rows = typed.lines(data, RecordRow, file, "measure again")
    for number, row in enumerate(rows, 1):
        if not row["skipped"] and None in (row["median"], row["q1"], row["q3"]):
            raise ShardwaveError(
                f"{file}: record {number} is damaged: neither a median nor a reason to skip: measure again"
            )
        if "clip_step" in row["params"] and not (row["median"] or 0) > 0 and not row["skipped"]:
            raise ShardwaveError(
                f"{file}: record {number} is damaged: its median must be above 0: measure again"
            )
    return rows


def measured(rows: Sequence[RecordRow]) -> list[MeasuredRow]:
    """Return the rows that were not skipped."""
    return [cast(MeasuredRow, row) for row in rows if not row["skipped"]]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
