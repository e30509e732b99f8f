"""Builds that are killed, run out of room or meet each other: real processes, real signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.shards.build import lock
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.format.layout import BUILD, LOCK
from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set
from tests.shards.build.test_builder import digests
from tests.shards.conftest import CONFIG, write_clip


def options(clips: Path, **changed: Any) -> BuildOptions:
    """Two folds of twelve shards per view."""
    return BuildOptions(
        **{"labels": clips / "labels.csv", "workers": 2, "min_shards": 12, "engine": "reference", **changed}
    )


PROGRAM = """
import sys
from pathlib import Path
from shardwave.common import log
from shardwave.common.errors import ShardwaveError
from shardwave.shards.build.builder import build
from tests.shards.conftest import CONFIG
from tests.shards.build.test_resume import options

if __name__ == "__main__":
    log.set_up()
    try:
        build(Path(sys.argv[1]), Path(sys.argv[2]), CONFIG, options(Path(sys.argv[1])))
    except ShardwaveError as error:
        sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips, long enough for a build to be caught in the middle."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(48):
        write_clip(folder / f"class {i % 2}" / f"{i:02d}.wav", i, seconds=6)
    rows = [f"class {i % 2}/{i:02d}.wav,{'ab'[i % 2]},{i // 2 % 2}" for i in range(48)]
    (folder / "labels.csv").write_text("\n".join(["path,label,fold", *rows]))
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set as an undisturbed build makes it."""
    out = tmp_path_factory.mktemp("full") / "set"
    build(clips, out, CONFIG, options(clips))
    return out


def start(clips: Path, out: Path, tmp_path: Path, **how: Any) -> subprocess.Popen[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, program, clips, out]
    return subprocess.Popen(command, env={**os.environ, **path}, stderr=subprocess.PIPE, text=True, **how)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def records(out: Path) -> list[Path]:
    return sorted((out / BUILD).glob("*-*.json"))


def shards_of(out: Path, record: Path) -> list[Path]:
    """The shards of a record's task."""
    return list(out.glob(f"{record.stem.replace('-', '-*-')}.tar"))


def workers(process: int) -> list[int]:
    """The building processes of the process."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_finishes(clips: Path, out: Path, whole: Path) -> None:
    """The same command finishes the set: what was done is kept, nothing is missing, double or left over."""
    kept = {path: path.stat().st_mtime_ns for record in records(out) for path in shards_of(out, record)}
    assert kept and len(kept) < len(digests(whole)) / 3
    with pytest.raises(ShardwaveError, match="is unfinished"):
        open_set(out)
    build(clips, out, CONFIG, options(clips))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert digests(out) == digests(whole)
    assert verify(open_set(out))["clips"] == 48
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [LOCK]


@pytest.mark.slow
def test_a_killed_main_process(clips: Path, whole: Path, tmp_path: Path) -> None:
    process = start(clips, tmp_path / "set", tmp_path)
    wait_for(lambda: len(records(tmp_path / "set")) >= 2)
    below = workers(process.pid)
    process.kill()
    process.wait()
    assert below
    wait_for(lambda: not any(map(running, below)), 20)  # nobody is left writing
    check_finishes(clips, tmp_path / "set", whole)


@pytest.mark.slow
def test_a_killed_worker(clips: Path, whole: Path, tmp_path: Path) -> None:
    process = start(clips, tmp_path / "set", tmp_path)
    wait_for(lambda: len(records(tmp_path / "set")) >= 2)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    done = [path for record in records(tmp_path / "set") for path in shards_of(tmp_path / "set", record)]
    kept = {path: path.stat().st_mtime_ns for path in done}
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert re.search(
        r"a building process was killed by signal 9 \(.*\); built again: fold\S+(, fold\S+)?$",
        told,
        re.MULTILINE,
    )
    assert "Traceback" not in told
    assert digests(tmp_path / "set") == digests(whole)
    assert kept and {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [path.name for path in (tmp_path / "set").iterdir() if path.name.startswith(".")] == [LOCK]


@pytest.mark.slow
def test_an_interrupted_build(clips: Path, whole: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of the terminal."""
    process = start(clips, tmp_path / "set", tmp_path, start_new_session=True)
    wait_for(lambda: len(records(tmp_path / "set")) >= 2)
    below = workers(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (
        below and told.count("Traceback") == 1 and told.splitlines()[-1] == "KeyboardInterrupt"
    )  # the program's own
    assert not any(map(running, below))
    assert not [path.name for path in (tmp_path / "set").rglob("*.tmp")]
    check_finishes(clips, tmp_path / "set", whole)


@pytest.mark.slow
def test_two_builds_into_one_folder(clips: Path, tmp_path: Path) -> None:
    first = start(clips, tmp_path / "set", tmp_path)
    wait_for(lambda: len(records(tmp_path / "set")) >= 1)
    with pytest.raises(ShardwaveError, match=f"another build is writing into .*process {first.pid}"):
        build(clips, tmp_path / "set", CONFIG, options(clips))
    assert first.wait(timeout=60) == 0
    with lock.hold(tmp_path / "set"), pytest.raises(ShardwaveError, match="another build is writing into"):
        build(clips, tmp_path / "set", CONFIG, options(clips, overwrite=True))
    assert verify(open_set(tmp_path / "set"))["clips"] == 48


def test_the_lock_is_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with lock.hold(tmp_path), pytest.raises(ShardwaveError, match="another build"), lock.hold(tmp_path):
            pass


def unfinished(whole: Path, out: Path) -> Path:
    """A copy of the set as it is just before its end."""
    shutil.copytree(whole, out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / BUILD).mkdir()
    (out / "inputs.jsonl").rename(out / BUILD / "plan.jsonl")
    plan = [json.loads(line) for line in (out / BUILD / "plan.jsonl").read_text().splitlines()]
    for split, views in manifest["splits"].items():
        for i, (full, part) in enumerate(zip(views["full"], views["slice"], strict=True)):
            mine = [line for line in plan[1:] if (line["assigned_split"], line["shard"]) == (split, i)]
            record = {
                "task": f"{split}-{i:04d}",
                "split": split,
                "shards": {"full": full, "slice": part},
                "audio_seconds": 6.0 * len(mine),
                "unused_seconds": [0.0, 0.0],
                "quarantined": [],
                "remarks": [],
                "crc32": {line["path"]: line["crc32"] for line in mine},
                "builder": manifest["builders"][0],
            }
            (out / BUILD / f"{split}-{i:04d}.json").write_text(json.dumps(record))
    (out / "manifest.json").unlink()
    return out


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "index", "idx", "record", "leftover"])
def test_done_shards_are_checked_before_they_are_kept(
    clips: Path, whole: Path, tmp_path: Path, damage: str
) -> None:
    out = unfinished(whole, tmp_path / "set")
    tar, stem = out / "fold1-slice-0003.tar", "fold1-slice-0003"
    if damage == "flipped":
        data = bytearray(tar.read_bytes())
        data[700] ^= 1
        tar.write_bytes(data)
    elif damage == "truncated":
        os.truncate(tar, 5000)
    elif damage == "missing":
        tar.unlink()
    elif damage in ("index", "idx"):
        (out / f"{stem}.{damage}").write_bytes(b"")
    elif damage == "record":
        (out / BUILD / "fold1-0003.json").write_text("{")
    else:
        (out / ".fold1-slice-0003.tar.12345.tmp").write_bytes(b"half")
        (out / BUILD / ".fold1-0003.json.12345.tmp").write_bytes(b"half")
    others = {
        path: path.stat().st_mtime_ns
        for path in out.glob("*.tar")
        if "fold1-" not in path.name or "0003" not in path.name
    }
    build(clips, out, CONFIG, options(clips))
    assert digests(out) == digests(whole) and verify(open_set(out))["clips"] == 48
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [LOCK]


def test_files_of_others_stay(clips: Path, whole: Path, tmp_path: Path) -> None:
    out = unfinished(whole, tmp_path / "set")
    mine = [out / BUILD / "notes.json", out / BUILD / "half.tmp", out / "my.tar", out / ".thesis.tar.12.tmp"]
    for path in mine:
        path.write_text("mine")
    build(clips, out, CONFIG, options(clips, overwrite=True))
    assert verify(open_set(out))["clips"] == 48 and all(path.read_text() == "mine" for path in mine)


def test_nothing_is_removed_through_a_link(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    for name in ("plan.jsonl", "train-0000.json", "written.txt"):
        (tmp_path / "home" / name).write_text("mine")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / BUILD).symlink_to(tmp_path / "home")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is a symbolic link"):
            build(clips, tmp_path / "set", CONFIG, options(clips, overwrite=overwrite))
    assert len(list((tmp_path / "home").iterdir())) == 3


def test_finishing_otherwise_is_refused(clips: Path, whole: Path, tmp_path: Path) -> None:
    out = unfinished(whole, tmp_path / "set")
    for changed, told in (
        ({"engine": "numba"}, "engine reference -> numba"),
        ({"seed": 4}, "was begun from other .*seed 0 -> 4"),
    ):
        with pytest.raises(UsageError, match=told):
            build(clips, out, CONFIG, options(clips, **changed))
    shutil.copytree(clips, tmp_path / "clips")
    write_clip(tmp_path / "clips" / "class 0" / "00.wav", 99, seconds=6)  # it lies in a shard that is done
    with pytest.raises(UsageError, match="1 clip with other content"):
        build(tmp_path / "clips", out, CONFIG, options(clips))


FULL_DISK = """
import os, resource, subprocess, sys
from pathlib import Path
from shardwave.common.errors import ShardwaveError
from shardwave.shards.build.builder import build
from shardwave.shards.read.open_set import open_set
from shardwave.shards.format.verify import verify
from tests.shards.conftest import CONFIG
from tests.shards.build.test_resume import options

if __name__ == "__main__":
    clips, out, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if how == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", out], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        build(clips, out, CONFIG, options(Path(sys.argv[1])))
    except ShardwaveError as error:
        assert error.exit_status == 1
        print(error)
    left = [name for name in os.listdir(out) if name.endswith(".tmp")]
    assert not left, left
    if how == "tmpfs":
        subprocess.run(["mount", "-o", "remount,size=100m", out], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    build(clips, out, CONFIG, options(clips))
    print(verify(open_set(out))["clips"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["tmpfs", "limit"])
def test_a_full_disk(clips: Path, tmp_path: Path, how: str) -> None:
    """A full tmpfs in its own mount namespace, and a limit on the size of files, which needs no rights."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"] if how == "tmpfs" else []
    if namespace and (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], capture_output=True).returncode
    ):
        pytest.skip("mount namespaces are not allowed here; the limit is tested")
    program = tmp_path / "program.py"
    program.write_text(FULL_DISK)
    (tmp_path / "set").mkdir()
    path = {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [*namespace, sys.executable, program, clips, tmp_path / "set", how]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, timeout=120)
    told, *rest = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert (
        told.startswith("no space left while writing") and "run the same command again to finish it" in told
    )
    assert rest == ["48"]
