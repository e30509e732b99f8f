"""Layout with a label file in the audio folder: `labels.csv`, or one CSV file next to the audio files."""

from __future__ import annotations

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.sources import table_columns
from shardwave.shards.sources.text_table import TextTable, read_header
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath


def find(audio: AnyPath, paths: list[str], options: BuildOptions) -> AnyPath | None:
    """Find the label file of an audio folder: `labels.csv` or the only table of files and classes.

    Files other than `labels.csv` are considered only if there are audio files directly in the folder.

    Args:
        audio: The folder.
        paths: The audio files below it.
        options: Names of columns of the file.

    Returns:
        Path of the label file; None if there is none.

    Raises:
        UsageError: Several CSV files have columns of files and classes.
    """
    default = audio / "labels.csv"
    if any_path.stat(default) is not None:
        return default
    if not any("/" not in path for path in paths):
        return None
    files = [audio / name for name in sorted(any_path.names(audio)) if name.endswith(".csv")]
    tables = [
        table for table in files if any_path.stat(table) is not None and _is_label_file(table, options)
    ]  # no pipes
    if len(tables) > 1:
        raise UsageError(
            f"{audio} contains several label files ({', '.join(table.name for table in tables)}): name one "
            "with --labels"
        )
    return tables[0] if tables else None


def _is_label_file(table: AnyPath, options: BuildOptions) -> bool:
    """Return whether a CSV file has a column of files and a column of classes."""
    try:
        columns = table_columns.find(TextTable(str(table), read_header(table), [], []), options)
    except UsageError:  # the file lacks a column that an option names
        return False
    return columns.path is not None and columns.label is not None
