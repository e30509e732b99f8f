"""Load extensions that other packages provide by entry points, as in the group `shardwave.networks`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from shardwave.common.errors import UsageError


def names(group: str) -> tuple[str, ...]:
    """Return the names of the extensions of a group, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=f"shardwave.{group}")}))


def load(group: str, name: str) -> Any:
    """Load an extension.

    Args:
        group: `engines`, `backends`, `networks` or `datasets`.
        name: Name of the entry point.

    Returns:
        The object that the entry point names; None if no installed package offers it.

    Raises:
        UsageError: The package of the extension cannot be imported.
    """
    for entry in entry_points(group=f"shardwave.{group}", name=name):
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{name} of the package {entry.dist.name if entry.dist else '?'} cannot be imported: {error}"
            ) from error
    return None
