"""What the search tests share: a Ray instance for all of them, and a look at what processes leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from processes import alive

RAY = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from search.interface import SearchBudget
from search.ray_backend import ray_running
with ray_running(None, SearchBudget(jobs=2, trials=2), None):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a Ray instance, started once: a search of its own takes seconds to start one."""
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.getcwd()]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    process = subprocess.Popen(
        [sys.executable, "-c", RAY.format(path=path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    os.environ["RAY_AUTH_MODE"] = "disabled"
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.communicate("")


@pytest.fixture
def marked() -> Iterator[dict[str, str]]:
    """An environment that marks every process started with it; when the test ends, none of them may live."""
    mark = f"SHARDWAVE_TEST={uuid.uuid4()}"
    name, value = mark.split("=")
    yield {**os.environ, name: value}
    left = alive(mark)
    assert not left, left
