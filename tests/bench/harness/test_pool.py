"""Warm worker processes: prepared once, every one of them, with one thread each."""

import os
import subprocess
import sys
import time

import pytest

from shardwave.bench.harness.pool import Pool


def double_setup(factor):
    pid = os.getpid()
    return lambda task: (task * factor, pid, os.environ["OMP_NUM_THREADS"])


def test_every_worker_is_prepared_and_tasks_keep_their_order():
    before = os.environ.get("OMP_NUM_THREADS")
    pool = Pool(2)
    try:
        assert [value for value, _, _ in pool.map([1, 2, 3, 4], double_setup, 2)] == [2, 4, 6, 8]
        together = pool.each([1, 2], double_setup, 3)
        assert [value for value, _, _ in together] == [3, 6]
        assert len({pid for _, pid, _ in together}) == 2 and os.getpid() not in {
            pid for _, pid, _ in together
        }
        assert {threads for _, _, threads in together} == {"1"}
        with pytest.raises(ValueError, match="2 workers need as many tasks"):
            pool.each([1], double_setup, 2)
    finally:
        pool.close()
    assert os.environ.get("OMP_NUM_THREADS") == before


KILLED = """
import os, signal, time
from shardwave.bench.harness.pool import Pool

if __name__ == "__main__":
    pool = Pool(1)
    pool._executor.submit(time.sleep, 600)
    while not pool._executor._processes:
        time.sleep(0.01)
    time.sleep(1)
    print(*pool._executor._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_do_not_outlive_a_killed_owner(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    said = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    (worker,) = map(int, said.stdout.split())
    until = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < until:
        time.sleep(0.05)
    assert said.returncode == -9 and not os.path.exists(f"/proc/{worker}")
