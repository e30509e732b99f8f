"""Temporary folders: private, gone at the end, and those of killed processes gone when the next one starts."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shards.temporary import temporary_folder

HOLD = """
import sys, time
from shards.temporary import temporary_folder
with temporary_folder("shardwave-test-", sys.argv[1]) as folder:
    (folder / "clip.npy").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


def hold(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a temporary folder in `parent`."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(parent)], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder("shardwave-test-", tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.name.startswith("shardwave-test-")
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("")
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), temporary_folder("shardwave-test-", tmp_path):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_or_not_ours_is_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    (tmp_path / "shardwave-test-link").symlink_to(tmp_path / "precious")
    (tmp_path / "shardwave-test-file").write_text("kept")
    (tmp_path / "shardwave-other-folder").mkdir()
    killed, left = hold(tmp_path)
    living, used = hold(tmp_path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "clip.npy").exists()
        with temporary_folder("shardwave-test-", tmp_path):
            assert not left.exists() and (used / "clip.npy").exists()
    finally:
        living.kill()
        living.communicate()
        killed.communicate()
    names = ["precious", "shardwave-other-folder", "shardwave-test-file", "shardwave-test-link", used.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / "precious" / "file").read_text() == "kept"
