"""One measured case as one JSON line (DESIGN §2, bench `records.jsonl`): all repeats, and what they ran on."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from shardwave.common import regular_file, typed
from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError, UsageError

ROLES = ("ours", "peer", "floor")
LOWER_IS_BETTER = ("s", "ms", "s/trial", "MB", "exponent", "regret")  # units; in every other unit more is better


class Way(TypedDict):
    """Where a record stands on a clip's way from its file into a training."""

    step: str
    work: float
    when: Literal["once", "epoch"]


class Params(TypedDict, total=False):
    """What was measured; the fields that reports make use of, others are allowed."""

    way: Way
    parts: dict[str, float]
    whole: str
    group: str
    axis: str | None
    measure: str
    points: list[list[float]]


class RecordRow(TypedDict):
    """A line of records.jsonl."""

    stage: str
    case: str
    role: Literal["ours", "peer", "floor"]
    unit: str
    repeats: list[float]
    median: float | None
    q1: float | None
    q3: float | None
    n: typed.Count
    of_floor: float | None
    params: Params
    environment: dict[str, Any]
    commit: str | None
    date: str | None
    skipped: str | None


FIELDS = tuple(RecordRow.__annotations__)


@dataclasses.dataclass(frozen=True)
class Record:
    """A case of a stage: its repeats in `unit`, or the reason why it was not run."""

    stage: str
    case: str
    role: str  # one of ROLES
    unit: str
    repeats: Sequence[float] = ()
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    of_floor: float | None = None  # fraction of what the hardware could do, 1 = at the floor
    skipped: str | None = None  # why there are no repeats
    environment: dict[str, Any] = dataclasses.field(default_factory=environment)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UsageError(f"role must be one of {', '.join(ROLES)}, got {self.role}")
        if bool(self.repeats) == bool(self.skipped):
            raise UsageError(f"{self.stage}/{self.case}: a record has either repeats or the reason why it was skipped")

    @property
    def median(self) -> float:
        """The middle of the repeats, in `unit`; NaN for a skipped case."""
        return statistics.median(self.repeats) if self.repeats else float("nan")

    def row(self) -> dict[str, Any]:
        """The JSON object that `records.jsonl` holds."""
        q1, q3 = quartiles(self.repeats) if self.repeats else (None, None)
        median = self.median if self.repeats else None
        figures = {"median": median, "q1": q1, "q3": q3, "of_floor": self.of_floor}
        about = {"commit": self.environment.get("commit"), "date": self.environment.get("date"), "n": len(self.repeats)}
        values = {**vars(self), **about, "repeats": [_round(value) for value in self.repeats]}
        values |= {name: _round(value) for name, value in figures.items()}
        return {name: values[name] for name in FIELDS}


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile (linear interpolation, as NumPy's default)."""
    if len(values) == 1:
        return values[0], values[0]
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, q3


def against_floor(records: Iterable[Record], floors: Sequence[str]) -> list[Record]:
    """The records of one group of cases, each with its fraction of the best of the cases named in `floors`.

    All must share one unit. For rates the fraction is ours / floor, for times floor / ours.
    """
    rows = list(records)
    best = [row for row in rows if row.case in floors and row.repeats]
    if not best:
        return rows
    unit, lower = best[0].unit, best[0].unit in LOWER_IS_BETTER
    floor = (min if lower else max)(row.median for row in best)
    for i, row in enumerate(rows):
        if row.repeats and row.unit == unit:
            rows[i] = dataclasses.replace(row, of_floor=floor / row.median if lower else row.median / floor)
    return rows


def append(path: Path, record: Record) -> None:
    """Add one line; a run that is interrupted keeps what it measured."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record.row(), ensure_ascii=False) + "\n")


def read(path: Path | str) -> list[dict[str, Any]]:
    """Read the rows of a `records.jsonl` (or of the folder that holds one).

    Raises:
        ShardwaveError: there is none, or it is damaged; names the file, the line and the field.
    """
    path = Path(path)
    file = path / "records.jsonl" if path.is_dir() else path
    try:
        data = regular_file.read_bytes(file)
    except OSError as error:
        raise ShardwaveError(f"{file}: no bench records there ({error.strerror}); run: bench throughput --out FOLDER") from None
    rows = typed.lines(data, RecordRow, file, "measure again")
    for number, row in enumerate(rows, 1):
        if not row["skipped"] and None in (row["median"], row["q1"], row["q3"]):
            raise ShardwaveError(f"{file}: record {number} is damaged: it has neither figures nor the reason why: measure again")
        if "way" in row["params"] and not (row["median"] or 0) > 0 and not row["skipped"]:
            raise ShardwaveError(f"{file}: record {number} is damaged: its median must be above 0: measure again")
    return [dict(row) for row in rows]


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
