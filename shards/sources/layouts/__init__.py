"""Layouts of audio folders, one module each.

The module of a layout has a function `read(audio, paths)`, which returns clips, or None if the audio files
`paths` below `audio` have another layout. A label file in the folder (`csv_inside`) has priority, then the
first layout that matches; the default is one folder per class.
"""

from __future__ import annotations

from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.storage.any_path import AnyPath

LABEL_FILE = "named in its label file"


def read(audio: AnyPath, options: BuildOptions) -> tuple[list[Clip], str]:
    """Read the clips of a folder, sorted by path; returns also a description of the layout."""
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
