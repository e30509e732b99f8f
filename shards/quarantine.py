"""Read the lists of files that were quarantined, or used with a remark, when a set was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shardwave.common import regular_file, typed
from shardwave.shards.format.layout import QUARANTINE, REMARKS
from shardwave.shards.format.records import QuarantineEntry, RemarkEntry


def quarantined(folder: Path | str) -> list[QuarantineEntry]:
    """Return what was quarantined while the set was built; raises ShardwaveError where the file is damaged."""
    return _entries(Path(folder) / QUARANTINE, QuarantineEntry)


def remarks(folder: Path | str) -> list[RemarkEntry]:
    """Return what was wrong with files that are used all the same; raises ShardwaveError where the file is damaged."""
    return _entries(Path(folder) / REMARKS, RemarkEntry)


def _entries(path: Path, definition: Any) -> list[Any]:
    if not path.exists():
        return []
    return typed.lines(regular_file.read_bytes(path), definition, path, "build the set again")
