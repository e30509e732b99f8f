"""ESC's file names, wherever the files lie: fold, source recording and class stand in `1-100032-A-0.wav`."""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath

from shards.clip import Clip
from shards.sources import esc_naming
from shards.storage import AnyPath

CLASSES = (
    "dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow",
    "rain", "sea waves", "crackling fire", "crickets", "chirping birds", "water drops",
    "wind", "pouring water", "toilet flush", "thunderstorm",
    "crying baby", "sneezing", "clapping", "breathing", "coughing", "footsteps", "laughing",
    "brushing teeth", "snoring", "drinking sipping",
    "door wood knock", "mouse click", "keyboard typing", "door wood creaks", "can opening",
    "washing machine", "vacuum cleaner", "clock alarm", "clock tick", "glass breaking",
    "helicopter", "chainsaw", "siren", "car horn", "engine", "train", "church bells", "airplane", "fireworks", "hand saw",
)  # fmt: skip  # by ESC-50's target number


def read(audio: AnyPath, paths: list[str]) -> list[Clip] | None:
    """Clips with fold, group and class; None unless every file is named so and its class is known (by number or folder)."""
    clips = []
    for path in paths:
        pure = PurePosixPath(path)
        name = esc_naming.parse(pure.name)
        if name is None:
            return None
        label = esc_naming.folder_label(pure.parent.name)
        if name.target is not None and int(name.target) < len(CLASSES):
            label = CLASSES[int(name.target)]
        if label is None:
            return None
        clips.append(Clip(path, label, fold=name.fold, group=name.clip))
    if len({clip.fold for clip in clips}) < 2:  # a part of the data set: nothing to cross-validate over
        clips = [dataclasses.replace(clip, fold=None) for clip in clips]
    return clips or None
