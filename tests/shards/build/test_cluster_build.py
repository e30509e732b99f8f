"""Builds with the command line on three Ray nodes of this machine; nodes and drivers are killed meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.format.layout import BUILD, LOCK
from tests.shards import s3
from tests.shards.build.test_builder import digests
from tests.shards.conftest import CONFIG, write_clip
from tests.shards.nodes import SETTINGS, Node, cluster, wait_for

ROOT = Path(__file__).parents[3]
SHAPE = {
    "sample-rate": 8000,
    "n-fft": 256,
    "hop-length": 128,
    "image-size": 32,
    "slices": 3,
    "engine": "reference",
    "min-shards": 12,
}
OPTIONS = [f"--{name}={value}" for name, value in SHAPE.items()]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The URL of an S3 server."""
    with s3.moto() as port, s3.environment(f"http://127.0.0.1:{port}"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def nodes(store: str) -> Iterator[list[Node]]:
    """Three nodes, which have the store's credentials."""
    with cluster({**s3.CREDENTIALS, "AWS_ENDPOINT_URL": store}) as started:
        yield started


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips in two folds, long enough for a build to be caught in the middle."""
    folder = tmp_path_factory.mktemp("clips") / "audio"
    for i in range(48):
        write_clip(folder / f"class {i % 2}" / f"{i:02d}.wav", i, seconds=30)
    rows = [f"class {i % 2}/{i:02d}.wav,{'ab'[i % 2]},{i // 2 % 2}" for i in range(48)]
    (folder / "labels.csv").write_text("\n".join(["path,label,fold", *rows]))
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set as one machine makes it."""
    out = tmp_path_factory.mktemp("full") / "set"
    build(clips, out, CONFIG, BuildOptions(workers=2, min_shards=12, engine="reference"))
    return out


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """Commands that a test has not waited for end with it."""
    yield
    while started:
        process = started.pop()
        process.kill()
        process.communicate()


def start(audio: Path | str, out: Path | str, address: str, *more: str) -> subprocess.Popen[str]:
    """The command, on its way; its standard error is kept."""
    command = [
        sys.executable,
        ROOT / "cli.py",
        "shard",
        audio,
        "--out",
        out,
        "--address",
        address,
        *OPTIONS,
        *more,
    ]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    return started[-1]


def ended(process: subprocess.Popen[str]) -> str:
    """What the command said, once it has ended well."""
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return told


def records(out: Path) -> list[Path]:
    return sorted((out / BUILD).glob("*-*.json"))


def check_same(out: Path, whole: Path) -> None:
    """The same shards, and a manifest that differs in its date alone; nothing beside them."""
    assert digests(out) == digests(whole)
    one, other = (json.loads((folder / "manifest.json").read_text()) for folder in (out, whole))
    assert one["environment"].pop("date") and other["environment"].pop("date")
    assert one == other
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [LOCK]


@pytest.mark.slow
def test_three_nodes_give_the_bytes_of_one(
    clips: Path, whole: Path, nodes: list[Node], tmp_path: Path
) -> None:
    process = start(clips, tmp_path / "set", nodes[0].address)
    wait_for(
        lambda: all(node.workers() for node in nodes) or process.poll() is not None, "a task on every node"
    )
    assert process.poll() is None, process.communicate()
    assert "48 clips, 24 shards per view, engine reference on cpu, 3 workers" in ended(process)
    check_same(tmp_path / "set", whole)
    wait_for(lambda: not any(node.workers() for node in nodes), "the tasks' end")
    assert "is finished already: nothing to do" in ended(start(clips, tmp_path / "set", nodes[0].address))


@pytest.mark.slow
def test_a_node_killed_half_way(clips: Path, whole: Path, nodes: list[Node], tmp_path: Path) -> None:
    """What it had in hand is built again on the others, and only that."""
    out, address = tmp_path / "set", nodes[0].address
    folder = nodes[0].folder.parent / "victim"
    victim = Node(folder, {**os.environ, **SETTINGS}, address)
    try:
        victim.wait()

        def at_work() -> bool:
            half = {path.name.rsplit(".", 2)[1] for path in out.glob(".*.tmp")}
            return bool(half & {str(pid) for pid in victim.workers()}) and len(records(out)) >= 2

        for _ in range(3):  # a node that has just joined may come too late to have anything in hand
            process = start(clips, out, address, "--workers", "4")
            wait_for(
                lambda running=process: at_work() or running.poll() is not None, "the fourth node at work"
            )
            if process.poll() is None:
                break
            ended(process)
            shutil.rmtree(out)
        assert process.poll() is None, "the other nodes did all the work, three times"
    finally:
        victim.kill()
    before = records(out)
    kept = {
        path: path.stat().st_mtime_ns
        for record in before
        for path in out.glob(f"{record.stem.replace('-', '-*-')}.tar")
    }
    ended(process)
    assert 0 < len(before) < 24 and {path: path.stat().st_mtime_ns for path in kept} == kept
    check_same(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_killed_and_resumed(
    clips: Path, whole: Path, nodes: list[Node], tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "set"
    process = start(clips, out, nodes[0].address)
    wait_for(lambda: len(records(out)) >= 2 or process.poll() is not None, "two shards")
    process.send_signal(how)
    _, told = process.communicate(timeout=200)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), told
    wait_for(lambda: not any(node.workers() for node in nodes), "the tasks' end")
    done = [path.stem.replace("-", "-*-") for path in records(out)]
    kept = {path: path.stat().st_mtime_ns for stem in done for path in out.glob(f"{stem}.tar")}
    assert kept and len(done) < 24
    ended(start(clips, out, nodes[0].address))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    check_same(out, whole)


@pytest.mark.slow
def test_from_a_store_to_a_store(clips: Path, whole: Path, nodes: list[Node], tmp_path: Path) -> None:
    audio, out = s3.bucket("audio") + "/clips", s3.bucket("sets") + "/set"
    s3.upload(clips, audio)
    process = start(audio, out, nodes[0].address)
    wait_for(
        lambda: sum(name.endswith(".json") for name in s3.objects(out)) >= 2 or process.poll() is not None,
        "two shards",
    )
    process.kill()
    process.communicate(timeout=200)
    wait_for(lambda: not any(node.workers() for node in nodes), "the tasks' end")
    before = s3.objects(out)
    done = [
        name.rsplit("/", 1)[-1].removesuffix(".json").split("-") for name in before if name.endswith(".json")
    ]
    kept = [f"{split}-{view}-{number}.tar" for split, number in done for view in ("full", "slice")]
    assert "manifest.json" not in before and kept and len(done) < 24
    ended(start(audio, out, nodes[0].address, "--break-lock"))
    after = s3.objects(out)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}  # ETag and time
    s3.store().get(out.removeprefix("s3://"), str(tmp_path / "set"), recursive=True)
    (tmp_path / "set" / LOCK).touch()
    check_same(tmp_path / "set", whole)


@pytest.mark.slow
def test_folders_that_a_node_does_not_see(clips: Path, nodes: list[Node], tmp_path: Path) -> None:
    """One line says so: here the folder goes while the workers start."""
    copy = shutil.copytree(clips, tmp_path / "copy")
    process = start(copy, tmp_path / "set", nodes[0].address)
    wait_for(
        lambda: (tmp_path / "set" / BUILD / "plan.jsonl").exists() or process.poll() is not None, "the plan"
    )
    copy.rename(tmp_path / "elsewhere")
    _, told = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.search(
        r"error: the node \S+ does not see .+wav: AUDIO must lie on storage that all nodes share", told
    ), told


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        (
            "127.0.0.1:1",
            1,
            r"error: --address 127\.0\.0\.1:1: no Ray cluster answers there: Connection refused",
        ),
        ("nonsense", 2, "error: --address must be auto or HOST:PORT of a Ray cluster, got nonsense"),
        ("http://127.0.0.1:80", 2, "error: --address must be auto or HOST:PORT of a Ray cluster"),
    ],
)
def test_a_wrong_address_is_one_line(
    clips: Path, tmp_path: Path, address: str, status: int, told: str
) -> None:
    process = start(clips, tmp_path / "set", address)
    _, line = process.communicate(timeout=200)
    assert process.returncode == status and re.match(told, line) and line.count("\n") == 1
    assert not (tmp_path / "set").exists()
