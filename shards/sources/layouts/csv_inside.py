"""A folder with its label file in it: `labels.csv`, or loose audio files beside one CSV with a file and a label column."""

from __future__ import annotations

from preprocess.errors import UsageError
from shards.build_options import BuildOptions
from shards.sources import table_columns
from shards.sources.text_table import TextTable, header
from shards.url_path import Place


def find(audio: Place, paths: list[str], options: BuildOptions) -> Place | None:
    """Find the label file of a folder.

    Args:
        audio: The folder.
        paths: The audio files below it.
        options: May name the columns of the file.

    Raises:
        UsageError: Several files could be meant.
    """
    own = audio / "labels.csv"
    if own.is_file():
        return own
    if not any("/" not in path for path in paths):
        return None
    files = [path for path in sorted(list[Place](audio.glob("*.csv")), key=str) if path.is_file()]  # a pipe would be waited for
    tables = [table for table in files if _is_label_file(table, options)]
    if len(tables) > 1:
        raise UsageError(
            f"{audio} holds several label files ({', '.join(table.name for table in tables)}): name one with --labels"
        )
    return tables[0] if tables else None


def _is_label_file(table: Place, options: BuildOptions) -> bool:
    """Whether the table has a column of files and one of classes."""
    try:
        columns = table_columns.find(TextTable(str(table), header(table), [], []), options)
    except UsageError:  # it lacks a column that an option names
        return False
    return columns.path is not None and columns.label is not None
