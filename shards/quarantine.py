"""Lists of the files that a build quarantined or used with a remark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shardwave.common import regular_file, typed
from shardwave.shards.format.layout import QUARANTINE, REMARKS
from shardwave.shards.format.records import QuarantineEntry, RemarkEntry


def quarantined(folder: Path | str) -> list[QuarantineEntry]:
    """Read the quarantined files or segments of a set, with the reasons.

    Args:
        folder: Folder of the set.

    Raises:
        ShardwaveError: `quarantine.jsonl` is damaged.
    """
    return _entries(Path(folder) / QUARANTINE, QuarantineEntry)


def remarks(folder: Path | str) -> list[RemarkEntry]:
    """Read the remarks on files or segments that are used although something is wrong with them.

    Args:
        folder: Folder of the set.

    Raises:
        ShardwaveError: `remarks.jsonl` is damaged.
    """
    return _entries(Path(folder) / REMARKS, RemarkEntry)


def _entries(path: Path, definition: Any) -> list[Any]:
    if not path.exists():
        return []
    return typed.lines(regular_file.read_bytes(path), definition, path, "build the set again")
