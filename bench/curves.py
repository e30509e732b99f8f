"""Recorded learning curves: a table from parameters to a value and seconds per epoch, small enough to keep with the project.

A table is a file of JSON lines: first what was recorded, then one configuration a line.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        combinations = math.prod([len(_rule(space.dimensions[key])) for key in self._categories])
        if len(self._cells) < combinations:
            raise UsageError(
                f"table {name} covers {len(self._cells)} of {combinations} cells of {', '.join(self._categories)}: record more"
            )

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
    """A recorded table; raises UsageError for a file that is none."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        head = lines[0]
        if head.get("format") != FORMAT:
            raise UsageError(f"{path} is not a table of learning curves: its format is {head.get('format')}, not {FORMAT}")
        dimensions = {key: _dimension(rule) for key, rule in head["space"].items()}
        rows = [Row(line["params"], line["values"], line["seconds"]) for line in lines[1:]]
    except OSError as error:
        raise UsageError(f"{path}: no table of learning curves there ({error.strerror})") from None
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ShardwaveError(f"{path} is no table of learning curves, or damaged: {type(error).__name__}: {error}") from None
    return Table(path.stem, head, Space(dimensions, head.get("fixed", {})), rows)


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
