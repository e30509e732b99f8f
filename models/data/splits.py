"""Which splits of a shard set are trained on, validated on and held out (DESIGN §2, splits)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shardwave.common.errors import UsageError


class Roles(NamedTuple):
    """Names of splits. `val` is empty where nothing is chosen any more (retraining for a known number of epochs)."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def folds(splits: Sequence[str]) -> list[int]:
    """The set's folds, ascending; empty for a set split into train, val and test."""
    return sorted(int(name.removeprefix("fold")) for name in splits if name.startswith("fold"))


def resolve(splits: Sequence[str], val_fold: int | None, test_fold: int | None) -> Roles:
    """The roles that the options give. With a test fold k alone, fold k mod n + 1 validates.

    Raises UsageError where options and set do not fit together.
    """
    present = folds(splits)
    if not present:
        for option, value in (("--val-fold", val_fold), ("--test-fold", test_fold)):
            if value is not None:
                raise UsageError(f"{option} {value}: the shard set has no folds, but {', '.join(splits)}; leave the option out")
        for name, remedy in (("train", "build it from labelled audio"), ("val", "build it with --val-fraction above 0")):
            if name not in splits:
                raise UsageError(f"the shard set has no split {name}: {remedy}")
        return Roles(("train",), ("val",), ("test",) if "test" in splits else ())
    if val_fold is None and test_fold is None:
        raise UsageError(f"the shard set has folds {_list(present)}: give --val-fold K, --test-fold K or --folds all")
    for option, value in (("--val-fold", val_fold), ("--test-fold", test_fold)):
        if value is not None and value not in present:
            raise UsageError(f"{option} must be one of the set's folds {_list(present)}, got {value}")
    if val_fold is None and test_fold is not None:
        val_fold = following(present, test_fold)
    train = tuple(f"fold{fold}" for fold in present if fold not in (val_fold, test_fold))
    if not train:
        raise UsageError(f"folds {_list(present)} leave none to train on: --test-fold needs three folds or more")
    return Roles(train, (f"fold{val_fold}",), () if test_fold is None else (f"fold{test_fold}",))


def following(present: Sequence[int], fold: int) -> int:
    """The fold that validates while `fold` is held out: the next one, in a circle."""
    return present[(list(present).index(fold) + 1) % len(present)]


def retraining(splits: Sequence[str], test_fold: int) -> Roles:
    """All folds but one, which is scored once."""
    return Roles(tuple(f"fold{fold}" for fold in folds(splits) if fold != test_fold), (), (f"fold{test_fold}",))


def _list(present: Sequence[int]) -> str:
    return ", ".join(str(fold) for fold in present)
