"""Croissant metadata of a shard set, read by `mlcroissant`."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import mlcroissant
import pytest

from shardwave.cli import main_group
from shardwave.common.errors import UsageError


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
    assert set(files) == {"manifest.json", *sets} and len(sets) >= 4
    digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert files["manifest.json"]["sha256"] == digest
    for split, views in manifest["splits"].items():
        for view, shards in views.items():
            found = {each.name for each in path.glob(files[f"{split}-{view}"]["includes"])}
            assert found == {shard["file"] for shard in shards}


def test_a_missing_package_is_named(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copytree(built, tmp_path / "set"))
    monkeypatch.setitem(sys.modules, "mlcroissant", None)
    with pytest.raises(
        UsageError, match=r"mlcroissant is not installed: pip install 'shardwave\[croissant\]'"
    ):
        main_group.main(["croissant", str(path)], standalone_mode=False)
