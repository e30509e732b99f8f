"""Recorded learning curves: a table from parameters to a value and seconds per epoch, small enough to keep with the project.

A table is a file of JSON lines: first what was recorded, then one configuration a line.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from preprocess import regular_file, typed
from preprocess.environment import environment
from preprocess.errors import ShardwaveError, UsageError
from search.space import Choice, Dimension, Grid, LogUniform, Space, Uniform
from shards.atomic import write_bytes

FORMAT = "shardwave-curves-1"
FOLDER = Path(__file__).parent / "curves"  # tables that come with the project: every *.jsonl in it
_KINDS: dict[str, type] = {"grid": Grid, "choice": Choice, "uniform": Uniform, "log_uniform": LogUniform}


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration: its validation score after every epoch, and the seconds an epoch took."""

    params: dict[str, Any]
    values: list[float]
    seconds: float  # per epoch, validation included


Number = int | float


class Head(TypedDict):
    """The first line of a table; what it says beyond these fields is only shown."""

    format: str
    space: dict[str, dict[str, list[Number]]]
    fixed: NotRequired[dict[str, Number]]


class Line(TypedDict):
    """Each other line of a table."""

    params: dict[str, Number]
    values: list[float]
    seconds: float


class Table:
    """Learning curves of points of a space, looked up by the nearest recorded point."""

    def __init__(self, name: str, about: Mapping[str, Any], space: Space, rows: Sequence[Row]) -> None:
        if not rows:
            raise UsageError(f"table {name} holds no configuration: record some first")
        self.name, self.about, self.space, self.rows = name, dict(about), space, list(rows)
        self.epochs = min(len(row.values) for row in rows)
        self.best = max(max(row.values[: self.epochs]) for row in rows)
        self._categories = [key for key, dimension in space.dimensions.items() if isinstance(dimension, Grid | Choice)]
        self._numbers = [key for key in space.dimensions if key not in self._categories]
        self._cells: dict[tuple, list[tuple[list[float], Row]]] = {}
        for row in rows:
            self._cells.setdefault(self._cell(row.params), []).append((self._unit(row.params), row))
        cells = list(itertools.product(*(_rule(space.dimensions[key]) for key in self._categories)))
        covered = sum(cell in self._cells for cell in cells)
        if covered < len(cells):
            raise UsageError(f"table {name} covers {covered} of {len(cells)} cells of {', '.join(self._categories)}: record more")

    def lookup(self, params: Mapping[str, Any]) -> Row:
        """The recorded row of the same categories whose numbers are nearest in the unit cube (logarithms where drawn so)."""
        point = self._unit(params)
        return min(self._cells[self._cell(params)], key=lambda entry: math.dist(entry[0], point))[1]

    def _cell(self, params: Mapping[str, Any]) -> tuple:
        return tuple(params[key] for key in self._categories)

    def _unit(self, params: Mapping[str, Any]) -> list[float]:
        return [_position(self.space.dimensions[key], params[key]) for key in self._numbers]


def write(path: Path, about: Mapping[str, Any], space: Space, rows: Sequence[Row]) -> None:
    """Write a table; `about` says what was trained on what (model, data, score, …)."""
    rules = {key: {_kind(dimension): _rule(dimension)} for key, dimension in space.dimensions.items()}
    head = {"format": FORMAT, **about, "space": rules, "fixed": dict(space.fixed), "configurations": len(rows)}
    lines: list[dict[str, Any]] = [{**head, "environment": environment()}]
    for row in rows:
        values = [round(value, 4) for value in row.values]
        lines.append({"params": row.params, "values": values, "seconds": round(row.seconds, 5)})
    write_bytes(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def read(path: Path) -> Table:
    """Read a recorded table; raises UsageError for a file that is none, ShardwaveError where it is damaged."""
    try:
        first, *rest = regular_file.read_bytes(path).split(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: no table of learning curves there ({error.strerror})") from None
    found = typed.parse(first, path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = typed.shown(found.get("format") if isinstance(found, dict) else None)
        raise UsageError(f"{path} is not a table of learning curves: its format is {kind}, not {FORMAT}")
    head = typed.check(found, Head, path)
    lines = typed.lines(b"\n".join(rest), Line, f"{path} below its first line,")
    try:
        dimensions = {key: _dimension(rule) for key, rule in head["space"].items()}
        rows = [Row(line["params"], line["values"], line["seconds"]) for line in lines]
        return Table(path.stem, head, Space(dimensions, head.get("fixed", {})), rows)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:  # parameters and space do not fit
        raise ShardwaveError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _position(dimension: Dimension, value: float) -> float:
    assert isinstance(dimension, Uniform | LogUniform)
    low, high = dimension.low, dimension.high
    if isinstance(dimension, LogUniform):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _kind(dimension: Dimension) -> str:
    return next(name for name, kind in _KINDS.items() if isinstance(dimension, kind))


def _rule(dimension: Dimension) -> list[Any]:
    return list(dimension.values) if isinstance(dimension, Grid | Choice) else [dimension.low, dimension.high]


def _dimension(rule: Mapping[str, Sequence[Any]]) -> Dimension:
    ((kind, values),) = rule.items()
    made = _KINDS[kind]
    return made(tuple(values)) if made in (Grid, Choice) else made(*values)
