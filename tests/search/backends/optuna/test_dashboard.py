"""optuna-dashboard opens the study of a run folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import objectives
import pytest
from objectives import EPOCHS

from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Space, Uniform
from shardwave.search.trial_log import TrialLog


def fetched(address: str, process: subprocess.Popen) -> bytes:
    """Ask for a page until the server has started."""
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return answer.read()
        except urllib.error.URLError:
            assert process.poll() is None and time.monotonic() < until, "the server does not answer"
            time.sleep(0.1)


def test_the_dashboard_shows_a_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    space = Space({"quality": Uniform(0.1, 0.9)})
    budget = SearchBudget(trials=3, epochs=EPOCHS, jobs=1, scheduler="none")
    result = make_backend("optuna").run(objectives.smooth, space, budget, 0, TrialLog(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    arguments = [str(tmp_path / "study.journal"), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = fetched(f"http://127.0.0.1:{port}/dashboard", process)
        assert b"<html" in page.lower() and b"Optuna Dashboard" in page
        study = json.loads(fetched(f"http://127.0.0.1:{port}/api/studies/0", process))
        values = [trial["values"][0] for trial in study["trials"]]
        assert values == [trial.value for trial in result.trials]
    finally:
        process.kill()
        process.wait()
