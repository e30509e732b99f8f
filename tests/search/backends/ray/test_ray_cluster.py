"""Searches on a Ray cluster of three nodes: results where the search was started, trials on all nodes, one
of them lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, cluster
from objectives import EPOCHS, curve, lines

ROOT = Path(__file__).parents[4]
TRIALS = 5


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with cluster(3) as made:
        yield made


def driver(nodes: Cluster, *command: str | Path) -> subprocess.Popen[str]:
    """A search's main process: its temporary files are in a folder that no node sees."""
    environment = {**nodes.environment, "TMPDIR": str(nodes.private), "SHARDWAVE_QUIET": "1"}
    environment["SHARDWAVE_CACHE"] = str(nodes.folder / "driver-cache")
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_search_on_a_set_at_a_url(nodes: Cluster, feature_set: Path) -> None:
    """Every node fills its own cache, and the best trial's weights arrive in the run folder, which only the
    driver sees."""
    out = nodes.private / "run"
    url = f"file://{feature_set}"
    process = driver(
        nodes, ROOT / "cli.py", "search", url, "--model", "mlp", "--backend", "ray", "--address",
        nodes.address, "--trials", "6", "--epochs", "2", "--val-fold", "1", "--device", "cpu",
        "--scheduler", "none", "--out", out, "--json",
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["state"] == "COMPLETE" and result["states"] == {"COMPLETE": 6} and result["set"] == url
    assert result["jobs"] == len(nodes.nodes)  # as many as the cluster has CPUs
    assert (out / "checkpoint.ckpt").exists() and not (out / "kept").exists()
    assert "trained again" not in errors
    if nodes.separate:
        workers = {json.loads(line)["worker"].split(":")[0] for line in lines(out / "trials.jsonl")}
        assert workers <= set(nodes.nodes)
        for name in workers:
            assert list((nodes.folder / name / "cache").glob("*/*.tar"))


@pytest.mark.slow
def test_a_lost_nodes_trial_runs_again(nodes: Cluster, tmp_path: Path) -> None:
    process = driver(
        nodes,
        Path(__file__).parents[2] / "run_search.py",
        "ray",
        tmp_path,
        "Placed",
        str(TRIALS),
        nodes.address,
    )
    try:
        wait_for(lambda: len(lines(tmp_path / "placed")) == 3, process)
        places = dict(line.split() for line in lines(tmp_path / "placed"))
        if nodes.separate:
            assert set(places) == {"one", "two", "three"}  # one trial on each
        nodes.kill("three")
        (tmp_path / "go").touch()
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()
    found = json.loads((tmp_path / "outcome.json").read_text())
    rows = found["trials"]
    assert found["state"] == "COMPLETE" and [row["trial"] for row in rows] == list(range(TRIALS))
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert sorted(row["attempt"] for row in rows) == [1] * (TRIALS - 1) + [2]
    if nodes.separate:
        assert [row["attempt"] for row in rows if row["trial"] == int(places["three"])] == [2]
    for row in rows:
        assert row["values"] == [curve(row["params"], epoch) for epoch in range(1, EPOCHS + 1)]
