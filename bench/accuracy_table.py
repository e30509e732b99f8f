"""Accuracy of models on a table of features, such as GTZAN's: the rows of `bench.accuracy` on features."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path

from sklearn.model_selection import StratifiedKFold

from shardwave.bench.accuracy import Accuracy, slug, table_row, train_all, write
from shardwave.bench.accuracy_rows import ROWS, Training
from shardwave.common.csv_text import csv_text
from shardwave.common.errors import UsageError
from shardwave.shards.storage.atomic import write_bytes

FOLDS = 5
NAMES = tuple(name for name, spec in ROWS.items() if spec.inputs == "features" and spec.kind != "search")


def run(
    table: Path,
    out: Path,
    work: Path,
    *,
    label_column: str = "label",
    drop_columns: str | None = None,
    rows: Sequence[str] = NAMES,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
) -> Accuracy:
    """Cross-validate models on a table with one row per track, and write `accuracy-table.json` and `.md`.

    The tracks are drawn into five folds, stratified by class, with the seed 0.

    Args:
        table: CSV file.
        out: Folder of the two files.
        work: Folder of the shard set and run folders.
        label_column: Column of the classes.
        drop_columns: Columns that are not used as features, with commas.
        rows: Names of `ROWS` that take features.
        seeds: Seeds that replace those of the rows.
        jobs: Cross-validations at the same time, each in a process with one thread; None is one per core.

    Returns:
        The contents of `accuracy-table.json`.

    Raises:
        UsageError: A row takes other fields, or the table has no such column.
    """
    from shardwave.shards.build.options import BuildOptions
    from shardwave.shards.build.table import build_table

    for name in rows:
        if name not in NAMES:
            raise UsageError(f"--row of a table must be one of {'; '.join(NAMES)}; got {name}")
    shard_set, begin = work / "set", time.perf_counter()
    if not (shard_set / "manifest.json").exists():
        work.mkdir(parents=True, exist_ok=True)
        write_bytes(work / "folds.csv", _with_folds(table, label_column).encode())
        options = BuildOptions(label_column=label_column, drop_columns=drop_columns)
        build_table(work / "folds.csv", shard_set, options)
    seconds = time.perf_counter() - begin
    chosen = {name: ROWS[name].seeds if seeds is None else tuple(seeds) for name in rows}
    trainings = [
        Training(shard_set, work / f"{slug(name)}-{seed}", ROWS[name], {"seed": seed})
        for name, each in chosen.items()
        for seed in each
    ]
    runs = iter(train_all(trainings, jobs))
    measured = [table_row(name, [next(runs) for _ in each], seconds) for name, each in chosen.items()]
    return write(out / "accuracy-table.json", measured, [], None)


def _with_folds(table: Path, label_column: str) -> str:
    """Return the CSV with a column of folds."""
    with open(table, newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    if label_column not in header:
        raise UsageError(f"--label-column must be a column of {table}, got {label_column}")
    labels = [line[header.index(label_column)] for line in lines]
    folds = [0] * len(lines)
    drawn = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(lines, labels)
    for fold, (_, test) in enumerate(drawn, 1):
        for row in test.tolist():
            folds[row] = fold
    return csv_text([[*header, "fold"], *([*line, fold] for line, fold in zip(lines, folds, strict=True))])
