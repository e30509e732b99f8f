from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.build.writer import write_set
from shardwave.shards.format import manifest
from shardwave.shards.format.index import Index
from shardwave.shards.format.shard_writer import Row
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View
from tests.shards.conftest import CONFIG


def images(samples: int, shape: tuple[int, ...] = (16, 24), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (samples, *shape), np.uint8)


def write_images(out: Path, array: np.ndarray, per_shard: int = 7, split: str = "train") -> ShardSet:
    """A set of these images (uint8 [samples, ...]); sample i is clip 1000 + i of class i % 3."""

    def rows(start: int, stop: int) -> list[Row]:
        meta = {
            "label": None,
            "group": None,
            "fold": None,
            "view": "full",
            "slice": None,
            "start": 0.0,
            "length": 1.0,
            "source_rate": 1,
        }
        return [
            Row(
                f"{i:06d}",
                i % 3,
                1000 + i,
                {**meta, "label": "abc"[i % 3], "path": f"{i}.wav"},
                {"npy": array[i]},
            )
            for i in range(start, stop)
        ]

    def shards():  # type: ignore[no-untyped-def]
        for number, start in enumerate(range(0, len(array), per_shard)):
            yield split, "full", number, rows(start, min(start + per_shard, len(array)))

    about = {
        "config": {"test": 1},
        "engine": None,
        "device": None,
        "seed": 0,
        "classes": ["a", "b", "c"],
        "feature_names": [],
    }
    write_set(
        out,
        shards(),
        {"npy": ("uint8", array.shape[1:])},
        {**about, "clips": len(array), "audio_seconds": 0.0},
        samples=len(array),
    )
    return open_set(out)


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    return images(100)


@pytest.fixture(scope="module")
def view(array: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> View:
    return write_images(tmp_path_factory.mktemp("sets") / "images", array).view("train")


@pytest.mark.parametrize("rows", [[0], [99], [3, 3, 3], list(range(100)), [98, 0, 50, 7, 6, 8], []])
def test_gathering_is_indexing(view: View, array: np.ndarray, rows: list[int]) -> None:
    got = view.gather(rows)["npy"]
    assert got.dtype == np.uint8 and got.shape == (len(rows), 16, 24) and (got == array[rows]).all()
    assert (view.cls[rows] == np.array(rows, int) % 3).all() and (
        view.clip[rows] == 1000 + np.array(rows, int)
    ).all()


def test_gathering_into_memory_that_is_given(view: View, array: np.ndarray) -> None:
    out = np.zeros((5, 16, 24), np.uint8)
    assert view.gather([9, 8, 7, 6, 5], out={"npy": out})["npy"] is out
    assert (out == array[[9, 8, 7, 6, 5]]).all()
    for wrong in (
        np.zeros((4, 16, 24), np.uint8),
        np.zeros((5, 16, 24), np.int8),
        np.zeros((5, 24, 16), np.uint8).transpose(0, 2, 1),
    ):
        with pytest.raises(ValueError, match="must be"):
            view.gather([9, 8, 7, 6, 5], out={"npy": wrong})


@pytest.mark.parametrize("rows", [[100], [-1], [0, 1000000]])
def test_rows_outside_are_refused(view: View, rows: list[int]) -> None:
    with pytest.raises(IndexError, match="between 0 and 99"):
        view.gather(rows)


def test_keys_and_json(view: View) -> None:
    assert [view.key(i) for i in (0, 42, 99)] == ["000000", "000042", "000099"]
    assert view.meta(42)["path"] == "42.wav"


def test_splits_and_views_concatenate(built: Path) -> None:
    opened = open_set(built)
    both = opened.view(["val", "train"], "slice")
    one, other = opened.view("val", "slice"), opened.view("train", "slice")
    assert len(both) == len(one) + len(other) == 72
    assert (both.cls == np.concatenate([one.cls, other.cls])).all()
    assert (
        both.gather([0, len(one)])["npy"]
        == np.stack([one.gather([0])["npy"][0], other.gather([0])["npy"][0]])
    ).all()
    mixed = opened.view("train", "both")
    assert len(mixed) == 18 + 54 and [mixed.meta(i)["view"] for i in (0, 17, 18)] == ["full", "full", "slice"]
    full = opened.view(["train", "val"])
    assert sorted(full.clip.tolist()) == list(range(24)) and set(both.clip.tolist()) == set(range(24))
    for name, arguments in (("no split fold1", ("fold1",)), ("view must be one of", ("train", "half"))):
        with pytest.raises(UsageError, match=name):
            opened.view(*arguments)


def test_what_is_no_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_set(tmp_path / "none")
    with pytest.raises(UsageError, match="is no shard set"):
        open_set(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UsageError, match="is not the manifest of a shard set"):
        open_set(tmp_path)


def edited(found: dict) -> Callable[[Path], None]:
    return lambda folder: (folder / "manifest.json").write_text(json.dumps(found))


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def other_index(folder: Path) -> None:
    shutil.copy(folder / "train-full-0001.index", folder / "train-full-0000.index")


def stale_index(folder: Path) -> None:
    """One that points at other samples, but is whole."""
    from shardwave.shards.format import index

    found = index.read(folder / "train-full-0000.index")
    stale = Index(found.tar_bytes, "0" * 64, found.cls, found.clip, found.offset, found.length)
    (folder / "train-full-0000.index").write_bytes(stale.to_bytes())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            lambda folder: os.truncate(folder / "train-full-0001.tar", 5000),
            "train-full-0001.tar: the shard is truncated",
        ),
        (
            lambda folder: (folder / "train-full-0001.tar").unlink(),
            "train-full-0001.tar: the shard is missing",
        ),
        (
            lambda folder: (folder / "train-full-0001.index").unlink(),
            "train-full-0001.index: the shard's index cannot be read",
        ),
        (
            lambda folder: flipped(folder / "train-full-0001.index", 300),
            "train-full-0001.index: the index is damaged",
        ),
        (other_index, "train-full-0000.tar: the index is stale"),
        (stale_index, "train-full-0000.tar: the index is stale"),
    ],
)
def test_damage_is_found_when_it_is_opened(
    built: Path, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    shutil.copytree(built, tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(ShardwaveError) as caught:
        open_set(tmp_path / "set").view("train")
    assert told in str(caught.value)


def test_manifests_that_do_not_fit_are_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "set")
    found = json.loads((built / "manifest.json").read_text())
    config = {**found["config"], "image_size": 64}
    entry, fields = found["splits"]["train"]["full"][0], found["fields"]
    for change, told in (
        ({"format": "shardwave-9"}, "reads format shardwave-2, the set has shardwave-9"),
        (
            {"config": config},
            f"it is {found['fingerprint']}, the configuration gives {manifest.fingerprint(config)}",
        ),
        ({"fingerprint": "0" * 16}, "it is 0000000000000000"),
        ({"set_id": "0" * 16}, f"it is 0000000000000000, they give {found['set_id']}"),
        (
            {"classes": found["classes"][::-1]},
            f"the set id does not fit the listed shards and classes (it is {found['set_id']}",
        ),
        (
            {"splits": {"train": {"full": [{**entry, "file": "../../train-full-0000.tar"}]}}},
            "is not a shard's name",
        ),
        ({"splits": {"../x": {"full": []}}}, "is damaged"),
        ({"splits": {"../x": {"full": [entry]}}}, "unknown split"),
        (
            {"splits": {"train": {"full": [{**entry, "samples": -1}]}}},
            "full[0].samples must be greater than or equal to 0",
        ),
        ({"splits": {"train": {"full": [{**entry, "blake3": "0"}]}}}, "blake3 must match pattern"),
        ({"splits": {"train": {"full": [entry, entry]}}}, "names train-full-0000.tar twice"),
        (
            {"splits": {"train": {"full": [{"file": "train-full-0000.tar"}]}}},
            "lacks the field splits.train.full[0].samples",
        ),
        ({"splits": {"train": ["train-full-0000.tar"]}}, "is damaged"),
        # What is not there must not be reserved: a view of 10**9 samples took 3.7 GB before an index was read
        ({"splits": {"train": {"full": [{**entry, "samples": 10**9}]}}}, "cannot hold 1000000000 samples"),
        ({"splits": {"train": {"full": [{**entry, "bytes": 2**42}]}}}, "bytes must be less than or equal to"),
        ({"fields": {**fields, "npy": {"dtype": "object", "shape": [2]}}}, "field 'npy' cannot be"),
        ({"fields": {**fields, "npy": {"dtype": "json", "shape": [2]}}}, "field 'npy' cannot be"),
        ({"fields": {**fields, "npy": {"dtype": "uint8", "shape": [2**20, 2**22]}}}, "field 'npy' cannot be"),
        (
            {"fields": {**fields, "npy": {"dtype": "uint8", "shape": [-2]}}},
            "npy.shape[0] must be greater than or equal to 0",
        ),
        ({"fields": {**fields, "../npy": {"dtype": "uint8", "shape": [2]}}}, "field '../npy' cannot be"),
        ({"fields": {**fields, "cls": {"dtype": "uint8", "shape": []}}}, "field cls cannot be"),
        ({"fields": {"npy": fields["npy"], "json": fields["json"]}}, "lacks the field cls"),
        ({"classes": ["a", "a"]}, "a class is named twice"),
    ):
        edited({**found, **change})(tmp_path / "set")
        with pytest.raises(ShardwaveError) as caught:
            open_set(tmp_path / "set")
        assert told in str(caught.value)
    (tmp_path / "set" / "manifest.json").write_text("{")
    with pytest.raises(ShardwaveError, match="not JSON"):
        open_set(tmp_path / "set")


def test_a_field_that_does_not_fit_its_index_is_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "set")
    found = json.loads((built / "manifest.json").read_text())
    found["fields"]["npy"]["shape"] = [16, 32]
    edited(found)(tmp_path / "set")
    with pytest.raises(ShardwaveError, match="the index does not fit the field npy"):
        open_set(tmp_path / "set").view("train")


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("cls", 3, "names class 3, the set has 3 classes"),
        ("cls", 2**62, "names class 4611686018427387904"),
        ("cls", -2, "names class -2"),
        ("clip", -1, "names clip -1"),
        ("offset", 512 + 64, "the index points outside its tar"),
        ("offset", 2**62, "the index points outside its tar"),
    ],
)
def test_what_compiled_code_would_use_unchecked_is_checked(
    built: Path, tmp_path: Path, column: str, value: int, told: str
) -> None:
    """A class is an index into weights, an offset an address: out of range they write and read anywhere."""
    from shardwave.shards.format import index

    shutil.copytree(built, tmp_path / "set")
    path = tmp_path / "set" / "train-full-0000.index"
    found = index.read(path)
    columns = {"cls": found.cls.copy(), "clip": found.clip.copy()}
    offset = {name: places.copy() for name, places in found.offset.items()}
    (offset["npy"] if column == "offset" else columns[column])[1] = value
    made = Index(found.tar_bytes, found.tar_blake3, columns["cls"], columns["clip"], offset, found.length)
    path.write_bytes(made.to_bytes())
    with pytest.raises(ShardwaveError, match=f"train-full-0000.(tar|index): .*{told}"):
        open_set(tmp_path / "set").view("train")


def test_an_index_of_the_wrong_size_is_not_read(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "set")
    os.truncate(
        tmp_path / "set" / "train-full-0000.index", 1 << 40
    )  # a hole: reading it would take a terabyte of memory
    with pytest.raises(
        ShardwaveError, match="train-full-0000.index: .*1099511627776 bytes, where the manifest"
    ):
        open_set(tmp_path / "set").view("train")
    (tmp_path / "set" / "train-full-0000.index").unlink()
    os.mkfifo(tmp_path / "set" / "train-full-0000.index")
    with pytest.raises(ShardwaveError, match="train-full-0000.index"):
        open_set(tmp_path / "set").view("train")


def replaced(path: Path) -> None:
    """Another file with the same bytes and times takes its place."""
    status, data = path.stat(), path.read_bytes()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewritten(path: Path) -> None:
    data = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(data)


@pytest.mark.parametrize("change", [replaced, rewritten])
@pytest.mark.parametrize("mapped", [True, False])
def test_shards_that_are_replaced_while_they_are_read_are_named(
    built: Path, tmp_path: Path, change: Callable[[Path], None], mapped: bool
) -> None:
    from shardwave.shards.read.loader import Loader

    shutil.copytree(built, tmp_path / "set")
    view = open_set(tmp_path / "set").view("train")
    loader = Loader(view, 4, shuffle=False)
    if mapped:
        assert len(list(loader)) > 1 and len(list(loader)) > 1  # nothing changed: epoch after epoch
    change(tmp_path / "set" / "train-full-0001.tar")
    with pytest.raises(
        ShardwaveError, match="train-full-0001.tar: the shard was replaced or changed while the set was open"
    ):
        next(iter(loader))
    with (
        pytest.raises(ShardwaveError, match="train-full-0001.tar: the shard was replaced")
        if not mapped
        else contextlib.nullcontext()
    ):
        view.gather(range(len(view)))


def test_threads_map_every_shard_once(built: Path) -> None:
    opened = open_set(built)
    expected = opened.view("train", "slice").gather(np.arange(54))["npy"]
    for _ in range(20):
        view = opened.view("train", "slice")
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda i, view=view: view.gather([i, 53 - i])["npy"], range(54)))
        assert all((part == expected[[i, 53 - i]]).all() for i, part in enumerate(parts))


def test_views_pass_to_other_processes(view: View, array: np.ndarray) -> None:
    view.gather([3])
    other = pickle.loads(pickle.dumps(view))
    assert (other.gather([5, 4])["npy"] == array[[5, 4]]).all() and (other.clip == view.clip).all()


def test_the_configuration_comes_back(built: Path, view: View) -> None:
    assert open_set(built).config == CONFIG
    assert view.set.config is None


MEMORY = """
import sys
import numpy as np
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet
view = open_set(sys.argv[1]).view("train")
out = {"npy": np.empty((10, *view.gather([0])["npy"].shape[1:]), np.uint8)}
def private():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0])
view.gather(np.arange(10), out=out)
before = private()
for start in range(0, len(view), 10):
    view.gather(np.arange(start, start + 10), out=out)
print(private() - before)
"""


def test_memory_is_bounded_by_the_batch(tmp_path: Path) -> None:
    write_images(tmp_path / "set", images(300, (256, 256)), per_shard=50)  # 20 MB
    grown = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "set"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert int(grown.stdout) < 2_000  # kB


def fake_set(folder: Path, shards: int, samples: int) -> None:
    """A set with indexes as of so many samples, whose tars are holes."""
    folder.mkdir()
    entries = []
    for number in range(shards):
        start = 512 + 265_728 * np.arange(samples)
        offset = {"npy": start, "cls": start + 263_168, "json": start + 264_192}
        length = {
            "npy": np.full(samples, 128 + 512 * 512),
            "cls": np.ones(samples, np.int64),
            "json": np.full(samples, 200),
        }
        size = 265_728 * samples + 1024
        found = Index(
            size,
            f"{number:064x}",
            np.arange(samples) % 10,
            number * samples + np.arange(samples),
            offset,
            length,
        )
        name = f"train-full-{number:04d}"
        (folder / f"{name}.index").write_bytes(found.to_bytes())
        with open(folder / f"{name}.tar", "wb") as file:
            file.truncate(size)
        sums = {name: f"{number:064x}" for name in ("blake3", "index_blake3", "idx_blake3")}
        entries.append({"file": f"{name}.tar", "samples": samples, "bytes": size, **sums})
    about = {
        "format": manifest.FORMAT,
        "config": {"test": 1},
        "fingerprint": manifest.fingerprint({"test": 1}),
        "engine": None,
        "device": None,
    }
    fields = {
        "npy": {"dtype": "uint8", "shape": [512, 512]},
        "cls": {"dtype": "int64", "shape": []},
        "json": {"dtype": "json", "shape": []},
    }
    names = ("seed", "clips", "audio_seconds", "quarantined", "remarks")
    counts = {
        **dict.fromkeys(names, 0),
        "classes": list("abcdefghij"),
        "feature_names": [],
        "environment": environment(),
    }
    made = {**about, **counts, "fields": fields, "splits": {"train": {"full": entries}}}
    (folder / "manifest.json").write_text(json.dumps({**made, "set_id": manifest.set_id(made)}))


def test_a_hundred_thousand_samples_open_in_under_a_tenth_of_a_second(tmp_path: Path) -> None:
    fake_set(tmp_path / "set", 100, 1000)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert len(open_set(tmp_path / "set").view("train")) == 100_000
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1, times
