"""Assign clips to splits: by fold, by given split, or drawn by group and class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip

BALANCED_GROUPS = 2_000  # above this, scikit-learn takes seconds: time and memory grow with groups x classes


def assign(clips: Sequence[Clip], *, val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Return the split of each clip: `fold<k>` if all clips have a fold, else `train`, `val` or `test`.

    Splits that the data set provides are kept. If it provides no clip for `test` or `val`, that split is
    drawn from `train`. The draw is stratified by class, keeps groups together, and depends only on the sorted
    clips and the seed. It is a systematic sample of the groups. If a group has clips of several classes, and
    there are at most BALANCED_GROUPS groups, scikit-learn's StratifiedGroupKFold draws instead; with more
    groups, a group counts for the class of its first clip. If no clip has a label, clips without a split are
    in `test`.

    Args:
        clips: The clips.
        val_fraction: Fraction of all clips to draw for `val`; 0 draws none.
        test_fraction: Fraction of all clips to draw for `test`; 0 draws none.
        seed: Seed of the draw.

    Returns:
        The name of the split for each clip, in the order of `clips`.

    Raises:
        UsageError: A fraction is out of range, there is only one fold, a group is given to two splits, or a
            split would be empty.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UsageError(f"{name} must lie between 0 and 1, got {fraction}")
    if val_fraction + test_fraction >= 1:
        raise UsageError(
            f"val_fraction + test_fraction must be below 1, got {val_fraction} + {test_fraction}"
        )
    if all(clip.fold is not None for clip in clips):
        folds = {clip.fold for clip in clips}
        if len(folds) < 2:
            raise UsageError(
                f"there must be at least two folds, got only fold {folds.pop()}: drop the fold column"
            )
        _warn(
            _in_one_fold(clips),
            "clips in one fold only, and cannot be learned when that is held out: move clips of it to "
            "other folds",
        )
        return [f"fold{clip.fold}" for clip in clips]
    if all(clip.label is None for clip in clips):  # an unlabelled set is only used for predictions
        return [clip.split or "test" for clip in clips]
    splits = [clip.split or "train" for clip in clips]
    if test_fraction and "test" not in splits:
        _draw(clips, splits, "test", test_fraction, seed)
        val_fraction /= 1 - test_fraction
    if val_fraction and "val" not in splits:
        _draw(clips, splits, "val", val_fraction, seed + 1)
    groups: dict[str, str] = {}
    for clip, split in zip(clips, splits, strict=True):
        if groups.setdefault(clip.effective_group, split) != split:
            raise UsageError(
                f"{clip.effective_group} has clips in {groups[clip.effective_group]} and {split}: give all "
                "of them one split"
            )
    if "train" not in splits:
        raise UsageError(
            "no clip is in split train: mark some as train, or lower val_fraction and test_fraction"
        )
    remedy = "try another --seed or --val-fraction, or add clips of it (of other groups)"
    for split, consequence in (("train", "it cannot be learned"), ("val", "no validation score includes it")):
        labels = {clip.label for clip, assigned in zip(clips, splits, strict=True) if assigned == split}
        _warn(_names(clips) - labels if labels else set(), f"no clip in {split}: {consequence}; {remedy}")
    return splits


def _names(clips: Sequence[Clip]) -> set[str]:
    return {clip.label for clip in clips if clip.label is not None}


def _in_one_fold(clips: Sequence[Clip]) -> set[str]:
    """Return the classes with clips in one fold only."""
    folds: dict[str | None, set[int | None]] = {}
    for clip in clips:
        folds.setdefault(clip.label, set()).add(clip.fold)
    return {name for name in _names(clips) if len(folds[name]) == 1}


def _warn(classes: set[str], problem: str) -> None:
    """Warn of classes with too few clips in a split."""
    if classes:
        shown = ", ".join(sorted(classes)[:8]) + (", ..." if len(classes) > 8 else "")
        say(f"warning: class {shown} has {problem}")


def _draw(clips: Sequence[Clip], splits: list[str], name: str, fraction: float, seed: int) -> None:
    """Move whole groups with about `fraction` of the clips in `train` to the split `name`, in place."""
    rows = sorted((i for i, split in enumerate(splits) if split == "train"), key=lambda i: clips[i].identity)
    label = np.unique([clips[i].label or "" for i in rows], return_inverse=True)[1]
    _, first, group, size = np.unique(
        [clips[i].effective_group for i in rows], return_index=True, return_inverse=True, return_counts=True
    )
    if len(size) < 2:
        raise UsageError(
            f"a {name} split needs at least two groups, got {len(size)}: give --{name}-fraction 0, or "
            "other groups"
        )
    if np.bincount(label).max() < 2:
        raise UsageError(
            f"a {name} split needs a class with at least two clips: give --{name}-fraction 0, or more clips"
        )
    mixed = len(np.unique(np.stack([group, label]), axis=1).T) > len(size)
    if not mixed or len(size) > BALANCED_GROUPS:
        taken = _sample(label[first], size, fraction, seed % 2**32)[group]
    else:
        taken = _balance(label, group, fraction, seed % 2**32)
    for row in np.array(rows)[taken].tolist():
        splits[row] = name
    if name not in splits or "train" not in splits:
        raise UsageError(
            f"the groups are too large for a {name} split of {fraction:g}: give another --{name}-fraction, "
            "or folds"
        )


def _sample(label: np.ndarray, size: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw a systematic sample (Cochran 1977, chapter 8) of the groups, sorted by class and size.

    Args:
        label: int64 [groups], class of each group's first clip.
        size: int64 [groups], clips of each group.
        fraction: Fraction of the groups to draw.
        seed: Seed of the order of equal groups and of the sample's start.

    Returns:
        bool [groups], the groups that are drawn.
    """
    random, count = np.random.default_rng(seed), len(label)
    order = np.lexsort((random.random(count), size, label))
    take = min(max(1, round(fraction * count)), count - 1)
    taken = np.zeros(count, bool)
    taken[order[(np.arange(take) * count + random.integers(count)) // take]] = True
    return taken


def _balance(label: np.ndarray, group: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw whole groups by scikit-learn's StratifiedGroupKFold: as many folds as make up about `fraction`.

    Args:
        label: int64 [clips], class of each clip.
        group: int64 [clips], group of each clip.
        fraction: Fraction of the clips to draw.
        seed: Seed of the folds.

    Returns:
        int64 [drawn clips], the rows that are drawn.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # importing it takes as long as a small build

    ratio = Fraction(fraction).limit_denominator(20) or Fraction(1, 20)
    parts = max(2, min(ratio.denominator, int(group.max()) + 1, int(np.bincount(label).max())))
    take = min(max(1, round(ratio * parts)), parts - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer clips than folds
        folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(label, label, group)
        return np.concatenate([held for _, held in islice(folds, take)])
