"""Layout by the file names of ESC-50 and ESC-10: {fold}-{Freesound clip}-{take}-{target}.wav.

File names of the first release have no target; their folders are named after the class: `001 - Dog bark`.
"""

from __future__ import annotations

import dataclasses
import re

from shardwave.shards.clip import Clip
from shardwave.shards.storage.any_path import AnyPath

FILE = re.compile(
    r"(?P<fold>[1-9])-(?P<clip>\d+)-[A-Z](?:-(?P<target>\d{1,2}))?\.(?:wav|ogg|flac|mp3)", re.IGNORECASE
)
FOLDER = re.compile(r"\d{3} - (?P<label>.+)")
CLASSES = (
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea waves", "crackling fire", "crickets", "chirping birds", "water drops",
    "wind", "pouring water", "toilet flush", "thunderstorm",
    "crying baby", "sneezing", "clapping", "breathing", "coughing", "footsteps", "laughing",
    "brushing teeth", "snoring", "drinking sipping",
    "door wood knock", "mouse click", "keyboard typing", "door wood creaks", "can opening",
    "washing machine", "vacuum cleaner", "clock alarm", "clock tick", "glass breaking",
    "helicopter", "chainsaw", "siren", "car horn", "engine",
    "train", "church bells", "airplane", "fireworks", "hand saw",
)  # fmt: skip  # indexed by the target of ESC-50


def read(audio: AnyPath, paths: list[str]) -> list[Clip] | None:
    """Read clips with fold, group and class; None unless all file names match and all classes are known."""
    clips = []
    for path in paths:
        *folders, file = path.split("/")
        name, folder = FILE.fullmatch(file), FOLDER.fullmatch(folders[-1]) if folders else None
        if name is None:
            return None
        label = folder and folder["label"]
        if name["target"] is not None and int(name["target"]) < len(CLASSES):
            label = CLASSES[int(name["target"])]
        if label is None:
            return None
        clips.append(Clip(path, label, fold=int(name["fold"]), group=name["clip"]))
    if len({clip.fold for clip in clips}) < 2:  # one fold of the data set cannot be cross-validated
        clips = [dataclasses.replace(clip, fold=None) for clip in clips]
    return clips or None
