"""ESC-10: 400 recordings of 10 classes, as a subset of ESC-50 or in its own first release."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from shardwave.shards.sources.known import esc50
from shardwave.shards.sources.known.data_set import Reading


def _find(folder: Path) -> bool:
    return esc50.find_table(folder) or esc50.find_folders(folder)


def _read(root: Path, split: str) -> Reading:
    return esc50.read_table(root, only_esc10=True) if esc50.find_table(root) else esc50.read_folders(root)


DATA_SET = dataclasses.replace(
    esc50.DATA_SET,
    name="esc10",
    title="ESC-10, the 10-class subset of ESC-50",
    licence="CC BY 3.0; the author of each clip is named in the LICENSE file",
    clips=400,
    layout="ESC-50's meta/esc50.csv beside audio/ (or the first release's class folders `001 - Dog bark`, …)",
    find=_find,
    read=_read,
)
