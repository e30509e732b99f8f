"""Tables of recorded learning curves: validation scores and seconds per epoch of points of a search space.

`python -m shardwave.bench.search_quality.curves RUN OUT.jsonl` writes the completed trials of a search as a
table. A search without a scheduler gives complete curves: `search SET --backend random --scheduler none
--trials 400 --jobs 2 --out RUN`.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from shardwave.common import regular_file, typed
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.runs import result
from shardwave.search.space import Choice, Description, Dimension, Grid, LogUniform, Space, Uniform
from shardwave.search.trial_log import read_trials
from shardwave.shards.storage.atomic import write_bytes

FORMAT = "shardwave-curves-2"
DEFAULT = Path(__file__).parents[1] / "curves" / "mlp-esc10.jsonl"  # table of the project


class Row(TypedDict):
    """Learning curve of one configuration; a line of a table."""

    params: dict[str, int | float]
    values: list[float]  # the validation score after each epoch
    seconds: float  # per epoch, validation included


class Head(TypedDict):
    """First line of a table; further fields are not used."""

    format: str
    space: Description  # as returned by `Space.describe`


class Table:
    """Learning curves of points of a space.

    Args:
        name: Name of the table.
        space: Search space.
        rows: Learning curves.

    Raises:
        UsageError: A combination of categories has no row.
    """

    def __init__(self, name: str, space: Space, rows: Sequence[Row]) -> None:
        if not rows:
            raise UsageError(f"table {name} holds no configuration: record some first")
        self.name, self.space, self.rows = name, space, list(rows)
        self.epochs = min(len(row["values"]) for row in rows)
        self.best = max(max(row["values"][: self.epochs]) for row in rows)
        self._categories = {
            key: rule.values for key, rule in space.dimensions.items() if isinstance(rule, Grid | Choice)
        }
        self._cells: dict[tuple, list[tuple[list[float], Row]]] = {}
        for row in rows:
            self._cells.setdefault(self._cell(row["params"]), []).append((self._unit(row["params"]), row))
        cells = list(itertools.product(*self._categories.values()))
        covered = sum(cell in self._cells for cell in cells)
        if covered < len(cells) or not cells:
            raise UsageError(
                f"table {name} covers {covered} of {len(cells)} cells of {', '.join(self._categories)}: "
                "record more"
            )

    def lookup(self, params: Mapping[str, Any]) -> Row:
        """Return the row with the same categories and the nearest numbers.

        The distance is that of the positions in the unit cube, of logarithms for log-uniform parameters.
        """
        point = self._unit(params)
        return min(self._cells[self._cell(params)], key=lambda entry: math.dist(entry[0], point))[1]

    def _cell(self, params: Mapping[str, Any]) -> tuple:
        return tuple(params[key] for key in self._categories)

    def _unit(self, params: Mapping[str, Any]) -> list[float]:
        numbers = (key for key in self.space.dimensions if key not in self._categories)
        return [_position(self.space.dimensions[key], params[key]) for key in numbers]


def read(path: Path) -> Table:
    """Read a table, or the completed trials of a search's run folder.

    Raises:
        UsageError: There is no table, or it does not cover its space.
        ShardwaveError: The table is damaged.
    """
    space, rows = _read_run(path) if path.is_dir() else _read_file(path)
    try:
        return Table(path.stem, Space.from_description(space), rows)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ShardwaveError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _read_file(path: Path) -> tuple[Description, list[Row]]:
    try:
        first, _, rest = regular_file.read_bytes(path).partition(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: no table of learning curves there ({error.strerror})") from None
    head = typed.parse(first, path)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        kind = typed.shown(head.get("format") if isinstance(head, dict) else None)
        raise UsageError(f"{path} is not a table of learning curves: its format is {kind}, not {FORMAT}")
    return typed.check(head, Head, path)["space"], typed.lines(rest, Row, f"{path} below its first line,")


def _read_run(path: Path) -> tuple[Description, list[Row]]:
    space = result.read(path).get("space")
    if space is None:
        raise UsageError(f"{path} is not the run folder of a search")
    rows: list[Row] = [
        {"params": trial.params, "values": trial.values, "seconds": sum(trial.spent.values()) / trial.epochs}
        for trial in read_trials(path)
        if trial.state == "COMPLETE"
    ]
    return space, rows


def write(path: Path, head: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write a table.

    Args:
        path: File of the table.
        head: First line, with the space.
        rows: Learning curves.
    """
    lines: list[Mapping[str, Any]] = [{**head, "format": FORMAT, "configurations": len(rows)}]
    for row in rows:
        values = [round(value, 4) for value in row["values"]]
        lines.append({"params": row["params"], "values": values, "seconds": round(row["seconds"], 5)})
    write_bytes(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def _position(dimension: Dimension, value: float) -> float:
    assert isinstance(dimension, Uniform | LogUniform)
    low, high = dimension.low, dimension.high
    if isinstance(dimension, LogUniform):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def main(run: Path, out: Path) -> None:
    """Write the completed trials of the search in `run` as the table `out`."""
    if out.exists():
        raise UsageError(f"{out} exists: name a new file")
    table = read(run)
    contents, fields = (
        result.read(run),
        ("model", "fingerprint", "selected_by", "folds", "seed", "space", "environment"),
    )
    write(out, {name: contents.get(name) for name in fields}, table.rows)
    print(f"{out}: {len(table.rows)} configurations of {table.epochs} epochs, the best {table.best}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
