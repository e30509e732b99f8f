"""Known data sets by name, one file each; `get` imports only the one asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from shardwave.common.errors import UsageError

if TYPE_CHECKING:
    from shardwave.shards.sources.known.data_set import DataSet

NAMES = ("gtzan", "esc50", "esc10", "fsdd", "speech-commands")


def get(name: str) -> DataSet:
    """The data set of that name (one of NAMES)."""
    if name not in NAMES:
        raise UsageError(f"unknown data set {name}; choose one of {', '.join(NAMES)}")
    data_set: DataSet = importlib.import_module(f"shardwave.shards.sources.known.{name.replace('-', '_')}").DATA_SET
    return data_set
