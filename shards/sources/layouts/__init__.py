"""Layouts of a folder: recognised by what lies in it, one file each; the last is a folder per class.

A layout is `read(audio, paths) -> clips or None`, `paths` being every audio file below `audio`; the first that answers wins.
A label file in the folder (`csv_inside`) comes before all of them.
"""

from __future__ import annotations

from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.storage.any_path import AnyPath

LABEL_FILE = "by the label file in it"


def read(audio: AnyPath, options: BuildOptions) -> tuple[list[Clip], str]:
    """Clips of `audio`, sorted by path, and the layout that fits, in words."""
    from shardwave.common.messages import say
    from shardwave.shards.sources import class_folders, csv_labels
    from shardwave.shards.sources.layouts import csv_inside, esc_names, fold_folders, split_folders

    class_folders.check_folder(audio)
    paths = class_folders.audio_files(audio)
    table = csv_inside.find(audio, paths, options)
    if table is not None:
        say(f"labels from {table}")
        return csv_labels.read(audio, table, options), LABEL_FILE
    for layout in (split_folders, fold_folders, esc_names):
        clips = layout.read(audio, paths)
        if clips is not None:
            return sorted(clips, key=lambda clip: clip.path), f"layout {layout.__name__.rpartition('.')[2]}"
    return class_folders.read(audio, paths), "one folder per class"
