"""SQLite serves one search at a time: a second one gets one line, whatever the path is called; nothing
hangs."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import objectives
import pytest
from objectives import EPOCHS, lines

from shardwave.common.errors import ShardwaveError
from shardwave.search.backends.optuna.sqlite_lock import database_file, only_search_on
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, LogUniform, Space

SCRIPT = Path(__file__).parents[2] / "run_search.py"
SPACE = Space({"quality": Grid((0.25, 0.5, 0.75)), "rate": LogUniform(1e-4, 1e-1)})  # as run_search.py has it


def budget(trials: int) -> SearchBudget:
    return SearchBudget(trials=trials, epochs=EPOCHS, jobs=2, scheduler="none", sampler="random")


def start(out: Path, storage: str, study: str = "one", objective: str = "Slow") -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), "optuna", str(out), objective, "7", storage, study]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=out.parent, env={**os.environ, "SHARDWAVE_QUIET": "1"}
    )


@contextlib.contextmanager
def running(out: Path, storage: str) -> Iterator[subprocess.Popen[str]]:
    """A search with two jobs that has run four trials and waits in two more."""
    process = start(out, storage)
    try:
        until = time.monotonic() + 120
        while len(lines(out / "waiting")) < 2:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_second_search_is_refused_and_a_killed_one_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, link = tmp_path / "study.db", tmp_path / "other.db"
    spellings = [
        f"sqlite:///{database}",
        f"sqlite:////{database}",
        "sqlite:///study.db",
        f"sqlite:///{tmp_path}/./x/../study.db",
    ]
    spellings += [
        f"sqlite:///{link}",
        f"sqlite+pysqlite:///{database}",
        f"sqlite:///file:{database}?uri=true",
    ]
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    with running(tmp_path / "run", spellings[0]) as first:
        link.symlink_to("study.db")
        (tmp_path / "hard.db").hardlink_to(database)
        for spelling in [*spellings, "sqlite:///hard.db"]:
            for study in ("one", "two"):
                with pytest.raises(
                    ShardwaveError, match="another search is using this SQLite database.*journal:PATH"
                ):
                    make_backend("optuna", storage=spelling, study=study).run(
                        objectives.smooth, SPACE, budget(7), 0
                    )
        first.kill()
        first.wait()
        again = make_backend("optuna", storage=spellings[0], study="one").run(
            objectives.smooth, SPACE, budget(7), 0
        )
    assert [trial.trial for trial in again.trials] == list(range(7)) and {
        trial.state for trial in again.trials
    } == {"COMPLETE"}
    assert (
        sorted(trial.attempt for trial in again.trials) == [1] * 5 + [2] * 2
    )  # the two that it was cut off in
    assert [trial.params for trial in again.trials] == [SPACE.point(n, 0, shuffle=True) for n in range(7)]


@pytest.mark.slow
@pytest.mark.parametrize("study", ["one", "two"])
def test_two_searches_that_start_together_run_in_turn_or_one_is_refused(tmp_path: Path, study: str) -> None:
    """Of each pair one ends with all trials, and the other with them too (it came later) or with the one
    line."""
    refused = 0
    for number in range(5):
        storage = f"sqlite:///{tmp_path}/{number}.db"
        names = (("a", "one"), ("b", study))
        pair = [start(tmp_path / f"{number}{name}", storage, each, "Counting") for name, each in names]
        ends = [(process.communicate(timeout=120)[1], process.returncode) for process in pair]
        assert 0 in [status for _, status in ends], ends
        for (errors, status), (name, _) in zip(ends, names, strict=True):
            refused += status != 0
            if status:
                assert "another search is using this SQLite database" in errors.strip().splitlines()[-1], (
                    errors
                )
            else:
                found = json.loads((tmp_path / f"{number}{name}" / "outcome.json").read_text())
                assert found["state"] == "COMPLETE" and len(found["trials"]) == 7
    assert refused >= 3  # they did meet


def test_a_search_killed_during_creation_of_its_study(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="one", direction="maximize")
    study.enqueue_trial({}, user_attrs={"trial": 0, "attempt": 1})
    result = make_backend("optuna", storage=url, study="one").run(objectives.smooth, SPACE, budget(3), 0)
    assert [trial.trial for trial in result.trials] == [0, 1, 2]
    optuna.create_study(storage=url, study_name="theirs").add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(ShardwaveError, match="study theirs is not of this program"):
        make_backend("optuna", storage=url, study="theirs").run(objectives.smooth, SPACE, budget(3), 0)
    assert len(optuna.load_study(storage=url, study_name="theirs").trials) == 1


def test_foreign_databases_are_refused(tmp_path: Path) -> None:
    other, text = tmp_path / "music.db", tmp_path / "notes.txt"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    text.write_text("not a database, but long enough to be taken for one" * 100)
    before = other.read_bytes(), text.read_bytes()
    for path, reason in (
        (other, "a database without Optuna studies"),
        (text, "cannot be read as a SQLite database"),
        (tmp_path, ""),
    ):
        with pytest.raises(ShardwaveError, match=f"--storage sqlite:///{path}: .*{reason}"):
            make_backend("optuna", storage=f"sqlite:///{path}").run(objectives.smooth, SPACE, budget(1), 0)
    assert (other.read_bytes(), text.read_bytes()) == before


def test_a_read_only_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    make_backend("optuna", storage=f"sqlite:///{path}").run(objectives.smooth, SPACE, budget(1), 0)
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    with pytest.raises(ShardwaveError, match="--storage sqlite:///file:.*readonly database"):
        make_backend("optuna", storage=url).run(objectives.smooth, SPACE, budget(3), 0)


def test_the_file_of_a_url(tmp_path: Path) -> None:
    assert database_file("sqlite:///study.db") == Path("study.db") and database_file(
        "sqlite:////a/study.db"
    ) == Path("/a/study.db")
    assert database_file("sqlite:///file:/a/b%20c.db?mode=ro&uri=true") == Path("/a/b c.db")
    assert not any(
        map(database_file, ("sqlite://", "sqlite:///:memory:", "postgresql://u@h/db", "journal:x", ""))
    )
    with only_search_on("sqlite://"), only_search_on("sqlite://"), only_search_on(None):
        pass  # each has its own
