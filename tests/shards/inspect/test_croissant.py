"""Croissant metadata of a shard set, read by `mlcroissant`."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import mlcroissant
import numpy as np
import pytest
import soundfile

from shardwave.cli import main_group
from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.inspect.croissant import write_croissant
from shardwave.shards.read.open_set import open_set


def test_mlcroissant_reads_the_classes_and_finds_no_error(built: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(built, tmp_path / "set"))
    main_group.main(
        ["croissant", str(path), "--license", "CC BY 4.0", "--url", "https://example.org/set"],
        standalone_mode=False,
    )
    dataset = mlcroissant.Dataset(jsonld=path / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    manifest = json.loads((path / "manifest.json").read_text())
    assert [str(row["classes/name"]) for row in dataset.records("classes")] == manifest["classes"]
    described = json.loads((path / "croissant.json").read_text())
    assert (described["license"], described["url"]) == ("CC BY 4.0", "https://example.org/set")
    files = {entry["@id"]: entry for entry in described["distribution"]}
    sets = {f"{split}-{view}" for split, views in manifest["splits"].items() for view in views}
    assert set(files) == {"manifest.json", "clips.csv", *sets} and len(sets) >= 4
    digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert files["manifest.json"]["sha256"] == digest
    for split, views in manifest["splits"].items():
        for view, shards in views.items():
            found = {each.name for each in path.glob(files[f"{split}-{view}"]["includes"])}
            assert found == {shard["file"] for shard in shards}


def test_mlcroissant_reads_the_clips(built: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(built, tmp_path / "set"))
    shard_set = open_set(path)
    write_croissant(shard_set, url="https://example.org/set")
    rows = mlcroissant.Dataset(jsonld=path / "croissant.json").records("clips")
    read = {row["clips/key"].decode(): row for row in rows}
    assert len(read) == shard_set.manifest["clips"] > 0
    for split in shard_set.splits:
        view = shard_set.view(split, "full")
        for i in range(len(view)):
            meta, row = view.meta(i), read[view.key(i)]
            found = {name: row[f"clips/{name}"].decode() for name in ("path", "label", "split", "group")}
            group = meta["group"] or meta["path"]
            assert found == {"path": meta["path"], "label": meta["label"], "split": split, "group": group}
            assert (row["clips/start"], row["clips/length"]) == (meta["start"], meta["length"])


def test_unlabelled_clips_have_no_label(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    samples = np.random.default_rng(0).normal(0, 0.1, 4_000)
    soundfile.write(tmp_path / "audio" / "NA.wav", samples, 8_000)
    config, options = SpectrogramConfig(image_size=16, slices=0), BuildOptions(workers=1, min_shards=1)
    build(tmp_path / "audio", tmp_path / "set", config, options, [Clip("NA.wav")])
    write_croissant(open_set(tmp_path / "set"), url="https://example.org/set")
    (row,) = mlcroissant.Dataset(jsonld=tmp_path / "set/croissant.json").records("clips")
    assert row["clips/label"] is None and row["clips/path"] == b"NA.wav"


def test_a_missing_package_is_named(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copytree(built, tmp_path / "set"))
    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    with pytest.raises(
        UsageError, match=r"mlcroissant is not installed: pip install 'shardwave\[croissant\]'"
    ):
        main_group.main(["croissant", str(path)], standalone_mode=False)
