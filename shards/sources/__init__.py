"""Sources: what lies in a folder or a table becomes clips; one file each."""

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
    """Raise UsageError where `path`, named by `option`, is a pipe, a socket or a device: reading it might never end."""
    if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(f"{option} must be a regular file, got {path}: it is a pipe, a socket or a device")


def discover(audio: AnyPath, options: BuildOptions | None = None) -> list[Clip]:
    """List the clips of a folder of audio, sorted by path and segment.

    They are those that `options.labels` names; or else every audio file, with its class as `options.label_from` or the folder's
    layout (`layouts`) says. `options` may replace group and split, and choose classes.

    Raises:
        UsageError: The folder, the label file or an option is not usable.
    """
    from shardwave.shards.sources import class_folders, clip_list, csv_labels, layouts, values_from
    from shardwave.shards.storage.any_path import as_path

    options = options or BuildOptions()
    start = time.perf_counter()
    if options.labels is not None:
        check_regular(as_path(options.labels), "--labels")
        clips, how = csv_labels.read(audio, as_path(options.labels), options), f"named by {options.labels}"
    elif options.label_from is not None:
        class_folders.check_folder(audio)
        clips, how = [Clip(path) for path in class_folders.audio_files(audio)], "every audio file"
        if not clips:
            raise UsageError(f"no audio files in {audio}: give the folder that holds them")
    else:
        clips, how = layouts.read(audio, options)
    named = [f"--{name}-column" for name in ("path", "label", "group") if getattr(options, f"{name}_column") is not None]
    if named and options.labels is None and how != layouts.LABEL_FILE:
        raise UsageError(f"{named[0]} names a column of a table: give --labels CSV too (or --table FILE)")
    where = str(options.labels or audio)
    clips = clip_list.with_folder_splits(values_from.apply(clips, options, audio), where)
    clips = [clips[number] for number in clip_list.of_classes(clips, options.classes)]
    clip_list.check_splits(clips, where)
    _log.info("%s: %d clips, %s, in %.2f s", audio, len(clips), how, time.perf_counter() - start)
    return clips
