"""A folder with its label file in it: `labels.csv`, or loose audio files beside one CSV with a file and a label column."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable

from preprocess.errors import UsageError
from shards.clip import Clip
from shards.progress import say
from shards.sources import csv_labels
from shards.url_path import Place

FILE_COLUMNS = ("path", "filename", "file_name", "file", "fname", "slice_file_name", "id")  # the first found is taken
LABEL_COLUMNS = ("label", "class", "category", "genre", "classname", "class_name", "target")


def read(audio: Place, paths: list[str]) -> list[Clip] | None:
    """Clips as the CSV in the folder says; audio files that it does not name are left out, as with --labels."""
    own = audio / "labels.csv"
    if own.is_file():
        say(f"labels from {own}")
        return csv_labels.read(audio, own)
    if not any("/" not in path for path in paths):
        return None
    files = [path for path in sorted(list[Place](audio.glob("*.csv")), key=str) if path.is_file()]  # a pipe would be waited for
    tables = {table: columns for table in files if (columns := _columns(table))}
    if not tables:
        return None
    if len(tables) > 1:
        raise UsageError(
            f"{audio} holds several label files ({', '.join(table.name for table in tables)}): name one with --labels"
        )
    table, (file_column, label_column) = next(iter(tables.items()))
    say(f"labels from {table}: file {file_column}, class {label_column}")
    return _clips(table, file_column, label_column, paths)


def _columns(table: Place) -> tuple[str, str] | None:
    """The names of the file and the label column, or None when the table lacks either."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    by_name = {name.lower(): name for name in reversed(header)}
    found = [next((by_name[name] for name in names if name in by_name), None) for names in (FILE_COLUMNS, LABEL_COLUMNS)]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None


def _clips(table: Place, file_column: str, label_column: str, paths: list[str]) -> list[Clip]:
    by_path = set(paths)
    by_stem: dict[str, list[str]] = {}
    for path in paths:
        by_stem.setdefault(os.path.splitext(path)[0], []).append(path)
    clips = []
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        for row in reader:
            values = {
                name.lower(): (value or "").strip()
                for name, value in row.items()
                if isinstance(name, str) and not isinstance(value, list)
            }
            name = values[file_column.lower()]
            matches = [name] if name in by_path else by_stem.get(name, [])  # Kaggle's ids come without extension
            where = f"{table} line {reader.line_num}"
            if len(matches) != 1:
                raise UsageError(f"{where}: {name} names {len(matches) or 'no'} audio files in {table.parent}")
            fold, split = (
                csv_labels.parse_fold(values.get("fold") or None, where),
                csv_labels.parse_split(values.get("split") or None, where),
            )
            clips.append(Clip(matches[0], values[label_column.lower()] or None, fold, values.get("group") or None, split))
    _check(clips, str(table))
    return clips


def _check(clips: Iterable[Clip], where: str) -> None:
    listed = list(clips)
    if not listed:
        raise UsageError(f"{where} names no clips: give one line per clip below the header")
    csv_labels.check(listed, where)
