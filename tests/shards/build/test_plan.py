from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.shards.build import plan
from shardwave.shards.clip import Clip
from tests.shards.conftest import CONFIG

OPTIONS = {"seed": 0, "min_shards": 4, "shard_mb": 1.0}


def make(audio: Path, seed: int = 0, **changed: object) -> plan.Plan:
    paths = sorted(str(path.relative_to(audio)) for path in audio.rglob("*.wav"))
    clips = [Clip(path, path.split("/")[0]) for path in paths]
    classes = sorted({path.split("/")[0] for path in paths})
    return plan.make(
        clips, classes, ["train"] * len(clips), audio, CONFIG, {**OPTIONS, "seed": seed, **changed}
    )


@pytest.mark.parametrize("clips", [1, 2, 3, 7, 100, 1000])
@pytest.mark.parametrize("min_shards", [1, 8])
def test_every_clip_has_one_place_and_no_shard_is_empty(clips: int, min_shards: int) -> None:
    weights = np.random.default_rng(0).uniform(1e3, 1e6, clips)
    shard, rank = plan.spread(weights, "train", 0, min_shards, 10.0)
    assert sorted(rank.tolist()) == list(range(clips))
    assert set(shard.tolist()) == set(range(shard.max() + 1))
    assert shard.max() + 1 <= min_shards * np.ceil(weights.sum() / 10e6 / min_shards)
    assert (np.diff(shard[np.argsort(rank)]) >= 0).all()  # shard after shard
    sizes = np.bincount(shard, weights)
    assert sizes.max() <= 10e6 + weights.max()
    again = plan.spread(weights, "train", 0, min_shards, 10.0)
    assert (again[0] == shard).all() and (again[1] == rank).all()


def test_equal_clips_make_equal_shards() -> None:
    shard, _ = plan.spread(np.full(80, 1e5), "train", 0, 8, 256.0)
    assert np.bincount(shard).tolist() == [10] * 8
    shard, _ = plan.spread(np.full(5, 1e5), "train", 0, 8, 256.0)
    assert np.bincount(shard).tolist() == [1] * 5
    shard, _ = plan.spread(np.full(960, 3e6), "train", 0, 8, 256.0)  # 2.9 GB: twelve would do
    assert np.bincount(shard).tolist() == [60] * 16


def test_shards_mix_the_classes_and_the_seed_decides(audio: Path) -> None:
    one, other = make(audio), make(audio, seed=1)
    assert one.shards() == make(audio).shards() != other.shards()
    for numbers in one.shards().values():
        assert len({one.clips[number].cls for number in numbers}) >= 2


def test_what_is_written_is_read(audio: Path, tmp_path: Path) -> None:
    made = make(audio)
    made.write(tmp_path / "plan.jsonl")
    assert plan.read(tmp_path / "plan.jsonl") == made
    (tmp_path / "plan.jsonl").write_text((tmp_path / "plan.jsonl").read_text()[:-50])
    with pytest.raises(ShardwaveError, match="plan.jsonl line 25 is damaged: not JSON: build the set anew"):
        plan.read(tmp_path / "plan.jsonl")


def test_a_moved_plan_is_a_change(audio: Path) -> None:
    """What no option or input shows, such as another version's way to shuffle."""
    one, other = make(audio), make(audio, seed=1)
    moved = plan.Plan(one.options, other.clips)
    (told,) = plan.changes(one, moved, audio, {})
    assert "in another shard" in told
    assert plan.changes(one, make(audio), audio, {}) == []


def test_crc32(tmp_path: Path) -> None:
    import zlib

    data = np.random.default_rng(0).bytes(1_000_003)
    (tmp_path / "a").write_bytes(data)
    assert plan.file_crc32(tmp_path / "a") == zlib.crc32(data)
