"""A folder with its label file in it: `labels.csv`, or loose audio files beside one CSV with a file and a label column."""

from __future__ import annotations

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.sources import table_columns
from shardwave.shards.sources.text_table import TextTable, header
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath


def find(audio: AnyPath, paths: list[str], options: BuildOptions) -> AnyPath | None:
    """Find the label file of a folder.

    Args:
        audio: The folder.
        paths: The audio files below it.
        options: May name the columns of the file.

    Raises:
        UsageError: Several files could be meant.
    """
    own = audio / "labels.csv"
    if any_path.stat(own) is not None:
        return own
    if not any("/" not in path for path in paths):
        return None
    files = [audio / name for name in sorted(any_path.names(audio)) if name.endswith(".csv")]
    tables = [table for table in files if any_path.stat(table) is not None and _is_label_file(table, options)]  # no pipe
    if len(tables) > 1:
        raise UsageError(
            f"{audio} holds several label files ({', '.join(table.name for table in tables)}): name one with --labels"
        )
    return tables[0] if tables else None


def _is_label_file(table: AnyPath, options: BuildOptions) -> bool:
    """Whether the table has a column of files and one of classes."""
    try:
        columns = table_columns.find(TextTable(str(table), header(table), [], []), options)
    except UsageError:  # it lacks a column that an option names
        return False
    return columns.path is not None and columns.label is not None
