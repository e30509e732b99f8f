"""Layout with class folders in `train/`, `val/` and `test/`; clips in `test/` may be unlabelled (Kaggle)."""

from __future__ import annotations

from shardwave.common.errors import UsageError
from shardwave.shards.clip import Clip
from shardwave.shards.sources.clip_list import split_of_folder
from shardwave.shards.storage.any_path import AnyPath

REMEDY = "or give --labels CSV, or --label-from REGEX"


def read(audio: AnyPath, paths: list[str]) -> list[Clip] | None:
    """Read clips with split and class.

    The folders of the splits are in `audio`, or in a single folder that contains all files
    (`data/train/dog/a.wav`).

    Args:
        audio: The folder, for messages.
        paths: The audio files below it.

    Returns:
        The clips; None unless all files are in folders named as splits, with `train` and at least one other.

    Raises:
        UsageError: A training clip is in no class folder, or val or test have a class that train lacks.
    """
    folders = [path.split("/")[:-1] for path in paths]
    depth = 0
    while (
        folders
        and all(len(names) > depth + 1 for names in folders)
        and len({names[depth] for names in folders}) == 1
    ):
        depth += 1
    splits = {split_of_folder(names[depth]) if len(names) > depth else None for names in folders}
    if None in splits or "train" not in splits or len(splits) < 2:
        return None
    clips = [
        Clip(path, label=names[-1] if len(names) > depth + 1 else None, split=split_of_folder(names[depth]))
        for path, names in zip(paths, folders, strict=True)
    ]
    classes = {clip.label for clip in clips if clip.split == "train"}
    if None in classes:
        loose = next(clip.path for clip in clips if clip.split == "train" and clip.label is None)
        raise UsageError(
            f"{audio}: training clips must be in a folder named after their class, got {loose}; {REMEDY}"
        )
    for split in ("val", "test"):
        names = {clip.label for clip in clips if clip.split == split}
        strange = sorted(name or "no class folder" for name in names - classes)
        if split == "test" and not names & classes:  # unlabelled: its folders are not classes
            clips = [Clip(clip.path, split=split) if clip.split == split else clip for clip in clips]
        elif strange:
            raise UsageError(
                f"{audio}: the {split} folder has clips of classes that train lacks: "
                f"{', '.join(strange[:5])}; {REMEDY}"
            )
    return clips
