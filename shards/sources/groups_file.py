"""Groups of clips from a CSV file (`shard --groups`), as the audit writes it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip
from shardwave.shards.sources import text_table
from shardwave.shards.storage.any_path import AnyPath

COLUMNS = ("path", "group", "start", "end")


def apply(clips: Sequence[Clip], location: AnyPath) -> list[Clip]:
    """Replace the groups of clips by those of a file.

    Clips that the file does not name keep their group. Where the folds or splits of the clips are given and
    a group lies in several, all of its clips move to the one that holds most of them; a message says how
    many clips move.

    Args:
        clips: The clips.
        location: CSV file path,group[,start,end]; start and end (seconds) are of segments.

    Raises:
        UsageError: The file cannot be read, lacks a column, or names none of the clips.
    """
    table = text_table.read(location, "--groups")
    column = {name: table.columns.index(name) for name in COLUMNS if name in table.columns}
    if "path" not in column or "group" not in column:
        raise UsageError(
            f"--groups {location} must have the columns path and group: it has {', '.join(table.columns)}"
        )
    groups: dict[tuple[str, float, float], str] = {}
    for number, row in enumerate(table.rows):
        try:
            start, end = (
                float(row[column[name]]) if name in column and row[column[name]] else None
                for name in ("start", "end")
            )
        except ValueError:
            raise UsageError(f"{table.where(number)}: start and end must be seconds") from None
        if row[column["group"]]:
            groups[Clip(row[column["path"]], start=start, end=end).identity] = row[column["group"]]
    named = sum(clip.identity in groups for clip in clips)
    if not named:
        raise UsageError(
            f"--groups {location} names none of the {len(clips)} clips (the first: {clips[0].name})"
        )
    say(f"--groups: {named} of {len(clips)} clips are named in {location}")
    changed = [dataclasses.replace(clip, group=groups.get(clip.identity, clip.group)) for clip in clips]
    for field in ("fold", "split"):
        changed = _gathered(changed, field)
    return changed


def _gathered(clips: Sequence[Clip], field: str) -> list[Clip]:
    """Move the clips of each group to the fold or split that holds most of them."""
    values: dict[str, Counter[object]] = {}
    for clip in clips:
        values.setdefault(clip.effective_group, Counter())[getattr(clip, field)] += 1
    chosen = {group: counts.most_common(1)[0][0] for group, counts in values.items()}
    changes = [{field: chosen[clip.effective_group]} for clip in clips]
    gathered = [dataclasses.replace(clip, **change) for clip, change in zip(clips, changes, strict=True)]  # type: ignore[arg-type]
    moved = [clip.name for clip, other in zip(clips, gathered, strict=True) if clip != other]
    if moved:
        say(f"--groups: {len(moved)} clips move to the {field} of their group (the first: {moved[0]})")
    return gathered
