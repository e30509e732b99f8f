"""The set id: equal for equal content, labels and splits, different for other sets."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from shardwave.shards.build.builder import BuildOptions, build, build_table
from shardwave.shards.read.open_set import open_set
from tests.shards.conftest import CONFIG, write_clip


def set_id(audio: Path, out: Path, image_size: int = 32, **options: object) -> str:
    named = {"engine": "reference", "device": "cpu", "workers": 1, "shard_mb": 1, **options}
    config = dataclasses.replace(CONFIG, image_size=image_size)
    made = build(audio, out, config, BuildOptions(**named))  # type: ignore[arg-type]
    assert made["set_id"] == open_set(out).set_id and len(made["set_id"]) == 16
    return str(made["set_id"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(12):
        write_clip(tmp_path / "audio" / f"class {i % 2}" / f"{i:02d}.wav", i)
    return tmp_path / "audio"


def test_the_same_set_built_by_more_workers_and_elsewhere(folder: Path, tmp_path: Path) -> None:
    first = set_id(folder, tmp_path / "one")
    shutil.copytree(folder, tmp_path / "moved" / "elsewhere")
    assert set_id(tmp_path / "moved" / "elsewhere", tmp_path / "three", workers=3) == first
    shutil.move(tmp_path / "one", tmp_path / "two")
    assert open_set(tmp_path / "two").set_id == first


def test_other_labels_splits_content_classes_and_fields_are_other_sets(folder: Path, tmp_path: Path) -> None:
    ids = [set_id(folder, tmp_path / "set")]

    def labels(name: str, **changed: str) -> Path:
        rows = [
            f"class {i % 2}/{i:02d}.wav,{changed.get(f'clip{i}', f'class {i % 2}')},{i % 3 + 1}"
            for i in range(12)
        ]
        (tmp_path / name).write_text("\n".join(["path,label,fold", *rows]))
        return tmp_path / name

    ids.append(set_id(folder, tmp_path / "seed", seed=1))
    ids.append(set_id(folder, tmp_path / "split", val_fraction=0.4))
    ids.append(set_id(folder, tmp_path / "folds", labels=labels("folds.csv")))
    ids.append(set_id(folder, tmp_path / "relabelled", labels=labels("relabelled.csv", clip3="class 0")))
    ids.append(set_id(folder, tmp_path / "size", image_size=16))
    write_clip(folder / "class 0" / "00.wav", 99)
    ids.append(set_id(folder, tmp_path / "content"))
    (folder / "class 1").rename(folder / "class 3")
    ids.append(set_id(folder, tmp_path / "renamed class"))
    assert len(set(ids)) == len(ids)


def test_sets_of_a_table(tmp_path: Path) -> None:
    def made(name: str, last: str) -> str:
        rows = [f"{i}.wav,{i},{2 * i},{'ab'[i % 2]}" for i in range(9)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,x,y,label", *rows, last]) + "\n")
        options = BuildOptions(val_fraction=0.3)
        return str(build_table(tmp_path / f"{name}.csv", tmp_path / name, options=options)["set_id"])

    assert made("one", "9.wav,9,18,b") == made("two", "9.wav,9,18,b") == open_set(tmp_path / "one").set_id
    assert (
        len({made("one again", "9.wav,9,18,b"), made("label", "9.wav,9,18,a"), made("value", "9.wav,9,19,b")})
        == 3
    )
