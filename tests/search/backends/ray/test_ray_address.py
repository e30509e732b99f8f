"""RAY_ADDRESS and other variables of Ray in the environment; what does not start or answer is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _ray() -> None:
    pytest.importorskip("ray")


def command(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def search(shard_set: Path, out: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    options = [
        "--model",
        "mlp",
        "--backend",
        "ray",
        "--trials",
        "1",
        "--epochs",
        "1",
        "--val-fold",
        "1",
        "--device",
        "cpu",
    ]
    return command("search", shard_set, *options, "--jobs", "1", "--out", out, *more, **variables)


@pytest.mark.slow
def test_without_an_address_the_search_starts_its_own_ray(feature_set: Path, tmp_path: Path) -> None:
    done = search(feature_set, tmp_path / "run", RAY_ADDRESS="127.0.0.1:1", RAY_NAMESPACE="theirs")
    assert done.returncode == 0, done.stderr
    assert "RAY_ADDRESS=127.0.0.1:1 is not used" in done.stderr and "1 COMPLETE" in done.stdout


@pytest.mark.slow
def test_cluster_address_from_the_option_or_the_variable(
    ray_address: str, feature_set: Path, tmp_path: Path
) -> None:
    for name, address, variable in (("one", ray_address, "127.0.0.1:1"), ("two", "auto", ray_address)):
        done = search(feature_set, tmp_path / name, "--address", address, RAY_ADDRESS=variable)
        assert done.returncode == 0 and "is not used" not in done.stderr, done.stderr


@pytest.mark.parametrize("build", [True, False])
@pytest.mark.parametrize(
    ("address", "variable", "message"),
    [
        (
            "auto",
            "127.0.0.1:1",
            "error: --address auto (RAY_ADDRESS=127.0.0.1:1): no Ray cluster answers there: ",
        ),
        (
            "auto",
            "ray://host:1",
            "error: RAY_ADDRESS (taken with --address auto) must be auto or HOST:PORT of a Ray",
        ),
        (
            "127.0.0.1:1",
            "127.0.0.1:2",
            "error: --address 127.0.0.1:1: no Ray cluster answers there: Connection refused",
        ),
        ("nowhere", "", "error: --address must be auto or HOST:PORT of a Ray cluster, got nowhere"),
    ],
)
def test_unreachable_addresses_raise_one_line(
    build: bool, address: str, variable: str, message: str, feature_set: Path, tmp_path: Path
) -> None:
    if build:
        (tmp_path / "in" / "a").mkdir(parents=True)
        done = command(
            "shard", tmp_path / "in", "--out", tmp_path / "set", "--address", address, RAY_ADDRESS=variable
        )
    else:
        done = search(feature_set, tmp_path / "run", "--address", address, RAY_ADDRESS=variable)
    assert done.returncode in (1, 2) and done.stderr.splitlines()[-1].startswith(message), done.stderr


@pytest.mark.slow
def test_failure_to_start_ray_raises_one_line(feature_set: Path, tmp_path: Path) -> None:
    """Ray cannot start with more memory for its store than there is."""
    code = (
        "import shardwave.search.backends.ray.backend as backend; backend.OBJECT_STORE = 1 << 60; "
        "import cli, sys; sys.argv[0] = 'shardwave'; cli.main()"
    )
    options = [
        "--model",
        "mlp",
        "--backend",
        "ray",
        "--trials",
        "1",
        "--epochs",
        "1",
        "--val-fold",
        "1",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, "search", str(feature_set), *options, "--out", str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert (
        last.startswith("error: Ray did not start on this machine: ") and "--backend optuna or random" in last
    ), done.stderr


TWO_SEARCHES = """
import os
for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
    del os.environ[name]  # as for a user
from shardwave.common.errors import ShardwaveError
from shardwave.search.backends.registry import make_backend
from shardwave.search.budget import SearchBudget
from shardwave.search.space import Grid, Space

def objective(params, report):
    report(1, 0.5)

if __name__ == "__main__":
    for address in (None, "127.0.0.1:1"):
        try:
            space, budget = Space({"a": Grid((1,))}), SearchBudget(trials=1, epochs=1, jobs=1)
            result = make_backend("ray", address=address).run(objective, space, budget, 0)
            print(result.trials[0].state)
        except ShardwaveError as error:
            print(error)
"""


@pytest.mark.slow
def test_a_cluster_after_a_search_with_its_own_ray_in_one_process(tmp_path: Path) -> None:
    """Ray keeps the token of the first search, and the cluster would end all actors of the second."""
    script = tmp_path / "two.py"
    script.write_text(TWO_SEARCHES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    state, error = done.stdout.splitlines()
    assert state == "COMPLETE" and "connect to a cluster from another process" in error, done.stderr
