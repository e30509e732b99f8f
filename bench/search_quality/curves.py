"""Tables of recorded learning curves: scores and seconds per epoch of points of a search space.

`shardwave.bench.search_quality.record` records the tables in `tables/`. The run folder of a search without a
scheduler is a table too: `search SET --backend random --scheduler none --trials 400 --out RUN`.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from shardwave.common import regular_file, typed
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.runs import result
from shardwave.search.space import Choice, Description, Dimension, Grid, LogUniform, Space, Uniform
from shardwave.search.trial_log import read_trials
from shardwave.shards.storage.atomic import write_bytes

FORMAT = "shardwave-curves-3"
FOLDER = Path(__file__).parent / "tables"  # tables of the project
COVERED = 0.7  # share of the combinations of categories that a table must hold
FOLDS = 5  # trainings of a configuration, each validated on another fold

Params = dict[str, Any]
NUMBERS = (int, float)


class Recorded(TypedDict):
    """Trainings of one configuration with one seed; the lists of scores hold one list per fold."""

    configuration: int
    seed: int
    params: Params
    val_correct: list[list[int]]  # number of correct validation clips after each epoch
    val_loss: list[list[float]]
    test_correct: list[list[int]]  # number of correct test clips after each epoch
    seconds: float  # CPU time per epoch of one training, validation included


class Head(TypedDict):
    """Description of a table; further fields are not used."""

    format: str
    name: str
    space: Description  # as returned by `Space.describe`
    val_clips: list[int]  # number of validation clips of each fold
    test_clips: int


class Row(NamedTuple):
    """Learning curve of one configuration, averaged over the folds.

    Attributes:
        params: The configuration.
        values: Validation accuracy after each epoch.
        seconds: Time per epoch, validation included.
        losses: Validation loss after each epoch; empty if it was not recorded.
        test: Test accuracy after each epoch; empty if it was not recorded.
        folds: Best validation accuracy of each fold; empty if it was not recorded.
        found: What a search has found after each epoch, if it is not `values`.
    """

    params: Params
    values: Sequence[float]
    seconds: float
    losses: Sequence[float] = ()
    test: Sequence[float] = ()
    folds: Sequence[float] = ()
    found: Sequence[float] = ()


class Table:
    """Learning curves of points of a space.

    Args:
        name: Name of the table.
        space: Search space.
        rows: Learning curves.
        repeats: Validation accuracy of the configurations that were trained with several seeds, float
            [configurations, seeds, epochs]; None: there are none.

    Raises:
        UsageError: Less than `COVERED` of the combinations of categories have a row.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        rows: Sequence[Row],
        repeats: np.ndarray | None = None,
    ) -> None:
        if not rows:
            raise UsageError(f"table {name} holds no configuration: record some first")
        self.name, self.space, self.rows = name, space, list(rows)
        self.repeats = repeats
        self.epochs = min(len(row.values) for row in rows)
        self.best = max(max(row.values[: self.epochs]) for row in rows)
        self._categories = {
            key: rule.values for key, rule in space.dimensions.items() if isinstance(rule, Grid | Choice)
        }
        cells: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            cells.setdefault(self._cell(row.params), []).append(row)
        possible = list(itertools.product(*self._categories.values()))
        covered = sum(cell in cells for cell in possible)
        if covered < COVERED * len(possible) or not possible:
            raise UsageError(
                f"table {name} covers {covered} of {len(possible)} cells of {', '.join(self._categories)}: "
                "record more"
            )
        self._cells = {
            cell: (np.array([self._unit(row.params) for row in members]), members)
            for cell, members in cells.items()
        }
        self._places = np.array([self._place(row.params) for row in rows])

    def lookup(self, params: Mapping[str, Any]) -> Row:
        """Return the row with the same categories and the nearest numbers.

        The distance is that of the positions in the unit cube, of logarithms for log-uniform parameters. If
        no row has the same categories, they count by their positions in the list of the values.
        """
        if self._cell(params) not in self._cells:
            return self.rows[int(np.square(self._places - self._place(params)).sum(axis=1).argmin())]
        points, members = self._cells[self._cell(params)]
        distances = np.square(points - self._unit(params)).sum(axis=1)
        return members[int(distances.argmin())]

    def _cell(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params[key] for key in self._categories)

    def _place(self, params: Mapping[str, Any]) -> list[float]:
        categories = (
            values.index(params[key]) / max(1, len(values) - 1) for key, values in self._categories.items()
        )
        return [*categories, *self._unit(params)]

    def _unit(self, params: Mapping[str, Any]) -> list[float]:
        numbers = (key for key in self.space.dimensions if key not in self._categories)
        return [_position(self.space.dimensions[key], params[key]) for key in numbers]


def read(path: Path) -> Table:
    """Read a table, or the completed trials of a search's run folder.

    Raises:
        UsageError: There is no table, or it does not cover its space.
        ShardwaveError: The table is damaged.
    """
    try:
        return _read_run(path) if path.is_dir() else _read_file(path)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise ShardwaveError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _read_file(path: Path) -> Table:
    try:
        content = regular_file.read_bytes(path)
    except OSError as error:
        raise UsageError(f"no table of learning curves there ({error.strerror})") from None
    if not content.startswith(b"PK"):
        raise UsageError("not a table of learning curves: name an .npz file or the run folder of a search")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile and zlib raise errors of many types
        raise ValueError(str(error)) from None
    head = typed.parse(bytes(arrays.pop("head")), path)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        kind = typed.shown(head.get("format") if isinstance(head, dict) else None)
        raise UsageError(f"not a table of learning curves: its format is {kind}, not {FORMAT}")
    described: Head = typed.check(head, Head, path)
    space = Space.from_description(described["space"])
    columns = {key: arrays[f"params.{key}"].tolist() for key in space.dimensions}
    clips = np.array(described["val_clips"], np.float64)
    values = arrays["val_correct"].sum(axis=1) / clips.sum()  # [rows, epochs]
    folds = arrays["val_correct"].max(axis=2) / clips
    losses = arrays["val_loss"].astype(np.float64).mean(axis=1)
    test = arrays["test_correct"].mean(axis=1) / described["test_clips"]
    rows, first = [], {}
    for index, (configuration, seed) in enumerate(
        zip(arrays["configuration"].tolist(), arrays["seed"].tolist(), strict=True)
    ):
        first[configuration, seed] = index
        if seed == 0:
            params = {key: column[index] for key, column in columns.items()}
            curve = (values[index].tolist(), float(arrays["seconds"][index]))
            more = (losses[index].tolist(), test[index].tolist(), folds[index].tolist())
            rows.append(Row(params, *curve, *more))
    seeds = sorted({seed for _, seed in first})
    repeated = sorted({configuration for configuration, seed in first if seed == seeds[-1]})
    repeats = np.array([[values[first[number, seed]] for seed in seeds] for number in repeated])
    return Table(described["name"], space, rows, repeats if len(seeds) > 1 else None)


def _read_run(path: Path) -> Table:
    space = result.read(path).get("space")
    if space is None:
        raise UsageError("not the run folder of a search")
    rows = [
        Row(trial.params, trial.values, sum(trial.spent.values()) / trial.epochs)
        for trial in read_trials(path)
        if trial.state == "COMPLETE"
    ]
    return Table(path.stem, Space.from_description(space), rows)


def write(path: Path, head: Mapping[str, Any], rows: Sequence[Recorded]) -> None:
    """Write a table.

    Args:
        path: File of the table, `.npz`.
        head: Fields of `Head` except the format, and further ones.
        rows: Trainings, in any order.
    """
    ordered = sorted(rows, key=lambda row: (row["seed"], row["configuration"]))
    text = json.dumps({**head, "format": FORMAT, "configurations": len(ordered)}, ensure_ascii=False)
    arrays: dict[str, Any] = {
        "head": np.frombuffer(text.encode(), np.uint8),
        "configuration": np.array([row["configuration"] for row in ordered], np.int32),
        "seed": np.array([row["seed"] for row in ordered], np.int32),
        "val_correct": np.array([row["val_correct"] for row in ordered], np.uint16),  # [rows, folds, epochs]
        "val_loss": np.array([row["val_loss"] for row in ordered], np.float16),
        "test_correct": np.array([row["test_correct"] for row in ordered], np.uint16),
        "seconds": np.array([row["seconds"] for row in ordered], np.float32),
    }
    for key in ordered[0]["params"]:
        arrays[f"params.{key}"] = np.array([row["params"][key] for row in ordered])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def _position(dimension: Dimension, value: float) -> float:
    assert isinstance(dimension, Uniform | LogUniform)
    low, high = dimension.low, dimension.high
    if isinstance(dimension, LogUniform):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
