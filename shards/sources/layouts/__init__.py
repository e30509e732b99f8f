"""Layouts of a folder: recognised by what lies in it, one file each; the last is a folder per class.

A layout is `read(audio, paths) -> clips or None`, `paths` being every audio file below `audio`; the first that answers wins.
"""

from __future__ import annotations

from shards.clip import Clip
from shards.url_path import Place


def read(audio: Place) -> tuple[list[Clip], str]:
    """Clips of `audio`, sorted by path, and the layout that fits, in words."""
    from shards.sources import class_folders
    from shards.sources.layouts import csv_inside, esc_names, split_folders

    class_folders.check_folder(audio)
    paths = class_folders.audio_files(audio)
    for layout in (csv_inside, split_folders, esc_names):
        clips = layout.read(audio, paths)
        if clips is not None:
            return sorted(clips, key=lambda clip: clip.path), f"layout {layout.__name__.rpartition('.')[2]}"
    return class_folders.read(audio, paths), "one folder per class"
