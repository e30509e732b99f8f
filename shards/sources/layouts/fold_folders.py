"""Layout with class folders in folders of folds: `fold1/dog/a.wav`."""

from __future__ import annotations

from shardwave.shards.clip import Clip
from shardwave.shards.sources.clip_list import fold_of_folder
from shardwave.shards.storage.any_path import AnyPath


def read(audio: AnyPath, paths: list[str]) -> list[Clip] | None:
    """Read clips with fold and class; None unless all files are in class folders of at least two folds."""
    clips = []
    for path in paths:
        *outer, label, _ = path.split("/") if path.count("/") > 1 else ("", "", "")
        fold = next((fold for name in outer if (fold := fold_of_folder(name)) is not None), None)
        if fold is None:
            return None
        clips.append(Clip(path, label, fold=fold))
    return clips if len({clip.fold for clip in clips}) > 1 else None
