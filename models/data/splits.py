"""Roles of the splits of a shard set: training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shardwave.common.errors import UsageError


class Roles(NamedTuple):
    """Names of the splits for training, validation and test.

    `val` is empty when a model is trained again for a fixed number of epochs.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def folds(splits: Sequence[str]) -> list[int]:
    """Return the numbers of the folds in ascending order; empty for a set with train, val and test splits."""
    return sorted(int(name.removeprefix("fold")) for name in splits if name.startswith("fold"))


def resolve(splits: Sequence[str], val_fold: int | None, test_fold: int | None) -> Roles:
    """Determine the roles of the splits of a set.

    Args:
        splits: Names of the splits of the set.
        val_fold: Fold for validation; None with a `test_fold` selects the fold after it (fold 1 after the
            last).
        test_fold: Fold that is held out, or None.

    Returns:
        The splits of each role.

    Raises:
        UsageError: The set has no such fold, or it has folds and none is given, or no split is left for
            training.
    """
    present = folds(splits)
    if not present:
        for option, value in (("--val-fold", val_fold), ("--test-fold", test_fold)):
            if value is not None:
                raise UsageError(
                    f"{option} {value}: the shard set has the splits {', '.join(splits)}, no folds: "
                    "remove the option"
                )
        for name, remedy in (
            ("train", "build it from labelled audio"),
            ("val", "build it with --val-fraction above 0"),
        ):
            if name not in splits:
                raise UsageError(f"the shard set has no split {name}: {remedy}")
        return Roles(("train",), ("val",), ("test",) if "test" in splits else ())
    if val_fold is None and test_fold is None:
        raise UsageError(
            f"the shard set has folds {_listed(present)}: use --val-fold K, --test-fold K or --folds all"
        )
    for option, value in (("--val-fold", val_fold), ("--test-fold", test_fold)):
        if value is not None and value not in present:
            raise UsageError(f"{option} must be one of the set's folds {_listed(present)}, got {value}")
    if val_fold is None and test_fold is not None:
        val_fold = next_fold(present, test_fold)
    train = tuple(f"fold{fold}" for fold in present if fold not in (val_fold, test_fold))
    if not train:
        raise UsageError(
            f"no fold is left for training (folds {_listed(present)}): --test-fold needs three folds or more"
        )
    return Roles(train, (f"fold{val_fold}",), () if test_fold is None else (f"fold{test_fold}",))


def next_fold(present: Sequence[int], fold: int) -> int:
    """Return the fold after `fold` in `present`; after the last fold, the first one."""
    return present[(list(present).index(fold) + 1) % len(present)]


def retraining(splits: Sequence[str], test_fold: int) -> Roles:
    """Return the roles of a training on all folds except the test fold, without validation."""
    return Roles(
        tuple(f"fold{fold}" for fold in folds(splits) if fold != test_fold), (), (f"fold{test_fold}",)
    )


def _listed(present: Sequence[int]) -> str:
    return ", ".join(str(fold) for fold in present)
