"""Progress if standard error is no terminal: lines with the time left, none with --quiet."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from shardwave.common.messages import duration
from shardwave.common.progress_lines import Lines

ROOT = Path(__file__).resolve().parents[2]
LONG = """
import time
from shardwave.common import log, progress, progress_lines
log.set_up()
progress_lines.SHORT = 0.2
progress_lines.INTERVAL = 0.05
with progress.bar(total=40, unit="clip", desc="shards") as shown:
    for clip in range(40):
        time.sleep(0.02)
        shown.set_postfix_str(f"{clip} set aside", refresh=False)
        shown.update()
"""
SILENT = """
import time
from shardwave.common import log, progress
log.set_up()
progress.SILENCE = 0.3
with progress.heartbeat("train"):
    time.sleep(0.5)
    with progress.bar(total=10, unit="trial", every=1):
        time.sleep(0.9)
"""


def run(code: str, **variables: str) -> list[str]:
    """The lines that a process without a terminal writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_line_is_printed_for_each_tenth_with_the_time_left() -> None:
    lines = run(LONG)
    assert 4 <= len(lines) <= 10
    assert all(
        re.fullmatch(r"shards: \d+ %, \d+ of 40 clips, \d+ set aside, \d+ s( left)?", line) for line in lines
    ), lines
    counts = [int(line.split(", ")[1].split()[0]) for line in lines]
    assert counts == sorted(set(counts)) and len({count // 4 for count in counts}) == len(counts)
    assert lines[0].endswith(" left")


def test_a_short_command_prints_none() -> None:
    assert run(LONG.replace("progress_lines.SHORT = 0.2", "")) == []


def test_quiet_silences_lines_and_heartbeat() -> None:
    assert run(LONG, SHARDWAVE_QUIET="1") == [] and run(SILENT, SHARDWAVE_QUIET="1") == []


def test_a_program_that_imports_the_package_sees_nothing_unless_it_configures_logging() -> None:
    assert run(LONG.replace("log.set_up()", "")) == [] and run(SILENT.replace("log.set_up()", "")) == []
    configured = "import logging; logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')"
    assert (
        run(SILENT.replace("log.set_up()", configured))[0] == "shardwave.messages: train: working, 0 s so far"
    )


def test_a_silent_phase_gets_a_line_then_fewer() -> None:
    lines = run(SILENT)
    assert lines[0] == "train: working, 0 s so far"
    assert lines[1:] and set(lines[1:]) == {"0 %, 0 of 10 trials, 0 s"} | set(lines[1:]) & {
        "0 %, 0 of 10 trials, 1 s"
    }
    assert len(lines) <= 3  # the pause doubles


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", LONG], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "\r" in shown and "clip/s" in shown and "left" not in shown


def test_bytes_and_unknown_totals() -> None:
    scaled = Lines(total=2_000_000, unit="B", unit_scale=True, desc="verify")
    scaled.update(500_000)
    assert re.fullmatch(r"verify: 25 %, \d+ s left", str(scaled))
    scaled.close()
    unknown = Lines(unit="clip")
    unknown.update(3)
    assert re.fullmatch(r"3 clips, \d+ s", str(unknown))
    unknown.close()
    assert list(Lines(["a", "b"], desc="audio")) == ["a", "b"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (7_500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_training_tells_its_epochs(folder_with_set: Path, tmp_path: Path) -> None:
    """The real command, in a process without a terminal."""
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "train",
        str(folder_with_set),
        "--model",
        "mlp",
        "--epochs",
        "400",
    ]
    done = subprocess.run(
        [*command, "--hidden-size", "8", "--out", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("mlp: ")]
    assert lines and all(
        re.match(r"mlp: \d+ %, epoch \d+/400, validation .*%, best .*% at \d+, ", line) for line in lines
    ), lines
    quiet = subprocess.run(
        [*command, "--out", str(tmp_path / "quiet"), "--quiet"], capture_output=True, text=True
    )
    assert quiet.returncode == 0 and quiet.stderr == ""


@pytest.fixture(scope="module")
def folder_with_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set from a small table of features."""
    folder = tmp_path_factory.mktemp("table")
    rows = [f"clip {i},{'ab'[i % 2]},{i % 2 + i / 100},{i % 7}" for i in range(200)]
    (folder / "table.csv").write_text("\n".join(["name,label,x,y", *rows]))
    command = [
        "shard",
        "--table",
        str(folder / "table.csv"),
        "--label-column",
        "label",
        "--out",
        str(folder / "set"),
    ]
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *command, "--quiet"], check=True)
    return folder / "set"
