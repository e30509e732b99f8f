"""Class, group and split of clips from regular expressions on their paths or from tags in the audio files."""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.sources.table_columns import parse_split
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath

TAG = "tag:"


def apply(clips: list[Clip], options: BuildOptions, audio: AnyPath | None) -> list[Clip]:
    """Set class, group and split of clips by `--label-from`, `--group-from` and `--split-from`.

    Args:
        clips: The clips.
        options: `label_from`, `group_from` and `split_from`: a regular expression whose first group is the
            value, or `tag:NAME` for a tag of the audio file.
        audio: Folder of the audio files; None for the rows of a table, which have no tags.

    Returns:
        The clips with the new values, in the same order.

    Raises:
        UsageError: An expression is invalid or does not match all paths, or a tag is missing in some of the
            files.
    """
    for field in ("label", "group", "split"):
        source: str | None = getattr(options, f"{field}_from")
        if source is None:
            continue
        option = f"--{field}-from"
        if source.startswith(TAG):
            values = _tags(clips, source.removeprefix(TAG).lower(), option, audio)
        else:
            values = _matches(clips, source, option)
        if field == "split":
            values = [
                parse_split(value, f"{option} in {clip.path}")
                for clip, value in zip(clips, values, strict=True)
            ]
        if field == "split":  # a clip has either a fold or a split
            clips = [dataclasses.replace(clip, fold=None) for clip in clips]
        changes: list[Any] = [{field: value} for value in values]
        clips = [dataclasses.replace(clip, **change) for clip, change in zip(clips, changes, strict=True)]
    return clips


def _matches(clips: Sequence[Clip], pattern: str, option: str) -> list[str | None]:
    """Return the first group of the regular expression in each path."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{option} must be a regular expression, got {pattern!r}: {error}") from None
    if expression.groups == 0:
        raise UsageError(
            f"{option} must have a group in parentheses, whose text is the value, as in '([^/]+)/[^/]+$', "
            f"got {pattern!r}"
        )
    matches = (expression.search(clip.path) for clip in clips)
    values = [(match[1] or "").strip() or None if match else None for match in matches]
    _refuse_missing(
        clips, values, f"{option} {pattern!r} finds no value in", "paths", "correct the expression"
    )
    return values


def _tags(clips: Sequence[Clip], name: str, option: str, audio: AnyPath | None) -> list[str | None]:
    """Read the tag of each clip's file; None for missing and empty files, which the build quarantines."""
    if audio is None:
        raise UsageError(
            f"{option} {TAG}{name} reads audio files: a --table has none, give an expression instead"
        )
    files = list(dict.fromkeys(clip.path for clip in clips))
    with ThreadPoolExecutor(16 if not isinstance(audio, Path) else 1, "tags") as pool:
        tags = dict(zip(files, pool.map(lambda path: read_tag(audio / path, name), files), strict=True))
    absent = {path for path in files if tags[path] is None and not _has_bytes(audio / path)}
    present = [clip for clip in clips if clip.path not in absent]
    values = [tags[clip.path] for clip in present]
    problem, remedy = f"{option}: there is no tag {name!r} in", "write the tag, or give a regular expression"
    _refuse_missing(present, values, problem, "files", remedy)
    return [tags[clip.path] for clip in clips]


def _refuse_missing(
    clips: Sequence[Clip], values: Sequence[object], problem: str, noun: str, remedy: str
) -> None:
    missing = [clip.path for clip, value in zip(clips, values, strict=True) if value is None]
    if missing:
        raise UsageError(
            f"{problem} {len(missing)} of {len(clips)} {noun} (the first: {missing[0]}): {remedy}"
        )


def _has_bytes(path: AnyPath) -> bool:
    status = any_path.stat(path)
    return status is not None and status.size > 0


def read_tag(path: AnyPath, name: str) -> str | None:
    """Read the first value of a tag such as `artist` (ID3, MP4, Vorbis comments, APE, ...), or None."""
    import mutagen
    from mutagen.easyid3 import EasyID3
    from mutagen.id3 import ID3

    if isinstance(path, Path) and not os.path.isfile(path):  # opening a named pipe would block
        return None
    try:
        source: Any = path if isinstance(path, Path) else io.BytesIO(any_path.read_bytes(path))
        try:
            tags = getattr(mutagen.File(source, easy=True), "tags", None)
        except mutagen.MutagenError:
            tags = None
        if tags is None:  # ID3 tags may precede unknown audio data
            tags = ID3(source)  # type: ignore[no-untyped-call]
        if isinstance(tags, ID3):  # mutagen has no easy names for the ID3 tags of WAV and AIFF
            tags = {name: EasyID3.Get[name](tags, name)}
        values = tags.get(name) or []
    except (mutagen.MutagenError, OSError, KeyError, ValueError):
        return None
    return next((text for value in values if (text := str(value).strip())), None)
