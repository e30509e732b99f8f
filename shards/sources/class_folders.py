"""Layout with one folder per class (`blues/a.wav`), and the list of audio files for all sources."""

from __future__ import annotations

import os
from pathlib import Path

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip
from shardwave.shards.sources.clip_list import fold_of_folder, split_of_folder
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath


def read(audio: AnyPath, paths: list[str]) -> list[Clip]:
    """Make a clip of every audio file, with the name of its folder as the class.

    Args:
        audio: The audio folder, for messages.
        paths: Audio files relative to `audio`, as returned by `audio_files`.

    Raises:
        UsageError: There are no files, some files are directly in `audio`, or the folders are named as folds
            or splits.
    """
    if not paths:
        raise UsageError(
            f"{audio} contains no audio files: give the folder that contains them (WAV, AU, AIFF, FLAC, "
            "OGG, MP3)"
        )
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise UsageError(
            f"{len(loose)} audio files are directly in {audio} ({loose[0]}): put each into a folder "
            "named after its class, or give --labels CSV, or --label-from REGEX if the class is part of "
            "the file name"
        )
    clips = [Clip(path, label=path.split("/")[-2]) for path in paths]
    names = sorted({clip.label for clip in clips if clip.label is not None})
    for kind, meaning in (("folds", fold_of_folder), ("splits", split_of_folder)):
        folders = [name for name in names if meaning(name) is not None]
        if len({meaning(name) for name in folders}) > 1:
            raise UsageError(
                f"{audio}: the folders {', '.join(folders[:4])}{', ...' if len(folders) > 4 else ''} with "
                f"the files are {kind}, not classes: give --labels CSV with the class of each file, or "
                "--label-from REGEX that finds the class in the paths"
            )
    return clips


def check_folder(audio: AnyPath) -> None:
    """Raise UsageError unless `audio` is a folder."""
    if not any_path.is_dir(audio):
        raise UsageError(
            f"AUDIO must be a folder, got {audio}: "
            f"{'it is a file' if any_path.exists(audio) else 'it does not exist'}"
        )


def audio_files(audio: AnyPath) -> list[str]:
    """List all files below a folder that are audio by suffix or content.

    Hidden files and folders are skipped. Broken links, unreadable files without an audio suffix, and links to
    folders that are already listed are skipped with a message.

    Args:
        audio: The folder or its URL.

    Returns:
        Paths relative to `audio`, with forward slashes, sorted.

    Raises:
        ShardwaveError: A folder below `audio` cannot be read.
    """
    from shardwave.preprocess.audio.containers import identify
    from shardwave.preprocess.audio.decode import SUFFIXES, looks_like_audio

    if not isinstance(audio, Path):
        visible = [
            path
            for path in any_path.list_files(audio)
            if not any(part.startswith(".") for part in path.split("/"))
        ]
        return sorted(
            path
            for path in visible
            if Path(path).suffix.lower() in SUFFIXES or identify(any_path.read_bytes(audio / path, 0, 4_096))
        )
    audio_paths: list[str] = []
    unreadable: list[str] = []
    repeated: list[str] = []
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(audio, onerror=_raise_unreadable_folder, followlinks=True):
        prefix = os.path.relpath(folder, audio).replace(os.sep, "/") + "/"
        prefix = "" if prefix == "./" else prefix
        real = os.path.realpath(folder)
        if real in visited:  # a second link to a folder, or a link to a parent folder
            subfolders.clear()
            repeated.append(prefix)
            continue
        visited.add(real)
        # Sorted, because the first of two links to a folder decides the paths of its clips.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if name.startswith("."):
                continue
            path = os.path.join(folder, name)
            if looks_like_audio(path):
                audio_paths.append(prefix + name)
            elif not os.access(path, os.R_OK):  # broken links too
                unreadable.append(prefix + name)
    for paths, reason in (
        (unreadable, "cannot be read"),
        (repeated, "leads to a folder that is already listed"),
    ):
        if paths:
            more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            say(f"{audio}: skipped {min(paths)}{more}: it {reason}")
    return sorted(audio_paths)


def _raise_unreadable_folder(error: OSError) -> None:
    if os.path.basename(error.filename) != "lost+found":  # made by the file system, readable by root only
        raise ShardwaveError(
            f"{error.filename}: the folder cannot be read ({error.strerror}): make it readable, or move it "
            "out of AUDIO"
        )
