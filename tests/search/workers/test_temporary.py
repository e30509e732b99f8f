"""Temporary folders of searches: removed with them, or by the next search where all their processes were
killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import remaining

from shardwave.search.workers import temporary


def test_a_long_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has 107 characters at most, and Ray adds 66 to the folder's."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with temporary.folder() as made:
        assert made.parent == Path("/tmp") and len(str(made)) <= 41 and made.stat().st_mode & 0o777 == 0o700
    assert not made.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["random", "ray"])
def test_the_next_search_removes_files_of_a_killed_process_group(
    backend: str, feature_set: Path, tmp_path: Path
) -> None:
    root, folder = Path(__file__).parents[3], Path("/tmp") / f"t{os.getpid()}"
    folder.mkdir()
    command = [
        sys.executable,
        str(root / "cli.py"),
        "search",
        str(feature_set),
        "--model",
        "mlp",
        "--backend",
        backend,
        "--jobs",
        "1",
    ]
    command += ["--epochs", "2", "--val-fold", "1", "--device", "cpu", "--quiet"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    try:
        process = subprocess.Popen(
            [*command, "--trials", "500", "--out", str(tmp_path / "killed")],
            env=environment,
            start_new_session=True,
        )
        until = time.monotonic() + 120
        while not (tmp_path / "killed" / "started.jsonl").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)  # the workers too, which would have removed the folder
        process.wait()
        left = [path.stat().st_mode & 0o777 for path in remaining(folder)]
        assert left == [0o700] or (backend == "ray" and left == [])  # closed to others, also by Ray
        subprocess.run(
            [*command, "--trials", "2", "--out", str(tmp_path / "next")], env=environment, check=True
        )
        assert not remaining(folder)
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
