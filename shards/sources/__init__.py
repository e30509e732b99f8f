"""Sources of clips: audio folders, label files and tables of features."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shardwave.common.errors import UsageError
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip

if TYPE_CHECKING:
    from shardwave.shards.storage.any_path import AnyPath

_log = logging.getLogger(__name__)


def check_regular(path: AnyPath, option: str) -> None:
    """Check that a path is not a pipe, a socket or a device, because reading one may never end.

    Args:
        path: The path; URLs and paths that do not exist pass the check.
        option: The command-line option that names the path, for the message.

    Raises:
        UsageError: `path` is a pipe, a socket or a device.
    """
    if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{option} must be a regular file, got {path}: it is a pipe, a socket or a device")


def discover(audio: AnyPath, options: BuildOptions | None = None) -> list[Clip]:
    """List the clips of an audio folder, sorted by path and segment.

    With `options.labels`, the clips are those named in the label file. Otherwise every audio file is a clip,
    and its class comes from `options.label_from` or from the layout of the folder
    (`shardwave.shards.sources.layouts`).

    Args:
        audio: The audio folder.
        options: Label file, column names, expressions for class, group and split, and the selected classes.

    Returns:
        The clips. `split` or `fold` is set if the data set determines it.

    Raises:
        UsageError: The folder, the label file or an option is not usable.
    """
    from shardwave.shards.sources import (
        class_folders,
        clip_list,
        csv_labels,
        groups_file,
        layouts,
        values_from,
    )
    from shardwave.shards.storage.any_path import as_path

    options = options or BuildOptions()
    start = time.perf_counter()
    if options.labels is not None:
        check_regular(as_path(options.labels), "--labels")
        clips, how = csv_labels.read(audio, as_path(options.labels), options), f"named in {options.labels}"
    elif options.label_from is not None:
        class_folders.check_folder(audio)
        clips, how = [Clip(path) for path in class_folders.audio_files(audio)], "every audio file"
        if not clips:
            raise UsageError(f"{audio} contains no audio files: give the folder that contains them")
    else:
        clips, how = layouts.read(audio, options)
    named = [
        f"--{name}-column"
        for name in ("path", "label", "group")
        if getattr(options, f"{name}_column") is not None
    ]
    if named and options.labels is None and how != layouts.LABEL_FILE:
        raise UsageError(f"{named[0]} names a column of a table: give --labels CSV too (or --table FILE)")
    where = str(options.labels or audio)
    clips = clip_list.with_folder_splits(values_from.apply(clips, options, audio), where)
    clips = [clips[number] for number in clip_list.select_classes(clips, options.classes)]
    if options.groups is not None:
        check_regular(as_path(options.groups), "--groups")
        clips = groups_file.apply(clips, as_path(options.groups))
    clip_list.check_splits(clips, where)
    _log.info("%s: %d clips, %s, in %.2f s", audio, len(clips), how, time.perf_counter() - start)
    return clips
