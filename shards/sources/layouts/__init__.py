"""Layouts that carry more than a folder per class: recognised by what lies in the folder, one file each.

A layout is `read(audio, paths) -> clips or None`, `paths` being every audio file below `audio`; the first that answers wins.
"""

from __future__ import annotations

from pathlib import Path

from shards.clip import Clip


def read(audio: Path) -> list[Clip] | None:
    """Clips of `audio`, sorted by path, where one of the layouts fits; None leaves it to class folders."""
    from shards.sources import class_folders
    from shards.sources.layouts import csv_inside, esc_names, split_folders

    class_folders.check_folder(audio)
    paths = sorted(class_folders._audio_files(audio))
    for layout in (csv_inside, split_folders, esc_names):
        clips = layout.read(audio, paths)
        if clips is not None:
            return sorted(clips, key=lambda clip: clip.path)
    return None
