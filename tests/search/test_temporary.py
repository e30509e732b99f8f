"""Temporary folders of searches: removed with them, or by the next search where both they and their template were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.temporary import PREFIX, TemporaryFolder, remove_stale

HOLD = """
import sys, time
from search.temporary import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "session").mkdir()
(folder.path / "session" / "link").symlink_to(sys.argv[1])
print(folder.path, flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path("/tmp") / f"b{os.getpid()}"  # short, as sockets want it
    base.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(base))
    precious, outside = tmp_path / "precious", tmp_path / "outside"
    for folder in (precious, outside):
        folder.mkdir(mode=0o700)
        (folder / "file").write_text("mine")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(precious)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(base)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        assert held.parent == base and held.stat().st_mode & 0o777 == 0o700
        kept = [f"{PREFIX}abcdefgh-mine", f"x{PREFIX}abcdefgh", f"{PREFIX}open0000", f"{PREFIX}file0000"]
        (base / f"{PREFIX}linked00").symlink_to(outside)
        for name in kept[:3]:
            (base / name).mkdir(mode=0o755 if "open" in name else 0o700)
        (base / kept[3]).write_text("a file")
        remove_stale(base)
        assert held.is_dir()  # in use
        process.send_signal(signal.SIGKILL)
        process.wait()
        mine = TemporaryFolder()
        assert not held.exists() and mine.path.is_dir()
        remove_stale(base)
        assert mine.path.is_dir()  # by this process too
        mine.close()
        assert sorted(path.name for path in base.iterdir()) == sorted([*kept, f"{PREFIX}linked00"])
        assert (precious / "file").read_text() == (outside / "file").read_text() == "mine"
    finally:
        process.kill()
        process.communicate()
        subprocess.run(["rm", "-r", str(base)], check=True)


def test_a_long_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has 107 characters at most, and Ray adds 66 to the folder's."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    made = TemporaryFolder()
    assert made.path.parent == Path("/tmp") and len(str(made.path)) <= 41
    made.close()
    assert not made.path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["random", "ray"])
def test_the_next_search_removes_what_a_killed_group_left(backend: str, feature_set: Path, tmp_path: Path) -> None:
    root, temporary = Path(__file__).parents[2], Path("/tmp") / f"t{os.getpid()}"
    temporary.mkdir()
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
    environment = {**os.environ, "TMPDIR": str(temporary)}
    try:
        process = subprocess.Popen(
            [*command, "--trials", "500", "--out", str(tmp_path / "killed")], env=environment, start_new_session=True
        )
        until = time.monotonic() + 120
        while not list(temporary.glob(f"{PREFIX}*/workers")) or not (tmp_path / "killed" / "started.jsonl").exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)  # the template too, which would have removed the folder
        process.wait()
        assert [path.stat().st_mode & 0o777 for path in temporary.iterdir()] == [0o700]  # closed to others, also by Ray
        subprocess.run([*command, "--trials", "2", "--out", str(tmp_path / "next")], env=environment, check=True)
        assert not list(temporary.iterdir())
    finally:
        subprocess.run(["rm", "-rf", str(temporary)], check=True)
