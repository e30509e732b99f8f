"""A run belongs to one set: another one is refused by name, and the message says what differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.runs import clip_table, result
from shardwave.models.runs.checkpoint import read as read_checkpoint
from shardwave.models.training.config import defaults
from shardwave.models.training.crossval import cross_validate
from shardwave.models.training.train import train
from shardwave.shards.build.builder import BuildOptions, build_table
from shardwave.shards.read.open_set import open_set

MLP = defaults("mlp", epochs=1, batch_size=8, hidden_size=8, device="cpu")


def table(folder: Path, name: str = "set", **changes: Any) -> Path:
    """A set of 20 rows in `folder`/`name`, with a column `split`; `changes` sets cells (row3_label="b")."""
    rows = ["path,x,y,label,split"]
    for i in range(20):
        cells = {
            "path": f"{i}.wav",
            "x": i,
            "y": i * i % 7,
            "label": "ab"[i % 2],
            "split": "val" if i % 5 == 0 else "train",
        }
        cells |= {
            key.split("_")[1]: value for key, value in changes.items() if key.split("_")[0] == f"row{i}"
        }
        rows.append(",".join(map(str, cells.values())))
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    out = folder / name
    build_table(folder / "table.csv", out, options=BuildOptions(overwrite=True))
    return out


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the set beside it, as an interruption leaves it."""
    folder = tmp_path_factory.mktemp("interrupted")
    found = train(table(folder), MLP, folder / "run")
    (folder / "run" / "result.json").write_text(json.dumps(found | {"state": "INTERRUPTED"}))
    return folder


def resumed(interrupted: Path, tmp_path: Path, **changes: Any) -> str:
    """The refusal of a resume on a set with these changes."""
    shutil.copytree(interrupted / "run", tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        train(table(tmp_path, **changes), MLP, tmp_path / "run", resume=True)
    told = str(caught.value)
    assert "\n" not in told and told.startswith("--resume: the run was started on another set (set id ")
    return told


def test_a_run_records_its_set(interrupted: Path) -> None:
    opened, found = open_set(interrupted / "set"), result.read(interrupted / "run")
    assert found["set_id"] == opened.set_id and found["clips"] == {"train": 16, "val": 4}
    kept = read_checkpoint(interrupted / "run" / "checkpoint.ckpt")
    assert kept["set_id"] == opened.set_id and kept["splits"] == {
        "train": ["train"],
        "val": ["val"],
        "test": [],
    }
    stored = clip_table.read(interrupted / "run")
    assert stored is not None and stored.counts() == found["clips"] and len(stored.digests_of(["val"])) == 4


def test_the_same_set_rebuilt_or_moved_is_the_same(interrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(interrupted / "run", tmp_path / "run")
    assert train(table(tmp_path, "moved"), MLP, tmp_path / "run", resume=True)["state"] == "COMPLETE"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"row3_label": "a", "row4_label": "b", "row6_label": "b"},
            ": 3 of 20 clips have other labels; use the earlier set",
        ),
        ({"row5_split": "train", "row6_split": "val"}, ": 2 of 20 clips are in another split; use"),
        ({"row2_x": 99}, ": 1 of 20 clips are missing or have other content, 1 are new; use"),
        (
            {"row2_x": 99, "row3_label": "a"},
            ": 1 of 20 clips are missing or have other content, 1 are new; 1 of 20 clips have other",
        ),
        (
            {"row3_label": "c"},
            ": classes were 2 (a, b), now 3 (a, b, c); 1 of 20 clips have other labels; use",
        ),
        (
            {"row3_path": "z.wav"},
            ": same clips, labels and splits, but other paths, groups, order, slices or fields; use",
        ),
    ],
)
def test_another_set_is_refused_with_the_differences(
    interrupted: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    assert told in resumed(interrupted, tmp_path, **changes)


def test_without_the_table_of_clips_the_numbers_are_compared(interrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(interrupted / "run", tmp_path / "run")
    (tmp_path / "run" / "clips.npz").unlink()
    with pytest.raises(UsageError, match="clips by split were train 16, val 4, now train 17, val 3; use"):
        train(table(tmp_path, row5_split="train"), MLP, tmp_path / "run", resume=True)
    (tmp_path / "run" / "clips.npz").write_bytes(b"half")
    with pytest.raises(ShardwaveError, match="clips.npz is damaged"):
        train(table(tmp_path, row5_split="train"), MLP, tmp_path / "run", resume=True)


def test_other_settings_are_all_named(make_set: Callable[..., Path], tmp_path: Path) -> None:
    config = defaults(
        "cnn", epochs=1, batch_size=8, hidden_size=8, conv1_kernel=3, conv2_kernel=3, device="cpu"
    )
    found = train(make_set(tmp_path / "one", ["train", "val"], clips=2), config, tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text(json.dumps(found | {"state": "INTERRUPTED"}))
    other = make_set(tmp_path / "other", ["train", "val"], clips=2, size=64, slices=2)
    with pytest.raises(UsageError, match="image_size was 32, now 64; slices was 3, now 2; use"):
        train(other, config, tmp_path / "run", resume=True)


def test_cross_validation_resumes_only_on_its_own_set(
    make_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardwave.models.training import crossval

    config = defaults("mlp", epochs=1, batch_size=8, hidden_size=8, device="cpu", folds="all")

    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(crossval, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(
            make_set(tmp_path / "set", ["fold1", "fold2", "fold3"], clips=2), config, tmp_path / "run"
        )
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(
        UsageError, match="another set .*6 of 6 clips are missing or have other content, 6 are new"
    ):
        cross_validate(
            make_set(tmp_path / "set", ["fold1", "fold2", "fold3"], clips=2, seed=1),
            config,
            tmp_path / "run",
            resume=True,
        )


def test_clips_with_equal_content_are_counted_individually() -> None:
    digest = np.array([1, 1, 1, 2], np.uint64)
    old = clip_table.ClipTable(digest, np.array([0, 0, 1, -1]), np.zeros(4, np.int64), ["train"])
    new = clip_table.ClipTable(
        digest[[0, 2, 1, 3]], np.array([1, 1, 0, -1]), np.zeros(4, np.int64), ["train"]
    )
    assert clip_table._clip_differences(old, ["a", "b"], new, ["a", "b"]) == [
        "1 of 4 clips have other labels"
    ]
    assert clip_table._clip_differences(old, ["a", "b"], old, ["a", "b"]) == []
