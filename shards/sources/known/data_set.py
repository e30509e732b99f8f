"""What is known of a published data set: where it lies, what it may be used for, its layout, its official splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from shardwave.shards.clip import Clip


@dataclasses.dataclass(frozen=True)
class Remote:
    """A place to download from; without a published checksum the number of clips is what is checked."""

    url: str
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """The clips of a data set (paths relative to its root) and what a user should know about them."""

    clips: list[Clip]
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One published data set. `find` and `read` are its layout; everything else is said to the user or checked."""

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    remotes: tuple[Remote, ...]  # tried in this order
    archive: str  # the downloaded file's name
    megabytes: int  # size of the download
    clips: int  # clips in the complete set, whatever the split
    layout: str  # what `find` looks for, in words
    preset: str  # of `shard --preset`
    splits: dict[str, str]  # name -> what it is; the first is the default
    find: Callable[[Path], bool]  # does the data set's root lie at this very folder?
    read: Callable[[Path, str], Reading]  # (root, split) -> clips

    @property
    def sha256(self) -> str | None:
        """The published checksum of the archive, where there is one."""
        return next((remote.sha256 for remote in self.remotes if remote.sha256), None)

    def root(self, folder: Path) -> Path | None:
        """Where the data set lies: `folder` itself or up to two levels below it."""
        return next((candidate for candidate in _folders(folder, 2) if self.find(candidate)), None)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """`folder`, then the folders below it, the shallow ones first."""
    level = [folder] if folder.is_dir() else []
    for _ in range(depth + 1):
        yield from level
        level = sorted(
            child for parent in level for child in parent.iterdir() if child.is_dir() and not child.name.startswith(".")
        )


def missing_note(listed: int, missing: list[str]) -> list[str]:
    """The note for clips that a list names and the folder lacks; empty when all are there."""
    if not missing:
        return []
    return [f"{len(missing)} of the {listed} clips listed are not in the folder (the first: {missing[0]}); they are left out"]
