"""Sources: what lies in a folder or a table becomes clips; one file each."""

from __future__ import annotations

from pathlib import Path

from shards.clip import Clip


def discover(audio: Path, labels: Path | None = None) -> list[Clip]:
    """Clips of the folder `audio`, sorted by path: those `labels` names, or else by its layout (layouts/), or else every audio
    file, its class the parent folder.

    Raises UsageError where the folder or the label file is not usable.
    """
    from shards.sources import class_folders, csv_labels, layouts

    if labels is not None:
        return csv_labels.read(audio, labels)
    return layouts.read(audio) or class_folders.read(audio)
