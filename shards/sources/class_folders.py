"""A folder per class: `blues/a.wav` is a clip of class `blues`; and what all sources need to know of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip
from shardwave.shards.sources.clip_list import fold_of_folder, split_of_folder
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath, UPath


def read(audio: AnyPath, paths: list[str]) -> list[Clip]:
    """The clips of audio files whose class is the folder that they lie in.

    Args:
        audio: The folder, for messages.
        paths: The audio files below it (`audio_files`).

    Raises:
        UsageError: There are no files, files without a folder, or folders that are folds or splits and not classes.
    """
    if not paths:
        raise UsageError(f"no audio files in {audio}: give the folder that holds them (WAV, AU, AIFF, FLAC, OGG, MP3)")
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise UsageError(
            f"{len(loose)} audio files lie directly in {audio} ({loose[0]}): put each into a folder named as its class, "
            "or give --labels CSV, or --label-from REGEX where the class is part of the file name"
        )
    clips = [Clip(path, label=path.split("/")[-2]) for path in paths]
    names = sorted({clip.label for clip in clips if clip.label is not None})
    for kind, meaning in (("folds", fold_of_folder), ("splits", split_of_folder)):
        folders = [name for name in names if meaning(name) is not None]
        if len({meaning(name) for name in folders}) > 1:
            raise UsageError(
                f"{audio}: the folders {', '.join(folders[:4])}{', ...' if len(folders) > 4 else ''} that hold the files are "
                f"{kind}, not classes: give --labels CSV with the class of each file, or --label-from REGEX that finds the class "
                "in the paths"
            )
    return clips


def check_folder(audio: AnyPath) -> None:
    """Raise UsageError unless `audio` is a folder."""
    if not any_path.is_dir(audio):
        raise UsageError(
            f"AUDIO must be a folder, got {audio}: {'it is a file' if any_path.exists(audio) else 'it does not exist'}"
        )


def audio_files(audio: AnyPath) -> list[str]:
    """List every file below a folder that looks like audio.

    Hidden files and folders are passed over. Links that cannot be followed, files whose content cannot be read and whose name is
    no audio file's, and links to folders that were listed already are passed over too, and named in a remark.

    Args:
        audio: the folder, or its URL.

    Returns:
        Paths relative to `audio`, with forward slashes, sorted.

    Raises:
        ShardwaveError: a folder below `audio` cannot be read, so that its clips would be missing.
    """
    from shardwave.preprocess.audio.containers import identify
    from shardwave.preprocess.audio.decode import SUFFIXES, looks_like_audio

    if isinstance(audio, UPath):
        shown = [path for path in any_path.list_files(audio) if not any(part.startswith(".") for part in path.split("/"))]
        return sorted(
            path
            for path in shown
            if Path(path).suffix.lower() in SUFFIXES or identify(any_path.read_bytes(audio / path, 0, 4_096))
        )
    found: list[str] = []
    unreadable: list[str] = []
    again: list[str] = []
    seen: set[str] = set()
    for folder, below, names in os.walk(audio, onerror=_unreadable_folder, followlinks=True):
        within = os.path.relpath(folder, audio).replace(os.sep, "/") + "/"
        within = "" if within == "./" else within
        real = os.path.realpath(folder)
        if real in seen:  # also a link back up
            below.clear()
            again.append(within)
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))  # which of two links comes first must not vary
        for name in names:
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            if looks_like_audio(path):
                found.append(within + name)
            elif not os.access(path, os.R_OK):  # dangling links too
                unreadable.append(within + name)
    for paths, what in ((unreadable, "cannot be read"), (again, "leads to a folder that is listed already")):
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            say(f"{audio}: passed over, for it {what}: {min(paths)}{more}")
    return sorted(found)


def _unreadable_folder(error: OSError) -> None:
    if os.path.basename(error.filename) != "lost+found":  # the file system's own
        raise ShardwaveError(
            f"{error.filename}: the folder cannot be read ({error.strerror}): make it readable, or move it out of AUDIO"
        )
