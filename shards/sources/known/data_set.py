"""Description of a published data set: addresses, licence, layout and official splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from shardwave.shards.clip import Clip


@dataclasses.dataclass(frozen=True)
class Remote:
    """Address of an archive and its checksum; without a checksum, the number of clips is checked instead."""

    url: str
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """Clips of a data set, with paths relative to its root, and notes for the user."""

    clips: list[Clip]
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        name: Name for `fetch`.
        title: Full name.
        homepage: Address of the home page.
        licence: Licence, with restrictions of use.
        citation: Reference.
        remotes: Addresses of the archive, tried in this order.
        archive: File name of the archive.
        megabytes: Size of the download in MB.
        clips: Number of clips of the complete data set, as read with the first split.
        layout: Description of the files that `find` looks for, for messages.
        preset: Value for `shard --preset`.
        splits: Names and descriptions of the splits; the first is the default.
        find: Returns whether a folder is the root of the data set.
        read: Reads the clips from the root, with the split of the given name.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    remotes: tuple[Remote, ...]
    archive: str
    megabytes: int
    clips: int
    layout: str
    preset: str
    splits: dict[str, str]
    find: Callable[[Path], bool]
    read: Callable[[Path, str], Reading]

    @property
    def sha256(self) -> str | None:
        """The published SHA-256 of the archive; None if there is none."""
        return next((remote.sha256 for remote in self.remotes if remote.sha256), None)

    def root(self, folder: Path) -> Path | None:
        """Find the root of the data set in `folder` or at most two levels below it; None if there is none."""
        return next((candidate for candidate in _folders(folder, 2) if self.find(candidate)), None)


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield `folder` and the folders at most `depth` levels below it, level by level."""
    level = [folder] if folder.is_dir() else []
    for _ in range(depth + 1):
        yield from level
        level = sorted(
            child
            for parent in level
            for child in parent.iterdir()
            if child.is_dir() and not child.name.startswith(".")
        )


def missing_note(listed: int, missing: list[str]) -> list[str]:
    """Return a note on listed clips that are missing in the folder; an empty list if none is.

    Args:
        listed: Number of listed clips.
        missing: Paths of the missing ones.
    """
    if not missing:
        return []
    return [
        f"{len(missing)} of the {listed} clips listed are not in the folder (the first: {missing[0]}); "
        "they are omitted"
    ]
