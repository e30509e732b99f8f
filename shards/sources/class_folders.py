"""A folder per class: `blues/a.wav` is a clip of class `blues`; and what all sources need to know of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from preprocess.errors import UsageError
from shards.clip import Clip
from shards.sources.clip_list import fold_of_folder, split_of_folder
from shards.url_path import Place, UrlPath


def read(audio: Place, paths: list[str]) -> list[Clip]:
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


def check_folder(audio: Place) -> None:
    """Raise UsageError unless `audio` is a folder."""
    if not audio.is_dir():
        raise UsageError(f"AUDIO must be a folder, got {audio}: {'it is a file' if audio.exists() else 'it does not exist'}")


def audio_files(audio: Place) -> list[str]:
    """Paths below the folder `audio`, sorted, of every file that looks like audio; hidden ones are passed over."""
    from preprocess.containers import identify
    from preprocess.decode import SUFFIXES, looks_like_audio

    if isinstance(audio, UrlPath):
        shown = [path for path in audio.files() if not any(part.startswith(".") for part in path.split("/"))]
        return sorted(path for path in shown if Path(path).suffix.lower() in SUFFIXES or identify((audio / path).head(4_096)))
    found, seen = [], set()
    for folder, below, names in os.walk(audio, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        within = os.path.relpath(folder, audio).replace(os.sep, "/") + "/"
        within = "" if within == "./" else within
        for name in names:
            if not name.startswith(".") and looks_like_audio(os.path.join(folder, name)):
                found.append(checked_name(within + name))
    return sorted(found)


def checked_name(path: str) -> str:
    """The path itself; raises UsageError where it is not valid Unicode (it could not be written down)."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"file names must be valid UTF-8, got {path!r}: rename it") from None
    return path
