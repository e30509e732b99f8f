"""Which split each clip lies in: by fold, by given split, or drawn by group and class (DESIGN §2, splits)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.shards.clip import Clip

BALANCED_GROUPS = 2_000  # scikit-learn takes seconds for more; its time grows with groups x classes, and its memory


def assign(clips: Sequence[Clip], *, val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """The split of each clip: `fold<k>` where clips bear folds, else `train`, `val` or `test`.

    Splits that the data set gives are kept; where it gives no `val`, that is drawn from `train`. What is drawn is stratified by
    class, never breaks a group, and depends on sorted paths and seed alone: by a systematic sample of the groups, or, if a group
    holds clips of several classes, by scikit-learn's StratifiedGroupKFold. More than BALANCED_GROUPS groups are always sampled;
    each then counts for the class of its first clip. Raises UsageError if a split would be empty.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UsageError(f"{name} must lie between 0 and 1, got {fraction}")
    if val_fraction + test_fraction >= 1:
        raise UsageError(f"val_fraction and test_fraction must leave something to train on, got {val_fraction} + {test_fraction}")
    if all(clip.fold is not None for clip in clips):
        folds = {clip.fold for clip in clips}
        if len(folds) < 2:
            raise UsageError(f"there must be at least two folds, got only fold {folds.pop()}: drop the fold column")
        _warn(_in_one_fold(clips), "clips in one fold only: held out, it cannot be learned; put clips of it into other folds")
        return [f"fold{clip.fold}" for clip in clips]
    if all(clip.label is None for clip in clips):  # nothing to train on: all of it is there to be predicted
        return [clip.split or "test" for clip in clips]
    sides = [clip.split or "train" for clip in clips]
    if test_fraction and "test" not in sides:
        _draw(clips, sides, "test", test_fraction, seed)
        val_fraction /= 1 - test_fraction
    if val_fraction and "val" not in sides:
        _draw(clips, sides, "val", val_fraction, seed + 1)
    groups: dict[str, str] = {}
    for clip, side in zip(clips, sides, strict=True):
        if groups.setdefault(clip.effective_group, side) != side:
            raise UsageError(f"the split would break group {clip.group!r}: clips of one group must lie on one side")
    if "train" not in sides:
        raise UsageError(
            "the split leaves nothing to train on: mark some clips as train, or lower val_fraction and test_fraction"
        )
    remedy = "try another --seed or --val-fraction, or add clips of it (of other groups)"
    for side, trouble in (("train", "it cannot be learned"), ("val", "no validation score tells of it")):
        there = {clip.label for clip, where in zip(clips, sides, strict=True) if where == side}
        _warn(_names(clips) - there if there else set(), f"no clip in {side}: {trouble}; {remedy}")
    return sides


def _names(clips: Sequence[Clip]) -> set[str]:
    return {clip.label for clip in clips if clip.label is not None}


def _in_one_fold(clips: Sequence[Clip]) -> set[str]:
    """Classes that all folds but one lack."""
    folds: dict[str | None, set[int | None]] = {}
    for clip in clips:
        folds.setdefault(clip.label, set()).add(clip.fold)
    return {name for name in _names(clips) if len(folds[name]) == 1}


def _warn(classes: set[str], what: str) -> None:
    """One line that names classes of which the split leaves too little, and what to do."""
    if classes:
        shown = ", ".join(sorted(classes)[:8]) + (", ..." if len(classes) > 8 else "")
        say(f"take care: class {shown} has {what}")


def _draw(clips: Sequence[Clip], sides: list[str], name: str, fraction: float, seed: int) -> None:
    """Move about `fraction` of what lies in `train` to the side `name`, whole groups at a time, in place."""
    rows = sorted((i for i, side in enumerate(sides) if side == "train"), key=lambda i: clips[i].identity)
    label = np.unique([clips[i].label or "" for i in rows], return_inverse=True)[1]
    _, first, group, size = np.unique(
        [clips[i].effective_group for i in rows], return_index=True, return_inverse=True, return_counts=True
    )
    if len(size) < 2:
        raise UsageError(f"a {name} split needs at least two groups, got {len(size)}: give --{name}-fraction 0, or other groups")
    if np.bincount(label).max() < 2:
        raise UsageError(f"a {name} split needs a class with at least two clips: give --{name}-fraction 0, or more clips")
    mixed = len(np.unique(np.stack([group, label]), axis=1).T) > len(size)
    if not mixed or len(size) > BALANCED_GROUPS:
        taken = _sample(label[first], size, fraction, seed % 2**32)[group]
    else:
        taken = _balance(label, group, fraction, seed % 2**32)
    for row in np.array(rows)[taken].tolist():
        sides[row] = name
    if name not in sides or "train" not in sides:
        raise UsageError(f"the groups are too large for a {name} split of {fraction:g}: give another --{name}-fraction, or folds")


def _sample(label: np.ndarray, size: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw a systematic sample (Cochran 1977, chapter 8) of groups: one in 1 / `fraction` of them, sorted by class and size.

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
    """Return the rows of some of scikit-learn's folds: as many as make up about `fraction`. Shape: int64 [clips], both."""
    from sklearn.model_selection import StratifiedGroupKFold  # its import takes as long as a small build

    ratio = Fraction(fraction).limit_denominator(20) or Fraction(1, 20)
    parts = max(2, min(ratio.denominator, int(group.max()) + 1, int(np.bincount(label).max())))
    take = min(max(1, round(ratio * parts)), parts - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer clips than folds
        folds = StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(label, label, group)
        return np.concatenate([held for _, held in islice(folds, take)])
