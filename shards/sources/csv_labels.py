"""A label file: a table with a column of audio files and a column of classes, and of folds, groups, splits or segments."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.sources import table_columns, text_table
from shardwave.shards.sources.class_folders import audio_files, check_folder
from shardwave.shards.sources.clip_list import check_unique, fold_of_folder, split_of_folder
from shardwave.shards.sources.text_table import TextTable
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath


def read(audio: AnyPath, labels: AnyPath, options: BuildOptions | None = None) -> list[Clip]:
    """Read the clips that a label file names, sorted by path and segment.

    A value of the path column is a path below `audio`, or the end of one: a file's name, with or without its suffix, in any
    folder, where exactly one file fits. A file that does not exist is named all the same: decoding it quarantines the clip.

    Args:
        audio: The folder that the paths are relative to.
        labels: A CSV or Parquet file (`text_table.read`), whose columns `table_columns.find` finds.
        options: Names of columns (path_column, ...); a label_from makes the label column unnecessary.

    Raises:
        UsageError: The table cannot be read, has no rows or no column of paths or classes, holds a value that is not allowed,
            names a clip twice, or names no file that exists.
    """
    options = options or BuildOptions()
    check_folder(audio)
    table = text_table.read(labels, "--labels")
    columns = table_columns.find(table, options)
    for role, column in (("path", columns.path), ("label", columns.label)):
        if column is None and not (role == "label" and options.label_from is not None):
            what = "audio files" if role == "path" else "classes"
            raise UsageError(
                f"{table.name} has no column of {what}: it has {table_columns.shown_columns(table)}; "
                f"name one with --{role}-column, or give the first line path,label[,fold][,group][,split][,start][,end]"
            )
    if not table.rows:
        raise UsageError(f"{table.name} names no clips: give one line per clip below the header")
    table_columns.tell(table, columns, columns.others)
    assert columns.path is not None
    paths = _paths(audio, table, columns)
    clips = [table_columns.clip(table, columns, row, path) for row, path in enumerate(paths)]
    check_unique(clips, table.where)
    return sorted(clips, key=lambda clip: clip.identity)


def _paths(audio: AnyPath, table: TextTable, columns: table_columns.Columns) -> list[str]:
    """The path of every row's file, relative to `audio`; raises UsageError where no file exists."""
    assert columns.path is not None
    paths = [_relative(value, table.where(row)) for row, value in enumerate(table.column(columns.path))]
    if isinstance(audio, Path):
        files = (f"{audio}/{path}" for path in paths)
        absent = [row for row, file in enumerate(files) if os.path.isdir(file) or not os.path.exists(file)]
    else:
        listed = any_path.list_files(audio)
        absent = [row for row, path in enumerate(paths) if path not in listed]
    if not absent:
        return paths
    by_end = _by_name(audio_files(audio))
    by_name, missing = [], []
    for row in absent:
        for path in dict.fromkeys((paths[row], paths[row].strip(), paths[row].replace("\\", "/"))):
            fitting = by_end.get(unicodedata.normalize("NFC", path), [])
            if len(fitting) > 1:
                fitting = _in_named_folder(fitting, table_columns.clip(table, columns, row, path)) or fitting
            if len(fitting) > 1:
                raise UsageError(
                    f"{table.where(row)}: {path} fits {len(fitting)} files below {audio} ({fitting[0]}, {fitting[1]}, ...): "
                    "give the path of one, relative to AUDIO"
                )
            if fitting:
                paths[row] = fitting[0]
                by_name.append(row)
                break
        else:
            missing.append(row)
    torn = next((row for row in missing if "\n" in paths[row]), None)
    if torn is not None:
        raise UsageError(f"{table.where(torn)}: the path spans several lines ({paths[torn][:40]!r}): is a quote left open?")
    if len(missing) == len(paths):
        raise UsageError(
            f"{table.name}: none of the {len(paths)} files exists below {audio} (the first: {paths[0]}); "
            "paths are relative to AUDIO"
        )
    if by_name:
        first = table.rows[by_name[0]][columns.path]
        say(f"{table.name}: {len(by_name)} files were found by their names below {audio} ({first}: {paths[by_name[0]]})")
    if missing:
        say(f"{table.name}: {len(missing)} of {len(paths)} files do not exist below {audio} (the first: {paths[missing[0]]})")
    return paths


def _relative(value: str, where: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or ".." in parts:
        raise UsageError(f"{where}: path must be relative to AUDIO and stay below it, got {value}")
    path = "/".join(part for part in parts if part not in ("", "."))
    if not path.strip():
        raise UsageError(f"{where}: path is empty")
    return path


def _in_named_folder(files: list[str], clip: Clip) -> list[str]:
    """Those of the files that lie in a folder named as the clip's fold, split or class."""
    found = []
    for file in files:
        folders = file.split("/")[:-1]
        same_fold = clip.fold is not None and clip.fold in map(fold_of_folder, folders)
        same_split = clip.split is not None and clip.split in map(split_of_folder, folders)
        if same_fold or same_split or clip.label in folders:
            found.append(file)
    return found


def _by_name(files: Iterable[str]) -> dict[str, list[str]]:
    """Files by every end of their path, with and without the suffix: `a/b.wav` by a/b.wav, a/b, b.wav and b."""
    found: dict[str, list[str]] = {}
    for file in files:
        parts = unicodedata.normalize("NFC", file).split("/")
        for i in range(len(parts)):
            end = "/".join(parts[i:])
            for name in {end, os.path.splitext(end)[0]}:
                found.setdefault(name, []).append(file)
    return found
