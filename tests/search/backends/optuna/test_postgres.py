"""Several main processes on one study in PostgreSQL: they share the trials, and take over those of one
that was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from objectives import lines
from postgres import server

from shardwave.common.errors import ShardwaveError
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, Space
from shardwave.search.trial import Trial, best_trial

SCRIPT = Path(__file__).parents[2] / "run_search.py"
TRIALS = 7


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with server() as url:
        yield url


class Searches:
    """Searches of one study as processes, each with a run folder; none outlives the test."""

    def __init__(self, storage: str, study: str, folder: Path, objective: str):
        self.storage, self.study, self.folder, self.objective = storage, study, folder, objective
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> subprocess.Popen[str]:
        out = self.folder / name
        out.mkdir(exist_ok=True)
        command = [
            sys.executable,
            str(SCRIPT),
            "optuna",
            str(out),
            self.objective,
            str(TRIALS),
            self.storage,
            self.study,
        ]
        environment = {**os.environ, "SHARDWAVE_QUIET": "1"}
        self.processes[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        return self.processes[name]

    def end(self, name: str) -> list[Trial]:
        """The trials that the search ends with."""
        _, errors = self.processes[name].communicate(timeout=300)
        assert self.processes[name].returncode == 0, errors
        found = json.loads((self.folder / name / "outcome.json").read_text())
        assert found["state"] == "COMPLETE"
        return [Trial.from_row(row) for row in found["trials"]]

    def wait(self, condition: Callable[[], Any]) -> None:
        until = time.monotonic() + 300
        while not condition():
            for process in self.processes.values():
                assert process.poll() in (None, 0), process.communicate()[1]
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.05)


@pytest.fixture
def searches(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Searches]:
    made = Searches(database, request.node.name, tmp_path, request.param)
    yield made
    for process in made.processes.values():
        process.kill()
        process.communicate()


def best(trials: list[Trial]) -> tuple[int, dict[str, Any], float | None]:
    found = best_trial(trials)
    assert found is not None
    return found.trial, found.params, found.value


@pytest.mark.slow
@pytest.mark.parametrize("searches", ["Meeting"], indirect=True)
def test_two_searches_share_a_study(searches: Searches) -> None:
    for name in ("one", "two"):
        searches.start(name)
    one, two = searches.end("one"), searches.end("two")
    ran = [[int(line) for line in lines(searches.folder / name / "ran")] for name in ("one", "two")]
    assert sorted(ran[0] + ran[1]) == list(range(TRIALS)) and all(ran)  # each trial once, some by each
    assert [trial.trial for trial in one] == [trial.trial for trial in two] == list(range(TRIALS))
    assert best(one) == best(two)


@pytest.mark.slow
@pytest.mark.parametrize("searches", ["Slow"], indirect=True)
def test_another_search_continues_a_killed_one(searches: Searches) -> None:
    killed = searches.start("killed")
    searches.wait(
        lambda: len(lines(searches.folder / "killed" / "waiting")) == 2
    )  # it has run 0 to 3, and runs 4 and 5
    searches.start("other")
    (searches.folder / "other" / "go").touch()
    searches.wait(lambda: lines(searches.folder / "other" / "ran") == ["6"])  # what was left
    killed.kill()
    killed.communicate()
    del searches.processes["killed"]
    other = searches.end("other")
    assert sorted(lines(searches.folder / "other" / "ran")) == ["4", "5", "6"]
    assert [trial.trial for trial in other] == list(range(TRIALS)) and {trial.state for trial in other} == {
        "COMPLETE"
    }
    assert [trial.attempt for trial in other] == [1, 1, 1, 1, 2, 2, 1]
    searches.start("killed")  # gone on with: there is nothing left to do
    again = searches.end("killed")
    assert len(lines(searches.folder / "killed" / "ran")) == 6
    assert [trial.row() for trial in again] == [trial.row() for trial in other] and best(again) == best(other)


def test_a_refused_connection_raises_one_line_without_the_password(database: str) -> None:
    backend = make_backend(
        "optuna", storage=database.replace("search@/postgres", "search:secret@/nowhere"), study="one"
    )
    with pytest.raises(
        ShardwaveError,
        match=r'--storage postgresql://search:\*\*\*@/nowhere.*database "nowhere" does not exist',
    ):
        backend.run(print, Space({"quality": Grid((0.5,))}), SearchBudget(trials=1, epochs=1, jobs=1), 0)
