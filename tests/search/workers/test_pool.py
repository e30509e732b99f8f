"""Worker processes that cannot start, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import objectives
import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.search import gpus
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, Space, Uniform

SPACE = Space({"quality": Uniform(0.1, 0.9)})


class Unimportable:
    modules = ("no_such_module",)

    def __call__(self, params: dict, report: object) -> None: ...


def test_a_missing_module_ends_the_search() -> None:
    with pytest.raises(
        ShardwaveError, match="could not start: ModuleNotFoundError: No module named 'no_such_module'"
    ):
        make_backend("random").run(Unimportable(), SPACE, SearchBudget(trials=2, epochs=2, jobs=1), 0)


class DiesAtStart:
    def prepare(self) -> None:
        os._exit(3)

    def __call__(self, params: dict, report: object) -> None: ...


def test_workers_that_die_at_once_end_the_search() -> None:
    with pytest.raises(
        ShardwaveError, match="search workers do not start: the last one ended with exit status 3"
    ):
        make_backend("random").run(DiesAtStart(), SPACE, SearchBudget(trials=2, epochs=2, jobs=1), 0)


@pytest.mark.parametrize("backend", ["random", "optuna", "ray"])
def test_out_of_gpu_memory(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Such a trial runs again alone on its GPU, and fails if it runs out of memory again; then all workers
    return."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ["7"])
    address = request.getfixturevalue("ray_address") if backend == "ray" else None
    gpu = "7" if address is None else "0"
    kinds = ("large", "huge", "left", "right")
    budget = SearchBudget(trials=4, epochs=1, jobs=2, sampler="grid", scheduler="none", gpus_per_trial=0.5)
    searcher = make_backend(backend, address=address)
    result = searcher.run(objectives.Crowded(tmp_path), Space({"kind": Grid(kinds)}), budget, 0)
    large, huge, *others = result.trials
    states = [(trial.state, trial.error) for trial in (large, *others)]
    assert states == [("COMPLETE", None)] * 3
    assert (large.attempt, huge.attempt, huge.state) == (2, 2, "FAILED")
    assert huge.error == (
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB, although no other trial of this "
        "search used the GPU"
    )
    assert all(
        objectives.lines(tmp_path / kind) == [gpu] * count
        for kind, count in zip(kinds, (2, 2, 1, 1), strict=True)
    )


def test_workers_do_not_write_to_standard_output(tmp_path: Path) -> None:
    """What an objective prints goes to standard error: `--json` promises one object on the last line of
    standard output."""
    script = tmp_path / "prints.py"
    script.write_text(
        "from shardwave.search.backends.registry import make_backend\n"
        "from shardwave.search.budget import SearchBudget\n"
        "from shardwave.search.space import Grid, Space\n"
        "def objective(params, report):\n"
        "    print('from the objective')\n"
        "    report(1, 0.5)\n"
        "if __name__ == '__main__':\n"
        "    make_backend('random').run(objective, Space({'a': Grid((1, 2))}), SearchBudget(trials=2, "
        "epochs=1, jobs=1), 0)\n"
        "    print('{\"done\": true}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(done.stdout) == {"done": True} and done.stderr.count("from the objective") == 2


def test_a_forked_process_between_two_searches(tmp_path: Path) -> None:
    """A worker of a `DataLoader` removed the socket of the fork server, and no second search could start."""
    script = tmp_path / "twice.py"
    script.write_text(
        "import multiprocessing\n"
        "from shardwave.search.backends.registry import make_backend\n"
        "from shardwave.search.budget import SearchBudget\n"
        "from shardwave.search.space import Grid, Space\n"
        "def objective(params, report):\n"
        "    report(1, 0.5)\n"
        "if __name__ == '__main__':\n"
        "    for _ in range(2):\n"
        "        budget = SearchBudget(trials=2, epochs=1, jobs=1)\n"
        "        make_backend('random').run(objective, Space({'a': Grid((1, 2))}), budget, 0)\n"
        "        child = multiprocessing.get_context('fork').Process(target=print, args=('forked',))\n"
        "        child.start()\n"
        "        child.join()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "forked\n" * 2, "")
