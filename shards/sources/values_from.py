"""Class, group and split of clips from their paths by regular expressions, or from the tags inside of the files."""

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
from shardwave.shards.storage.any_path import AnyPath, UPath

TAG = "tag:"


def apply(clips: list[Clip], options: BuildOptions, audio: AnyPath | None) -> list[Clip]:
    """Set what `--label-from`, `--group-from` and `--split-from` give; `audio` is the folder of the paths (None: a table's rows).

    Raises:
        UsageError: An expression is not one, or finds nothing in some of the paths; a tag is missing in some of the files.
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
            values = [parse_split(value, f"{option} in {clip.path}") for clip, value in zip(clips, values, strict=True)]
        other: dict[str, Any] = {"fold": None} if field == "split" else {}  # a clip has either
        changes: list[dict[str, Any]] = [{field: value, **other} for value in values]
        clips = [dataclasses.replace(clip, **change) for clip, change in zip(clips, changes, strict=True)]
    return clips


def _matches(clips: Sequence[Clip], pattern: str, option: str) -> list[str | None]:
    """The first group of the expression in each path."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{option} must be a regular expression, got {pattern!r}: {error}") from None
    if expression.groups == 0:
        raise UsageError(
            f"{option} must have a group in parentheses, whose text is the value, as in '([^/]+)/[^/]+$', got {pattern!r}"
        )
    matches = (expression.search(clip.path) for clip in clips)
    values = [(match[1] or "").strip() or None if match else None for match in matches]
    _refuse_missing(clips, values, f"{option} {pattern!r} finds no value in", "paths", "mend the expression, or name other files")
    return values


def _tags(clips: Sequence[Clip], name: str, option: str, audio: AnyPath | None) -> list[str | None]:
    """The tag of each file. A file that does not exist or is empty has None: it is quarantined when it is decoded."""
    if audio is None:
        raise UsageError(f"{option} {TAG}{name} reads audio files: a --table has none, give --group-column or an expression")
    files = list(dict.fromkeys(clip.path for clip in clips))
    with ThreadPoolExecutor(16 if isinstance(audio, UPath) else 1, "tags") as pool:
        found = dict(zip(files, pool.map(lambda path: read_tag(audio / path, name), files), strict=True))
    absent = {path for path in files if found[path] is None and not _has_bytes(audio / path)}
    present = [clip for clip in clips if clip.path not in absent]
    values = [found[clip.path] for clip in present]
    _refuse_missing(present, values, f"{option}: there is no tag {name!r} in", "files", "write the tag, or name other files")
    return [found[clip.path] for clip in clips]


def _refuse_missing(clips: Sequence[Clip], values: Sequence[object], what: str, noun: str, remedy: str) -> None:
    missing = [clip.path for clip, value in zip(clips, values, strict=True) if value is None]
    if missing:
        raise UsageError(f"{what} {len(missing)} of {len(clips)} {noun} (the first: {missing[0]}): {remedy}")


def _has_bytes(path: AnyPath) -> bool:
    found = any_path.stat(path)
    return found is not None and found.size > 0


def read_tag(path: AnyPath, name: str) -> str | None:
    """The first value of a tag such as `artist` (ID3, MP4, Vorbis comments, APE, ...); None without a readable one."""
    import mutagen
    from mutagen.easyid3 import EasyID3
    from mutagen.id3 import ID3

    if isinstance(path, Path) and not os.path.isfile(path):  # a named pipe would wait for a writer
        return None
    try:
        source: Any = path if isinstance(path, Path) else io.BytesIO(any_path.read_bytes(path))
        try:
            tags = getattr(mutagen.File(source, easy=True), "tags", None)
        except mutagen.MutagenError:
            tags = None
        tags = ID3(source) if tags is None else tags  # before data that mutagen does not know
        if isinstance(tags, ID3):  # also of WAV and AIFF, for which mutagen has no easy names
            tags = {name: EasyID3.Get[name](tags, name)}
        values = tags.get(name) or []
    except (mutagen.MutagenError, OSError, KeyError, ValueError):
        return None
    return next((text for value in values if (text := str(value).strip())), None)
