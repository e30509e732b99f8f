"""Which folds train, validate and test."""

from __future__ import annotations

import pytest

from shardwave.common.errors import UsageError
from shardwave.models.data.splits import Roles, resolve, retraining

FOLDS = [f"fold{number}" for number in range(1, 6)]


def test_folds_take_their_roles() -> None:
    assert resolve(FOLDS, 2, None) == Roles(("fold1", "fold3", "fold4", "fold5"), ("fold2",), ())
    assert resolve(FOLDS, 2, 4) == Roles(("fold1", "fold3", "fold5"), ("fold2",), ("fold4",))
    assert resolve(FOLDS, None, 3) == Roles(("fold1", "fold2", "fold5"), ("fold4",), ("fold3",))
    assert resolve(FOLDS, None, 5).val == ("fold1",)  # k mod n + 1
    assert retraining(FOLDS, 5) == Roles(("fold1", "fold2", "fold3", "fold4"), (), ("fold5",))


def test_fold_numbers_need_not_be_consecutive() -> None:
    names = ["fold2", "fold7", "fold10"]
    assert [resolve(names, None, k).val for k in (2, 7, 10)] == [("fold7",), ("fold10",), ("fold2",)]


def test_roles_of_train_val_and_test_splits() -> None:
    assert resolve(["train", "val", "test"], None, None) == Roles(("train",), ("val",), ("test",))
    assert resolve(["train", "val"], None, None).test == ()
    with pytest.raises(UsageError, match="--val-fold 1: the shard set has the splits train, val, no folds"):
        resolve(["train", "val"], 1, None)
    with pytest.raises(UsageError, match="no split val: build it with --val-fraction"):
        resolve(["train"], None, None)
    with pytest.raises(UsageError, match="no split train"):
        resolve(["test"], None, None)
