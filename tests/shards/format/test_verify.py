from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from shardwave.common.errors import ShardwaveError
from shardwave.shards.format import index
from shardwave.shards.format.index import Index
from shardwave.shards.format.manifest import set_id
from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set

TAR, INDEX, IDX = "train-slice-0001.tar", "train-slice-0001.index", "train-slice-0001.idx"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "set")
    return tmp_path / "set"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def found(folder: Path) -> str:
    with pytest.raises(ShardwaveError) as caught:
        verify(open_set(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_set_passes(built: Path) -> None:
    report = verify(open_set(built))
    assert {name: report[name] for name in ("samples", "shards", "clips")} == {
        "samples": 96,
        "shards": 12,
        "clips": 24,
    }
    assert report["bytes"] == sum(path.stat().st_size for path in built.glob("*.tar"))
    assert report["fingerprint"] == open_set(built).fingerprint and report["set"] == str(built)


@pytest.mark.parametrize("place", [0, 150, 520, 700, 2_000, 3_000, -1, -600, -2000])
@pytest.mark.parametrize("name", [TAR, INDEX, IDX])
def test_a_flipped_bit_anywhere_is_found_and_its_shard_named(copy: Path, name: str, place: int) -> None:
    flip(
        copy / name,
        max(place, -(copy / name).stat().st_size) % (copy / name).stat().st_size
        if place < 0
        else min(place, (copy / name).stat().st_size - 1),
    )
    assert name in found(copy)


@pytest.mark.parametrize("name", [TAR, INDEX, IDX])
def test_missing_and_truncated_files_are_named(copy: Path, name: str) -> None:
    os.truncate(copy / name, (copy / name).stat().st_size - 512)
    assert name in found(copy)
    (copy / name).unlink()
    assert f"{name}: missing" in found(copy)


def rewrite(
    folder: Path,
    change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]],
    *,
    index_too: bool = True,
) -> None:
    """Rewrite TAR with changed members, indexes and manifest, so that only reading the samples shows it."""
    with tarfile.open(folder / TAR) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    members = change(members)
    buffer = io.BytesIO()
    places: dict[str, list[tuple[int, int]]] = {}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        for member in archive:
            places.setdefault(member.name.split(".", 1)[1], []).append((member.offset_data, member.size))
    data = buffer.getvalue()
    (folder / TAR).write_bytes(data)
    old = index.read(folder / INDEX)
    digest = blake3(data).hexdigest()
    if index_too:
        columns = {name: np.array(places[name], np.int64) for name in old.offset if name in places}
        made = Index(
            len(data),
            digest,
            old.cls,
            old.clip,
            {n: c[:, 0] for n, c in columns.items()},
            {n: c[:, 1] for n, c in columns.items()},
        )
    else:
        made = Index(len(data), digest, old.cls, old.clip, old.offset, old.length)
    if len({len(column) for column in made.offset.values()} | {len(made)}) == 1:
        (folder / INDEX).write_bytes(made.to_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["splits"]["train"]["slice"]:
        if entry["file"] == TAR:
            entry.update(
                bytes=len(data), blake3=digest, index_blake3=blake3((folder / INDEX).read_bytes()).hexdigest()
            )
    (folder / "manifest.json").write_text(json.dumps({**manifest, "set_id": set_id(manifest)}))


Members = list[tuple[str, bytes]]


def replaced(place: int, suffix: str, data: bytes) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        chosen = [i for i, (name, _) in enumerate(members) if name.endswith(suffix)][place]
        return [(name, data if i == chosen else old) for i, (name, old) in enumerate(members)]

    return change


def meta_with(**values: object) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        return [
            (
                name,
                json.dumps({**json.loads(data), **values}).encode()
                if name.endswith("json") and i == 2
                else data,
            )
            for i, (name, data) in enumerate(members)
        ]

    return change


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_rewriting_alone_changes_nothing(copy: Path) -> None:
    rewrite(copy, lambda members: members)
    assert verify(open_set(copy))["samples"] == 96


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda members: members[:-3], "cannot hold 18 samples"),
        (lambda members: [*members[:3], *members], "is there twice"),
        (lambda members: members[1:], "the index does not point at"),
        (lambda members: [("x.npy", members[0][1]), *members], "lacks cls, json"),
        (lambda members: [*members, ("x.txt", b"")], "x.txt is not a field of the set"),
        (
            replaced(1, "npy", saved(np.zeros((16, 32), np.uint8))),
            "is uint8 [16, 32], but the manifest says uint8 [32, 32]",
        ),
        (
            replaced(1, "npy", saved(np.zeros((32, 32), np.float32))),
            "is float32 [32, 32], but the manifest says uint8",
        ),
        (replaced(1, "npy", b"no array"), "field npy is damaged"),
        (replaced(1, "cls", b"7"), "the class of"),
        (replaced(1, "cls", b"x"), "field cls is damaged"),
        (replaced(1, "json", b"{}"), "lacks the field label"),
        (replaced(1, "json", b"{"), "field json is damaged"),
        (meta_with(label="other"), "its label 'other'"),
        (meta_with(view="full"), "is of view full"),
        (meta_with(path="other.wav"), "is clip"),
        (lambda members: [("../" + members[0][0], members[0][1]), *members[1:]], "points outside the shard"),
        (lambda members: [(members[0][0] + ".pkl", b""), *members], "could run code"),
    ],
)  # fmt: skip
def test_samples_that_are_not_as_they_should_be_are_named(
    copy: Path, change: Callable[[Members], Members], told: str
) -> None:
    rewrite(copy, change)
    message = found(copy)
    assert TAR in message and told in message


def test_an_index_that_points_elsewhere_is_named(copy: Path) -> None:
    rewrite(
        copy, lambda members: [*members[9:18], *members[:9], *members[18:]]
    )  # the clip column says otherwise
    assert TAR in found(copy)


def test_a_stale_index_is_named(copy: Path) -> None:
    rewrite(
        copy,
        lambda members: [
            (name, data + b" " * 600 if name.endswith("json") else data) for name, data in members
        ],
        index_too=False,
    )
    assert f"{TAR}: the index does not point at" in found(copy)


def test_a_group_in_two_splits_is_named(copy: Path) -> None:
    rewrite(copy, meta_with(group="g"))
    verify(open_set(copy))
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in ("val-slice-0000",):
        text = (copy / f"{name}.tar").read_bytes().replace(b'"group": null', b'"group": "g" ', 1)
        (copy / f"{name}.tar").write_bytes(text)
        old = index.read(copy / f"{name}.index")
        digest = blake3(text).hexdigest()
        (copy / f"{name}.index").write_bytes(
            Index(old.tar_bytes, digest, old.cls, old.clip, old.offset, old.length).to_bytes()
        )
        for entry in manifest["splits"]["val"]["slice"]:
            if entry["file"] == f"{name}.tar":
                entry.update(
                    blake3=digest, index_blake3=blake3((copy / f"{name}.index").read_bytes()).hexdigest()
                )
    (copy / "manifest.json").write_text(json.dumps({**manifest, "set_id": set_id(manifest)}))
    assert "group g is in train and val" in found(copy)


def test_a_manifest_that_counts_otherwise(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "clips": 25}))
    assert "hold 24 clips, but the manifest says 25" in found(copy)
