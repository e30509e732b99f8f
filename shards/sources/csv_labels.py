"""Label files: tables of audio files with their classes and optional folds, groups, splits and segments."""

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
    """Read the clips of a label file, sorted by path and segment.

    A value of the path column is a path relative to `audio`. It may also be the end of such a path (for
    example the file name), with or without the suffix, if exactly one file matches. Rows of missing files are
    kept: the build quarantines their clips.

    Args:
        audio: The folder that the paths are relative to.
        labels: A CSV or Parquet file; see `text_table.read` for the format and `table_columns.find` for the
            columns.
        options: Names of columns (`path_column`, ...). The label column is optional if `label_from` is given.

    Returns:
        One clip per row.

    Raises:
        UsageError: The table cannot be read, has no rows or no column of paths or classes, contains a value
            that is not allowed, names a clip twice, or names no existing file.
    """
    options = options or BuildOptions()
    check_folder(audio)
    table = text_table.read(labels, "--labels")
    columns = table_columns.find(table, options)
    for role, column in (("path", columns.path), ("label", columns.label)):
        if column is None and not (role == "label" and options.label_from is not None):
            what = "audio files" if role == "path" else "classes"
            raise UsageError(
                f"{table.name} has no column of {what}: it has {table_columns.format_columns(table)}; "
                f"name one with --{role}-column, or write the first line "
                "path,label[,fold][,group][,split][,start][,end]"
            )
    if not table.rows:
        raise UsageError(f"{table.name} has no rows: add one line per clip below the header")
    table_columns.report(table, columns, columns.others)
    assert columns.path is not None
    paths = _paths(audio, table, columns)
    clips = [table_columns.parse_clip(table, columns, row, path) for row, path in enumerate(paths)]
    check_unique(clips, table.where)
    return sorted(clips, key=lambda clip: clip.identity)


def _paths(audio: AnyPath, table: TextTable, columns: table_columns.Columns) -> list[str]:
    """Return the file of every row, relative to `audio`.

    Raises UsageError if no file exists, or if a path matches several files.
    """
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
    files_by_end = _index_by_end(audio_files(audio))
    found_by_name, missing = [], []
    for row in absent:
        for path in dict.fromkeys((paths[row], paths[row].strip(), paths[row].replace("\\", "/"))):
            matches = files_by_end.get(unicodedata.normalize("NFC", path), [])
            if len(matches) > 1:
                matches = (
                    _in_named_folder(matches, table_columns.parse_clip(table, columns, row, path)) or matches
                )
            if len(matches) > 1:
                raise UsageError(
                    f"{table.where(row)}: {path} matches {len(matches)} files below {audio} ({matches[0]}, "
                    f"{matches[1]}, ...): give the path of one, relative to AUDIO"
                )
            if matches:
                paths[row] = matches[0]
                found_by_name.append(row)
                break
        else:
            missing.append(row)
    multiline = next((row for row in missing if "\n" in paths[row]), None)
    if multiline is not None:
        raise UsageError(
            f"{table.where(multiline)}: the path spans several lines ({paths[multiline][:40]!r}): is a "
            "quote not closed?"
        )
    if len(missing) == len(paths):
        raise UsageError(
            f"{table.name}: none of the {len(paths)} files exists below {audio} (the first: {paths[0]}); "
            "paths are relative to AUDIO"
        )
    if found_by_name:
        row = found_by_name[0]
        example = f"{table.rows[row][columns.path]}: {paths[row]}"
        say(f"{table.name}: {len(found_by_name)} files were found by their names below {audio} ({example})")
    if missing:
        say(
            f"{table.name}: {len(missing)} of {len(paths)} files do not exist below {audio} (the first: "
            f"{paths[missing[0]]})"
        )
    return paths


def _relative(value: str, where: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or ".." in parts:
        raise UsageError(f"{where}: path must be relative to AUDIO and without '..', got {value}")
    path = "/".join(part for part in parts if part not in ("", "."))
    if not path.strip():
        raise UsageError(f"{where}: path is empty")
    return path


def _in_named_folder(files: list[str], clip: Clip) -> list[str]:
    """Return those of the files that are in a folder named after the fold, split or class of the clip."""
    matches = []
    for file in files:
        folders = file.split("/")[:-1]
        same_fold = clip.fold is not None and clip.fold in map(fold_of_folder, folders)
        same_split = clip.split is not None and clip.split in map(split_of_folder, folders)
        if same_fold or same_split or clip.label in folders:
            matches.append(file)
    return matches


def _index_by_end(files: Iterable[str]) -> dict[str, list[str]]:
    """Index files by all ends of their paths: `a/b.wav` by a/b.wav, a/b, b.wav and b."""
    index: dict[str, list[str]] = {}
    for file in files:
        parts = unicodedata.normalize("NFC", file).split("/")
        for i in range(len(parts)):
            end = "/".join(parts[i:])
            for name in {end, os.path.splitext(end)[0]}:
                index.setdefault(name, []).append(file)
    return index
