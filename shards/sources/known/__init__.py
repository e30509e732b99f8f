"""Known data sets by name, one module each.

Another package adds a data set with an entry point of the group `shardwave.datasets` that refers to a
`DataSet`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from shardwave.common import plugins
from shardwave.common.errors import UsageError

if TYPE_CHECKING:
    from shardwave.shards.sources.known.data_set import DataSet

NAMES = ("gtzan", "esc50", "esc10", "fsdd", "speech-commands")


def get(name: str) -> DataSet:
    """Return a data set by its name; raises UsageError for an unknown name."""
    if name not in NAMES:
        extension: DataSet | None = plugins.load("datasets", name)
        if extension is None:
            raise UsageError(
                f"unknown data set {name}; choose one of {', '.join((*NAMES, *plugins.names('datasets')))}"
            )
        return extension
    data_set: DataSet = importlib.import_module(
        f"shardwave.shards.sources.known.{name.replace('-', '_')}"
    ).DATA_SET
    return data_set
