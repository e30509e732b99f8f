from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shardwave.shards.storage import scratch

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_a_folder_is_private_and_goes_at_the_end(temporary: Path) -> None:
    with scratch.folder() as made, scratch.folder() as other:
        assert made.parent == temporary and made != other and stat.S_IMODE(made.stat().st_mode) == 0o700
        (made / "deep").mkdir()
        (made / "deep" / "file").touch()
    assert not list(temporary.iterdir())


def test_a_forked_process_does_not_remove_the_folder() -> None:
    """A child of `multiprocessing` discards its parent's finalizers and the contexts that they refer to."""
    context = scratch.folder()
    made = context.__enter__()
    pid = os.fork()
    if pid == 0:
        context.__exit__(None, None, None)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0 and made.exists()
    context.__exit__(None, None, None)
    assert not made.exists()


def test_only_folders_of_ended_processes_are_removed(temporary: Path) -> None:
    program = (
        "from shardwave.shards.storage import scratch; import time\n"
        "with scratch.folder() as made: print(made, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        with scratch.folder() as made:
            assert theirs.parent == made.parent == temporary and theirs.exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            scratch.remove_stale()
            assert not theirs.exists() and made.exists()
    assert not list(temporary.iterdir())


def test_links_and_what_is_not_ours_are_left_alone(temporary: Path, tmp_path: Path) -> None:
    """The folder had a fixed name: a link in its place had what it points to deleted."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("all of it")
    planted = [temporary / f"shardwave-{os.getuid()}", temporary / "shardwave-scratch-abcdefgh"]
    for link in planted:
        link.symlink_to(tmp_path / "home")
    (temporary / "shardwave-scratch-aaaaaaaa").write_text("a file")
    (temporary / "shardwave-scratch-mine").mkdir()
    left = [temporary / "shardwave-scratch-aaaaaaaa", temporary / "shardwave-scratch-mine"]
    if os.getuid() == 0:
        left.append(temporary / "shardwave-scratch-bbbbbbbb")
        left[-1].mkdir()
        os.chown(left[-1], 65534, 65534)
    (temporary / "shardwave-scratch-cccccccc").mkdir(mode=0o700)  # a killed process's
    with scratch.folder():
        pass
    assert sorted(temporary.iterdir()) == sorted([*planted, *left])
    assert (tmp_path / "home" / "thesis.txt").read_text() == "all of it"
