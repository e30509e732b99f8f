from __future__ import annotations

import collections
import random
import tracemalloc

import pytest

from shardwave.common.errors import UsageError
from shardwave.shards.clip import Clip
from shardwave.shards.splits.assign import assign

CLIPS = sorted(
    (
        Clip(f"{label}/{i:03d}.wav", label, group=f"{label}{i // 3}")
        for label, n in (("a", 60), ("b", 30), ("c", 90))
        for i in range(n)
    ),
    key=lambda clip: clip.path,
)


def split(clips: list[Clip], val: float = 0.2, test: float = 0.0, seed: int = 0) -> dict[str, str]:
    return {
        clip.path: side
        for clip, side in zip(
            clips, assign(clips, val_fraction=val, test_fraction=test, seed=seed), strict=True
        )
    }


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.1, 0.2), (0.3, 0.0), (0.05, 0.25), (0.5, 0.0)])
def test_sides_are_stratified_and_never_break_a_group(val: float, test: float) -> None:
    sides = split(CLIPS, val, test)
    by_group = collections.defaultdict(set)
    for clip in CLIPS:
        by_group[clip.group].add(sides[clip.path])
    assert all(len(found) == 1 for found in by_group.values())
    for label, n in (("a", 60), ("b", 30), ("c", 90)):
        counts = collections.Counter(sides[clip.path] for clip in CLIPS if clip.label == label)
        assert abs(counts["val"] - val * n) <= 4 and abs(counts["test"] - test * n) <= 4, (label, counts)


ALONE = [
    Clip(f"{label}/{i:03d}.wav", label)
    for label, n in (("a", 60), ("b", 30), ("c", 90), ("d", 3))
    for i in range(n)
]
MANY = [  # groups of 1 to 4 clips, more than scikit-learn is asked to balance
    Clip(f"{i:05d}-{k}.wav", f"class {i % 50}", group=f"group {i}")
    for i in range(4000)
    for k in range(1 + i // 50 % 4)
]


@pytest.mark.parametrize("clips", [CLIPS, ALONE, MANY], ids=["groups", "clips alone", "many groups"])
def test_the_order_of_files_plays_no_part_and_the_seed_does(clips: list[Clip]) -> None:
    shuffled = random.Random(1).sample(clips, len(clips))
    assert split(shuffled) == split(clips)
    assert split(clips, seed=1) != split(clips)
    assert split(clips, seed=1) == split(clips, seed=1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.1, 0.2), (0.03, 0.0), (0.5, 0.0)])
def test_clips_without_groups_are_drawn_evenly_from_each_class(val: float, test: float, seed: int) -> None:
    sides = split(ALONE, val, test, seed)
    total = collections.Counter(sides.values())
    assert total["val"] == round(val * len(ALONE)) and total["test"] == round(test * len(ALONE))
    for label, n in (("a", 60), ("b", 30), ("c", 90), ("d", 3)):
        counts = collections.Counter(sides[clip.path] for clip in ALONE if clip.label == label)
        assert abs(counts["test"] - test * n) < 1.1 and abs(counts["val"] - val * n) < 2.1
        assert counts["train"]


def test_of_many_groups_none_is_broken_and_each_class_gets_its_share() -> None:
    sides = split(MANY)
    by_group = collections.defaultdict(set)
    for clip in MANY:
        by_group[clip.group].add(sides[clip.path])
    assert all(len(found) == 1 for found in by_group.values())
    for i in range(50):
        counts = collections.Counter(sides[clip.path] for clip in MANY if clip.label == f"class {i}")
        assert counts["val"] == pytest.approx(0.2 * counts.total(), abs=4)  # one group more or less


def test_a_large_set_of_many_classes_takes_little_memory() -> None:
    clips = [Clip(f"{i:05d}.wav", f"{i % 2000}") for i in range(20_000)]  # clips x classes would be 320 MB
    tracemalloc.start()
    try:
        assign(clips, val_fraction=0.2, test_fraction=0.1, seed=0)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_folds_and_given_splits_are_kept() -> None:
    folded = [Clip(f"{i}", "a", fold=i % 3 + 1) for i in range(6)]
    assert assign(folded, val_fraction=0.2, test_fraction=0.1, seed=0) == ["fold1", "fold2", "fold3"] * 2
    given = [Clip(f"{i:02d}", "ab"[i % 2], split=("train", "val", "test")[i % 3]) for i in range(12)]
    assert assign(given, val_fraction=0.2, test_fraction=0.1, seed=0) == ["train", "val", "test"] * 4


def test_a_validation_side_that_is_not_given_is_drawn_from_train_alone() -> None:
    given = [Clip(f"{i:02d}", "ab"[i % 2], split="test" if i < 10 else "train") for i in range(50)]
    sides = assign(given, val_fraction=0.25, test_fraction=0.0, seed=0)
    assert sides[:10] == ["test"] * 10 and sides.count("val") == 10


def test_unlabelled_clips_are_there_to_be_predicted() -> None:
    assert assign([Clip("a"), Clip("b")], val_fraction=0.2, test_fraction=0.0, seed=0) == ["test", "test"]


def test_small_sets_still_get_both_sides() -> None:
    tiny = [Clip("a0", "a"), Clip("a1", "a"), Clip("b0", "b"), Clip("b1", "b")]
    sides = assign(tiny, val_fraction=0.2, test_fraction=0.0, seed=0)
    assert {"train", "val"} == set(sides)


@pytest.mark.parametrize(
    ("clips", "options", "told"),
    [
        (CLIPS, {"val_fraction": 1.0}, "val_fraction must lie between 0 and 1, got 1.0"),
        (CLIPS, {"val_fraction": 0.6, "test_fraction": 0.5}, "must be below 1"),
        ([Clip("a", "x", fold=1), Clip("b", "y", fold=1)], {}, "at least two folds, got only fold 1"),
        ([Clip("a", "x", group="g"), Clip("b", "y", group="g")], {}, "at least two groups, got 1"),
        ([Clip("a", "x"), Clip("b", "y")], {}, "a class with at least two clips"),
        ([Clip("a", "x", split="test"), Clip("b", "y", split="val")], {}, "no clip is in split train"),
    ],
)
def test_splits_that_cannot_be_made_are_named(
    clips: list[Clip], options: dict[str, float], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        assign(clips, **{"val_fraction": 0.2, "test_fraction": 0.0, "seed": 0, **options})


def test_classes_of_which_a_side_has_nothing_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    def told(clips: list[Clip], val: float = 0.2) -> list[str]:
        assign(clips, val_fraction=val, test_fraction=0.0, seed=0)
        return capsys.readouterr().err.splitlines()

    plenty = [Clip(f"{label}{i}", label) for label in "ab" for i in range(10)]
    assert told(plenty) == [] and told([*plenty, Clip("rare", "rare")], val=0.0) == []
    alone = told([*plenty, Clip("x", "rare", group="g"), Clip("y", "rare", group="g")])
    assert len(alone) == 1 and "class rare has no clip in " in alone[0] and "--seed" in alone[0]
    given = [
        Clip(f"{i}", label, split=split)
        for i, (label, split) in enumerate([("a", "train"), ("b", "val"), ("a", "val")])
    ]
    assert [line.split(":")[1] for line in told(given)] == [" class b has no clip in train"]
    folded = [Clip(f"{i}", "a", fold=i % 3) for i in range(6)] + [Clip("b", "b", fold=1)]
    assert len(lines := told(folded)) == 1 and "class b has clips in one fold only" in lines[0]
