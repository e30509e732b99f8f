"""`train/`, `val/` and `test/` above the class folders; a test folder without them (Kaggle's) holds clips to be predicted."""

from __future__ import annotations

from pathlib import PurePosixPath

from preprocess.errors import UsageError
from shards.clip import Clip
from shards.url_path import Place

SPLIT_OF = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def read(audio: Place, paths: list[str]) -> list[Clip] | None:
    """Clips with the split their top folder names; None unless all lie in such folders, `train` and another one among them."""
    tops = {path.split("/", 1)[0] for path in paths if "/" in path}
    splits = {SPLIT_OF.get(top.lower()) for top in tops}
    if None in splits or "train" not in splits or len(splits) < 2 or any("/" not in path for path in paths):
        return None
    clips = [_clip(path) for path in paths]
    classes = {clip.label for clip in clips if clip.split == "train"}
    if None in classes:
        loose = next(clip.path for clip in clips if clip.split == "train" and clip.label is None)
        raise UsageError(f"{audio}: training clips must lie in a folder named as their class, got {loose}; or give --labels CSV")
    for split in ("val", "test"):
        names = {clip.label for clip in clips if clip.split == split}
        strange = sorted(name or "no class folder" for name in names - classes)
        if split == "test" and not names & classes:  # unlabelled: whatever folders there are, they are no classes
            clips = [Clip(clip.path, split=split) if clip.split == split else clip for clip in clips]
        elif strange:
            raise UsageError(
                f"{audio}: the {split} folder has what the training folder lacks: {', '.join(strange[:5])}; or give --labels CSV"
            )
    return clips


def _clip(path: str) -> Clip:
    parts = PurePosixPath(path).parts
    return Clip(path, label=parts[-2] if len(parts) > 2 else None, split=SPLIT_OF[parts[0].lower()])
