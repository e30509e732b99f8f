"""Sets at URLs: fetched once per machine, checked, kept within a limit, and then as any local set."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.format.manifest import set_id
from shardwave.shards.format.verify import verify
from shardwave.shards.read.cache import CachedSet
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet
from tests.shards.server import serve

ROOT = Path(__file__).parents[3]
READ = """
import hashlib, sys
import numpy as np
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet
view = open_set(sys.argv[1]).view("train", "slice")
print(hashlib.sha256(view.gather(np.arange(len(view)))["npy"].tobytes()).hexdigest(), flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHARDWAVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def reader(url: str, **environment: str) -> subprocess.Popen[str]:
    """Another process, which reads the training slices of the set and prints their hash."""
    env = {**os.environ, **environment}
    return subprocess.Popen(
        [sys.executable, "-c", READ, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=env,
    )


def told(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.strip()


def images(opened: ShardSet, split: str = "train", view: str = "slice") -> np.ndarray:
    found = opened.view(split, view)
    return found.gather(np.arange(len(found)))["npy"]


def fetched(folder: Path, suffix: str = ".tar") -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.endswith(suffix)}


def test_a_set_at_a_url_reads_as_a_local_one(built: Path, cache: Path) -> None:
    local = open_set(built)
    with serve(built) as server:
        opened = open_set(server.url + "/")
        assert (
            opened.location == server.url
            and opened.path.parent == cache
            and opened.fingerprint == local.fingerprint
        )
        view, same = opened.view("train", "slice"), local.view("train", "slice")
        assert not fetched(opened.path)  # indexes alone
        assert (view.cls == same.cls).all() and (view.clip == same.clip).all()
        assert view.key(0) == same.key(0) and view.meta(0) == same.meta(0)
        assert len(fetched(opened.path)) == 1  # and then the shard that was asked for
        assert (images(opened) == images(local)).all()
        assert fetched(opened.path) == {path.name for path in built.glob("train-slice-*.tar")}
        opened.view("val").check_files()
        assert len(fetched(opened.path)) == len(list(built.glob("train-slice-*.tar"))) + len(
            list(built.glob("val-full-*.tar"))
        )
        assert (
            verify(open_set(server.url))["samples"] == verify(open_set(built))["samples"]
        )  # needs all of it
        again = open_set(server.url)
        assert (images(again, "val") == images(local, "val")).all()
        assert server.requests.pop("manifest.json") == 3  # each opening sees whether the set has changed
        assert set(server.requests.values()) == {1}
    assert not [path.name for path in opened.path.iterdir() if path.name.endswith(".tmp")]


def test_file_urls(built: Path, tmp_path: Path) -> None:
    assert (images(open_set(f"file://{built}")) == images(open_set(built))).all()
    with pytest.raises(ShardwaveError, match="file://.*/none/manifest.json: No such file"):
        open_set(f"file://{tmp_path}/none")


def test_processes_that_start_together_fetch_each_file_once(built: Path) -> None:
    with serve(built) as server:
        processes = [reader(server.url) for _ in range(4)]
        assert len({told(process) for process in processes}) == 1
        assert server.requests.pop("manifest.json") == 4
        assert set(server.requests.values()) == {1} and fetched(built, ".tar") & set(server.requests)


@pytest.mark.parametrize("trouble", ["503", "cut", "wrong"])
def test_trouble_on_the_way_is_mended(built: Path, trouble: str) -> None:
    names = [
        "train-slice-0000.tar",
        "train-slice-0001.index",
        *(() if trouble == "wrong" else ("manifest.json",)),
    ]
    with serve(built, {(name, 1): trouble for name in names}) as server:
        assert (images(open_set(server.url)) == images(open_set(built))).all()
        assert [server.requests[name] for name in names] == [2] * len(names)


@pytest.mark.parametrize("name", ["train-slice-0000.tar", "train-slice-0000.index", "manifest.json"])
def test_more_than_the_manifest_allows_for_is_not_fetched(
    built: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server could fill the disk, or the memory."""
    shutil.copytree(built, tmp_path / "set")
    monkeypatch.setattr("shardwave.shards.storage.remote.LARGEST", 1 << 20)
    with open(tmp_path / "set" / name, "ab") as file:
        file.write(b" " * (2 << 20))
    with (
        serve(tmp_path / "set") as server,
        pytest.raises(ShardwaveError, match=f"{name}: (more than|larger than)"),
    ):
        images(open_set(server.url))


def test_wrong_bytes_are_never_used(built: Path, cache: Path) -> None:
    name = "train-slice-0001.tar"
    with serve(built, {(name, number): "wrong" for number in (1, 2)}) as server:
        opened = open_set(server.url)
        with pytest.raises(
            ShardwaveError, match=f"{name}: fetched twice, the BLAKE3 digest differs from the manifest"
        ):
            opened.view("train", "slice").check_files()
        assert name not in fetched(opened.path) and not list(cache.rglob("*.tmp"))
        assert (images(opened) == images(open_set(built))).all()  # the third time it is right
        os.truncate(opened.path / name, 5000)  # and what was damaged here is fetched anew
        assert (images(open_set(server.url)) == images(open_set(built))).all()


def test_a_process_killed_while_it_fetched_is_no_hindrance(built: Path, cache: Path) -> None:
    names = sorted(path.name for path in built.glob("train-slice-*.tar"))
    with serve(built, {(names[-1], 1): "hang"}) as server:
        process = reader(server.url)
        until = time.monotonic() + 60
        while not (server.requests[names[-1]] and all(list(cache.rglob(name)) for name in names[:-1])):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        waiting = reader(server.url)  # for the one that hangs
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert told(waiting) == told(reader(server.url))
        assert server.requests[names[-1]] == 2 and {server.requests[name] for name in names[:-1]} == {1}


def test_a_set_that_was_replaced_is_noticed(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "served")
    with serve(tmp_path / "served") as server:
        before = open_set(server.url)
        images(before)
        found = json.loads((built / "manifest.json").read_text())
        found["splits"]["val"]["slice"].pop()
        (tmp_path / "served" / "manifest.json").write_text(json.dumps({**found, "set_id": set_id(found)}))
        after = open_set(server.url)
        assert after.path != before.path and len(after.view("val", "slice")) < len(
            before.view("val", "slice")
        )


def test_views_pass_to_another_machine(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(built) as server:
        sent = pickle.dumps(open_set(server.url).view("train"))
        monkeypatch.setenv("SHARDWAVE_CACHE", str(tmp_path / "elsewhere"))
        view = pickle.loads(sent)
        assert view.set.path.parent == tmp_path / "elsewhere"
        assert (view.gather([1, 0])["npy"] == open_set(built).view("train").gather([1, 0])["npy"]).all()


def test_the_limit_evicts_what_was_used_longest_ago_and_is_not_in_use(
    built: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in built.iterdir())
    urls = []
    for name in ("a", "b", "c", "d"):
        shutil.copytree(built, tmp_path / "served" / name)
        urls.append(f"file://{tmp_path}/served/{name}")
    monkeypatch.setenv("SHARDWAVE_CACHE_GB", str(2.2 * size / 1e9))

    def fill(url: str) -> CachedSet:
        opened = CachedSet(url)
        opened.ensure_all_local()
        return opened

    def kept() -> list[str]:
        return sorted(path.name[0] for path in cache.iterdir() if path.is_dir())

    cache.mkdir()
    (cache / "mine").mkdir()  # somebody else's: never touched
    (cache / "mine" / "thesis.txt").write_text("all of it")
    first, second = fill(urls[0]), fill(urls[1])
    with pytest.raises(ShardwaveError, match="more do not fit into the cache .* raise SHARDWAVE_CACHE_GB"):
        fill(urls[2])  # both others are in use
    assert kept() == ["a", "b", "c", "m"]
    derived = second.path.with_name(f"{second.path.name}.vgg16-0")
    derived.mkdir()
    del first, second
    fill(urls[1])  # opened again: now the first was used longest ago
    held = fill(urls[2])
    assert kept() == ["b", "b", "c", "m"]
    process = reader(
        urls[3], SHARDWAVE_CACHE_GB=str(2.2 * size / 1e9)
    )  # another process: b goes, with what was derived from it
    told(process)
    assert kept() == ["c", "d", "m"] and (cache / "mine" / "thesis.txt").read_text() == "all of it"
    assert (images(held) == images(open_set(built))).all()
    monkeypatch.setenv("SHARDWAVE_CACHE_GB", "much")
    with pytest.raises(UsageError, match="SHARDWAVE_CACHE_GB must be a number above 0, got much"):
        fill(urls[0])


def test_a_cache_that_cannot_be_written_is_named(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHARDWAVE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ShardwaveError, match="the cache .* cannot be written"):
        open_set(f"file://{built}")
