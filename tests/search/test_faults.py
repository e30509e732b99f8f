"""Whole searches as processes: killed, interrupted, gone on with; and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from objectives import EPOCHS, curve, lines
from processes import remaining, started

from shardwave.search.budget import BACKENDS

SCRIPT = Path(__file__).parent / "run_search.py"
TRIALS = 7


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder for the searches, with a path short enough for Ray's sockets; empty in the end."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield folder
    left = [path.name for path in remaining(folder)]
    shutil.rmtree(folder)
    assert not left


def start(backend: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), backend, str(folder), "Slow", str(TRIALS)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 120
) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def outcome(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "outcome.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_and_interrupted_searches_are_resumed(
    backend: str, tmp_path: Path, marked: dict[str, str], temporary: Path
) -> None:
    if backend == "syne-tune":
        pytest.importorskip("syne_tune", reason="Syne Tune is not installed")
    environment = {**marked, "TMPDIR": str(temporary), "SHARDWAVE_QUIET": "1"}
    mark = next(f"{name}={value}" for name, value in marked.items() if name == "SHARDWAVE_TEST")

    process = start(backend, tmp_path, environment)
    wait_for(lambda: len(lines(tmp_path / "waiting")) == 2, process)
    finished = (tmp_path / "trials.jsonl").read_text()
    process.kill()
    process.communicate()
    wait_for(
        lambda: not started(mark, temporary), seconds=60
    )  # workers, actors and Ray's own processes go with the main process
    wait_for(lambda: not remaining(temporary), seconds=10)  # and so does the temporary folder
    assert sorted(json.loads(line)["trial"] for line in finished.splitlines()) == [0, 1, 2, 3]

    (tmp_path / "waiting").unlink()
    process = start(backend, tmp_path, environment)
    wait_for(lambda: len(lines(tmp_path / "waiting")) == 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that have not left the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    interrupted = outcome(tmp_path)
    assert interrupted["state"] == "INTERRUPTED" and [row["trial"] for row in interrupted["trials"]] == [
        0,
        1,
        2,
        3,
    ]
    wait_for(lambda: not started(mark, temporary), seconds=60)
    assert not remaining(temporary)

    (tmp_path / "go").touch()
    process = start(backend, tmp_path, environment)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    result = outcome(tmp_path)
    assert result["state"] == "COMPLETE"
    rows = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert (
        (tmp_path / "trials.jsonl").read_text().startswith(finished)
    )  # finished trials are kept as they were
    assert sorted(row["trial"] for row in rows) == list(range(TRIALS))  # and none is counted twice
    for row in rows:
        assert row["state"] == "COMPLETE" and row["values"] == [
            curve(row["params"], epoch) for epoch in range(1, EPOCHS + 1)
        ]
    ran = [int(line) for line in lines(tmp_path / "ran")]
    attempts = {row["trial"]: row["attempt"] for row in rows}
    assert attempts == {number: ran.count(number) for number in range(TRIALS)}
    assert [attempts[number] for number in range(4)] == [1] * 4 and sum(
        attempts.values()
    ) == TRIALS + 4  # two were cut off twice


@pytest.mark.slow
def test_a_killed_ray_actor_is_replaced(tmp_path: Path, marked: dict[str, str], temporary: Path) -> None:
    """The actor, not the worker that it speaks to."""
    environment = {**marked, "TMPDIR": str(temporary), "SHARDWAVE_QUIET": "1"}
    mark = next(f"{name}={value}" for name, value in marked.items() if name == "SHARDWAVE_TEST")
    process = start("ray", tmp_path, environment)
    wait_for(lambda: len(lines(tmp_path / "waiting")) == 2, process)
    titles = ("ray::Objective", "ray::ResourceTrainable")
    actors = [pid for pid, command in started(mark, temporary).items() if command.startswith(titles)]
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    wait_for(lambda: len(lines(tmp_path / "waiting")) >= 3, process)  # its trial waits again, in a new actor
    (tmp_path / "go").touch()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    rows = outcome(tmp_path)["trials"]
    assert [row["trial"] for row in rows] == list(range(TRIALS)) and {row["state"] for row in rows} == {
        "COMPLETE"
    }
    assert sorted(row["attempt"] for row in rows) == [1] * (TRIALS - 1) + [2]
    for row in rows:
        assert row["values"] == [curve(row["params"], epoch) for epoch in range(1, EPOCHS + 1)]
    wait_for(lambda: not started(mark, temporary), seconds=60)
