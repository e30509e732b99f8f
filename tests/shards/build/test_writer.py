from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.build.writer import write_array_set
from shardwave.shards.format.verify import verify
from shardwave.shards.read.loader import Loader
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet
from tests.shards.read.test_shardset import images, write_images

PARTS = [("train", "full"), ("train", "slice"), ("val", "full"), ("val", "slice")]


def outputs(parent: ShardSet) -> dict[tuple[str, str], np.ndarray]:
    """Float16 [samples, 4, 2, 2] that tell the sample they belong to."""
    made = {}
    for split, view in PARTS:
        clip = parent.view(split, view).clip
        made[split, view] = (np.arange(16).reshape(4, 2, 2) + clip[:, None, None, None]).astype(np.float16)
    return made


def test_derived_sets_are_keyed_and_numbered_as_their_parent(built: Path, tmp_path: Path) -> None:
    parent = open_set(built)
    arrays = outputs(parent)
    made = write_array_set(tmp_path / "set", parent, arrays, {"network": "vgg16", "precision": "16"})
    assert verify(open_set(tmp_path / "set"))["samples"] == 96
    derived = open_set(tmp_path / "set")
    assert (
        derived.fields["npy"] == {"dtype": "float16", "shape": [4, 2, 2]}
        and derived.classes == parent.classes
    )
    assert derived.config is None and made["config"]["parent"] == parent.fingerprint != derived.fingerprint
    for split, view in PARTS:
        mine, theirs = derived.view(split, view), parent.view(split, view)
        assert (mine.cls == theirs.cls).all() and (mine.clip == theirs.clip).all()
        assert (mine.gather(np.arange(len(mine)))["npy"] == arrays[split, view]).all()
        assert [mine.key(i) for i in range(len(mine))] == [theirs.key(i) for i in range(len(theirs))]
        assert mine.meta(len(mine) - 1) == theirs.meta(len(theirs) - 1)
        assert [entry["file"] for entry in made["splits"][split][view]] == [
            entry["file"] for entry in parent.manifest["splits"][split][view]
        ]
    batch = next(iter(Loader(derived.view("train", "slice"), 5, shuffle=True)))
    assert (batch["npy"][:, 0, 0, 0].numpy() == batch["clip"].numpy()).all()


def test_what_cannot_be_written_leaves_no_set(built: Path, tmp_path: Path) -> None:
    parent = open_set(built)
    arrays = outputs(parent)
    arrays["val", "slice"][3, 0, 0, 0] = np.nan
    with pytest.raises(ShardwaveError, match="npy holds NaN or infinite values"):
        write_array_set(tmp_path / "set", parent, arrays, {})
    with pytest.raises(ShardwaveError, match="is unfinished"):
        open_set(tmp_path / "set")
    assert not list((tmp_path / "set").glob(".*.tmp"))
    with pytest.raises(ValueError, match="must have 18 rows, got 17"):
        write_array_set(
            tmp_path / "set", parent, {**outputs(parent), ("train", "full"): arrays["train", "full"][:17]}, {}
        )
    write_array_set(tmp_path / "set", parent, outputs(parent), {})  # what was cut off starts over
    assert verify(open_set(tmp_path / "set"))["samples"] == 96


def test_finished_sets_and_other_folders_are_not_overwritten(built: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "set", images(20))
    with pytest.raises(UsageError, match="holds a finished set"):
        write_images(tmp_path / "set", images(5))
    parent = open_set(built)
    write_array_set(tmp_path / "set", parent, outputs(parent), {}, overwrite=True)
    assert verify(open_set(tmp_path / "set"))["samples"] == 96
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UsageError, match="holds something else"):
        write_array_set(tmp_path / "other", parent, outputs(parent), {}, overwrite=True)


def test_the_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, images(20))
    one, other = (
        json.loads((tmp_path / name / "manifest.json").read_text())["splits"] for name in ("a", "b")
    )
    assert one == other
