"""Sets and audio in an object store: a local S3 server behind a proxy that refuses and cuts requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.build import executors, lock, plan, survey
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.format.layout import LOCK
from shardwave.shards.sources import discover
from shardwave.shards.storage import any_path, scratch
from shardwave.shards.storage.any_path import as_path
from tests.shards import s3
from tests.shards.build.test_builder import digests
from tests.shards.conftest import CONFIG, RATE, labelled, write_clip


@pytest.fixture(scope="module")
def proxy() -> Iterator[s3.Proxy]:
    with s3.moto() as port, s3.proxied(port) as server, s3.environment(server.url):
        yield server


@pytest.fixture(autouse=True)
def no_trouble(proxy: s3.Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reset the proxy after a test, and check that builds leave no temporary files in the test's folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    proxy.trouble = lambda method, path, n: None
    assert not list((tmp_path / "tmp").iterdir())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, proxy: s3.Proxy) -> tuple[Path, str]:
    """A folder of 16 clips in two folds, one of them no audio, and the same folder in the store."""
    folder = tmp_path_factory.mktemp("clips") / "audio"
    for i in range(16):
        write_clip(folder / f"class {i % 2}" / f"{i:02d}.wav", i)
    (folder / "class 0" / "06.wav").write_bytes(b"no audio")
    (folder / "labels.csv").write_text(
        "path,label,fold\n" + "".join(f"class {i % 2}/{i:02d}.wav,{i % 2},{i // 2 % 2}\n" for i in range(16))
    )
    url = s3.bucket("clips") + "/some audio"
    s3.upload(folder, url)
    return folder, url


@pytest.fixture(scope="module")
def whole(clips: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set as it is built on a disk."""
    out = tmp_path_factory.mktemp("full") / "set"
    build(clips[0], out, CONFIG, options())
    return out


def options(**changed: object) -> BuildOptions:
    """Two folds of four shards per view."""
    return BuildOptions(
        **{"workers": 1, "min_shards": 4, "engine": "reference", "max_bad_fraction": 0.1, **changed}
    )  # type: ignore[arg-type]


def check_same(url: str, whole: Path, tmp_path: Path) -> None:
    """Check that the sets at `url` and on disk have equal shards, and manifests equal but for the date."""
    names = set(s3.objects(url))
    assert names == {path.name for path in whole.iterdir() if not path.name.startswith(".")}
    s3.store().get(url.removeprefix("s3://"), str(tmp_path / "fetched"), recursive=True)
    assert digests(tmp_path / "fetched") == digests(whole)
    assert (tmp_path / "fetched" / "quarantine.jsonl").read_bytes() == (
        whole / "quarantine.jsonl"
    ).read_bytes()
    one, other = (
        json.loads((folder / "manifest.json").read_text()) for folder in (tmp_path / "fetched", whole)
    )
    assert one["environment"].pop("date") and other["environment"].pop("date")
    assert one == other


def test_audio_and_set_in_a_store(
    clips: tuple[Path, str], whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = s3.bucket("full") + "/a/set"
    build(clips[1], out, CONFIG, options())
    check_same(out, whole, tmp_path)
    before = s3.objects(out)
    assert build(clips[1], out, CONFIG, options()) == json.loads(
        (tmp_path / "fetched" / "manifest.json").read_text()
    )
    assert "is finished already: nothing to do" in capfd.readouterr().err and s3.objects(out) == before
    with pytest.raises(UsageError, match=f"{out} was built from other inputs or options: seed 0 -> 5"):
        build(clips[1], out, CONFIG, options(seed=5))
    build(clips[1], out, CONFIG, options(seed=5, overwrite=True))
    assert json.loads(s3.store().cat(f"{out}/manifest.json"))["seed"] == 5


def test_one_of_them_on_a_disk(clips: tuple[Path, str], whole: Path, tmp_path: Path) -> None:
    build(clips[1], tmp_path / "set", CONFIG, options(labels=f"{clips[1]}/labels.csv"))
    assert digests(tmp_path / "set") == digests(whole)
    out = s3.bucket("half") + "/set"
    build(clips[0].as_uri(), out, CONFIG, options(labels=clips[0] / "labels.csv"))
    check_same(out, whole, tmp_path)


@pytest.mark.slow
def test_503_and_cut_transfers(clips: tuple[Path, str], whole: Path, proxy: s3.Proxy, tmp_path: Path) -> None:
    """Every fifth request is answered by 503, every seventh is cut.

    One shard and one record are refused more often than s3fs retries.
    """
    out = s3.bucket("trouble") + "/set"
    count = 0

    def trouble(method: str, path: str, n: int) -> str | None:
        nonlocal count
        count += 1
        if method == "PUT" and path.endswith(("fold1-slice-0002.tar", "fold0-0001.json")) and n <= 7:
            return "503"
        return "503" if count % 5 == 0 else "cut" if count % 7 == 0 and method in ("GET", "PUT") else None

    proxy.trouble = trouble
    build(clips[1], out, CONFIG, options())
    proxy.trouble = lambda method, path, n: None
    assert proxy.troubles["503"] > 20 and proxy.troubles["cut"] > 10
    check_same(out, whole, tmp_path)


@pytest.mark.slow
def test_a_store_that_goes_on_failing(
    clips: tuple[Path, str], proxy: s3.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwave.shards.storage.retry.PAUSE", 0.001)
    out = s3.bucket("refusing") + "/set"
    proxy.trouble = lambda method, path, n: (
        "cut" if path.startswith("/refusing") and method == "PUT" else None
    )
    with pytest.raises(ShardwaveError, match=rf"{out}/\S+: given up after 8 retries"):
        build(clips[1], out, CONFIG, options())
    with pytest.raises(ShardwaveError, match="cannot be written: check that the bucket exists"):
        build(clips[1], "s3://no-such-bucket/set", CONFIG, options())
    with pytest.raises(UsageError, match="AUDIO must be a folder, got s3://clips/none: it does not exist"):
        build("s3://clips/none", out, CONFIG, options())
    with pytest.raises(UsageError, match="scheme must be one of .*, got nonsense"):
        build("nonsense://clips/none", out, CONFIG, options())
    with pytest.raises(UsageError, match="--out s3://clips/some audio holds something else"):
        build(clips[1], clips[1], CONFIG, options())


PROGRAM = """
import sys
from shardwave.shards.build.builder import build
from tests.shards.conftest import CONFIG
from tests.shards.build.test_url_build import options

if __name__ == "__main__":
    build(sys.argv[1], sys.argv[2], CONFIG, options())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_is_finished(
    clips: tuple[Path, str], whole: Path, proxy: s3.Proxy, tmp_path: Path, how: signal.Signals
) -> None:
    out = s3.bucket(f"killed{int(how)}") + "/set"
    (tmp_path / "program.py").write_text(PROGRAM)
    proxy.trouble = lambda method, path, n: time.sleep(0.05)  # so that it is caught half way
    program = [sys.executable, tmp_path / "program.py", clips[1], out]
    root = {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(program, env={**os.environ, **root}, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(done := [name for name in s3.objects(out) if name.endswith(".json")]) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(timeout=120)
    before = s3.objects(out)
    assert "manifest.json" not in before and (LOCK in before) == (how == signal.SIGKILL)
    proxy.trouble = lambda method, path, n: None
    if how == signal.SIGKILL:
        with pytest.raises(ShardwaveError, match="another build is writing into .* give --break-lock"):
            build(clips[1], out, CONFIG, options())
    build(clips[1], out, CONFIG, options(break_lock=how == signal.SIGKILL))
    tasks = [name.rsplit("/", 1)[-1].removesuffix(".json").split("-") for name in done]
    kept = [f"{split}-{view}-{number}.tar" for split, number in tasks for view in ("full", "slice")]
    after = s3.objects(out)
    assert kept and {name: after[name] for name in kept} == {name: before[name] for name in kept}
    check_same(out, whole, tmp_path)
    scratch.remove_stale()  # what the killed workers left goes with the next build on this machine


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_done_shards_are_checked_before_they_are_kept(
    clips: tuple[Path, str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    out = s3.bucket(damage) + "/set"
    with monkeypatch.context() as patch, pytest.raises(ShardwaveError, match="cut off"):
        patch.setattr("shardwave.shards.build.finish.finish", cut_off)
        build(clips[1], out, CONFIG, options())
    if damage == "missing":
        s3.store().rm_file(f"{out}/fold1-slice-0003.idx")
    else:
        s3.store().pipe_file(f"{out}/fold1-slice-0003.idx", b"other")
    build(clips[1], out, CONFIG, options())
    check_same(out, whole, tmp_path)


def cut_off(*_: object, **__: object) -> None:
    raise ShardwaveError("cut off")


def test_a_shard_that_changes_behind_the_build(
    clips: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = s3.bucket("behind") + "/set"
    run = executors.LocalExecutor.run

    def and_then_change(*arguments: object) -> object:
        records = run(*arguments)  # type: ignore[arg-type]
        s3.store().pipe_file(f"{out}/fold0-full-0001.tar", b"of another build")
        return records

    with (
        monkeypatch.context() as patch,
        pytest.raises(ShardwaveError, match=r"fold0-full-0001\.tar is not the file that a worker wrote"),
    ):
        patch.setattr(executors.LocalExecutor, "run", and_then_change)
        build(clips[1], out, CONFIG, options())
    assert "manifest.json" not in s3.objects(out)


def test_one_build_at_a_time() -> None:
    folder = as_path(s3.bucket("lock") + "/set")
    assert isinstance(folder, UPath)
    refused = pytest.raises(
        ShardwaveError, match=rf"another build is writing into {folder} \(process {os.getpid()} on"
    )
    with lock.hold(folder), refused, lock.hold(folder):
        pass
    assert not any_path.exists(folder / LOCK)
    any_path.write(folder / LOCK, b"process 7 on elsewhere, 0123")
    with pytest.raises(
        ShardwaveError, match=r"\(process 7 on elsewhere\).*; if it was killed, give --break-lock"
    ):
        lock.hold(folder).__enter__()
    with lock.hold(folder, break_lock=True):
        assert b"process %d on" % os.getpid() in any_path.read_bytes(folder / LOCK)
    assert not any_path.exists(folder / LOCK)


def test_what_a_store_tells(clips: tuple[Path, str], tmp_path: Path, proxy: s3.Proxy) -> None:
    folder, url = clips
    there = as_path(url)
    assert isinstance(there, UPath)
    assert discover(there) == discover(folder)
    assert any_path.is_dir(there) and any_path.exists(there) and not any_path.exists(there / "no")
    assert any_path.stat(there) is None
    clip = there / "class 1" / "01.wav"
    assert (
        any_path.is_dir(there / "class 1")
        and any_path.stat(clip) == any_path.list_files(there)["class 1/01.wav"]
    )
    assert sorted(any_path.names(there)) == ["class 0", "class 1", "labels.csv"] and not any_path.names(
        there / "no"
    )
    assert (
        as_path("file:///a%20b/c") == Path("/a b/c")
        and as_path(tmp_path) == tmp_path
        and str(as_path(url)) == url
    )
    data = (folder / "class 1" / "01.wav").read_bytes()
    assert any_path.read_many(there, ["class 1/01.wav", "no"]) == [data, None]
    file = any_path.ObjectFile(clip)
    assert file.seek(-10, 2) == len(data) - 10 and file.read(20) == data[-10:]
    assert file.seek(16_380) == 16_380 and file.read(8) == data[16_380:16_388] or len(data) < 16_388
    big = tmp_path / "big"
    big.write_bytes(os.urandom(1 << 20) * 110)  # goes up in parts
    stored = as_path(s3.bucket("parts")) / "big"
    assert any_path.write(stored, big).size == 110 << 20  # type: ignore[arg-type]
    with pytest.raises(FileExistsError):
        any_path.write(stored, b"x", new=True)  # type: ignore[arg-type]
    any_path.remove(stored.parent, ["big", "no"])
    assert any_path.names(stored.parent) == []
    big.unlink()


def test_plans_do_not_depend_on_where_the_audio_lies(
    clips: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    folder, url = tmp_path / "lengths", s3.bucket("lengths")
    for i in range(6):
        write_clip(folder / "a" / f"{i}.wav", i, seconds=0.3 + 0.37 * i)
    labelled(folder, [])
    s3.upload(folder, url)
    config = dataclasses.replace(CONFIG, slices=0, slice_seconds=0.25, sample_rate=RATE)
    named = {"seed": 0, "min_shards": 3, "shard_mb": 256.0}
    made = [
        plan.make(discover(audio), ["a"], ["train"] * 6, audio, config, named)
        for audio in (folder, as_path(url))
    ]
    assert [(clip.clip, clip.shard, clip.rank, clip.bytes) for clip in made[0].clips] == [
        (clip.clip, clip.shard, clip.rank, clip.bytes) for clip in made[1].clips
    ]
    assert not plan.changes(made[1], made[1], as_path(url), {})
    ours, theirs = (survey.read(audio, discover(audio)) for audio in (folder, as_path(url)))
    assert ours.headers == theirs.headers and ours.seconds == pytest.approx(
        [0.3 + 0.37 * i for i in range(6)], abs=1e-3
    )
    monkeypatch.setattr(survey, "MAX_REMOTE_HEADERS", 3)
    assert survey.read(as_path(url), discover(folder)).rows.tolist() == [0, 2, 5]
