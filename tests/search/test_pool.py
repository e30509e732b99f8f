"""Batches of trials in worker processes, and what happens when they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import objectives
import pytest
from objectives import EPOCHS, curve, lines

from preprocess.errors import ShardwaveError
from search.backends import make_backend
from search.budget import SearchBudget
from search.space import Grid, Space, Uniform

SPACE = Space({"quality": Uniform(0.1, 0.9), "width": Grid((8, 16, 32))})


@pytest.mark.parametrize("backend", ["random", "optuna"])
def test_trials_of_one_key_are_run_together(backend: str, tmp_path: Path) -> None:
    budget = SearchBudget(trials=18, epochs=EPOCHS, jobs=2, fused=4, scheduler="none", sampler="random")
    result = make_backend(backend).run(objectives.Batch(tmp_path), SPACE, budget, 0)
    assert result.state == "COMPLETE" and len(result.trials) == 18
    batches = [line.split() for line in lines(tmp_path / "batches")]
    assert all(len(set(widths)) == 1 and 2 <= len(widths) <= 4 for widths in batches)
    assert sum(map(len, batches)) + len(lines(tmp_path / "single")) == 18
    assert sum(map(len, batches)) >= 8
    for trial in result.trials:
        assert trial.state == "COMPLETE" and trial.values == [curve(trial.params, epoch) for epoch in range(1, EPOCHS + 1)]


def test_each_of_a_batch_stops_on_its_own(tmp_path: Path) -> None:
    budget = SearchBudget(trials=24, epochs=EPOCHS, jobs=1, fused=4, scheduler="asha", sampler="random")
    result = make_backend("optuna").run(objectives.Batch(tmp_path), SPACE, budget, 0)
    stopped = [trial for trial in result.trials if trial.state == "PRUNED"]
    assert 8 <= len(stopped) <= 20 and all(trial.epochs in (1, 3) for trial in stopped)
    assert result.best is not None and result.best.epochs == EPOCHS


def test_a_batch_that_fails_is_run_again_one_by_one(tmp_path: Path) -> None:
    budget = SearchBudget(trials=6, epochs=EPOCHS, jobs=1, fused=3, scheduler="none", sampler="grid")
    space = Space({"quality": Uniform(0.1, 0.9), "width": Grid((16,))})
    result = make_backend("random").run(objectives.Batch(tmp_path, fail=True), space, budget, 0)
    assert [trial.state for trial in result.trials] == ["COMPLETE"] * 6 and {trial.attempt for trial in result.trials} == {2}
    assert len(lines(tmp_path / "batches")) == 2 and len(lines(tmp_path / "single")) == 6


def test_fused_is_off_where_the_objective_cannot(tmp_path: Path) -> None:
    budget = SearchBudget(trials=3, epochs=EPOCHS, jobs=1, fused=4)
    assert make_backend("random").run(objectives.smooth, SPACE, budget, 0).state == "COMPLETE"


class Unimportable:
    modules = ("no_such_module",)

    def __call__(self, params: dict, report: object) -> None: ...


def test_a_module_that_is_missing_ends_the_search() -> None:
    with pytest.raises(ShardwaveError, match="could not start: ModuleNotFoundError: No module named 'no_such_module'"):
        make_backend("random").run(Unimportable(), SPACE, SearchBudget(trials=2, epochs=2, jobs=1), 0)


class DiesAtStart:
    def prepare(self) -> None:
        os._exit(3)

    def __call__(self, params: dict, report: object) -> None: ...


def test_workers_that_die_at_once_end_the_search() -> None:
    with pytest.raises(ShardwaveError, match="search workers do not start: the last one ended with exit status 3"):
        make_backend("random").run(DiesAtStart(), SPACE, SearchBudget(trials=2, epochs=2, jobs=1), 0)


def test_standard_output_stays_the_commands_own(tmp_path: Path) -> None:
    """What an objective prints goes to standard error: `--json` promises one object on the last line of standard output."""
    script = tmp_path / "prints.py"
    script.write_text(
        "from search.backends import make_backend\n"
        "from search.budget import SearchBudget\n"
        "from search.space import Grid, Space\n"
        "def objective(params, report):\n"
        "    print('from the objective')\n"
        "    report(1, 0.5)\n"
        "if __name__ == '__main__':\n"
        "    make_backend('random').run(objective, Space({'a': Grid((1, 2))}), SearchBudget(trials=2, epochs=1, jobs=1), 0)\n"
        "    print('{\"done\": true}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == {"done": True} and done.stderr.count("from the objective") == 2
