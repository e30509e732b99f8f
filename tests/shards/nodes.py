"""Ray nodes on this machine, each a process group with one CPU, ports and a temporary folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.shards.s3 import free_port

RAY = ("from ray.scripts.scripts import main; main()", "--num-cpus=1", "--object-store-memory=80000000")
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
PORTS = ("--min-worker-port=0", "--max-worker-port=0", "--node-ip-address=127.0.0.1")


class Node:
    """A running node; the head if `address` is None. Its workers write temporary files to `folder`/tmp."""

    def __init__(self, folder: Path, environment: dict[str, str], address: str | None = None):
        self.folder = folder
        (folder / "tmp").mkdir(parents=True)
        self.address = address or f"127.0.0.1:{free_port()}"
        port = self.address.rsplit(":", 1)[1]
        role = (
            [f"--address={self.address}"]
            if address
            else ["--head", f"--port={port}", "--include-dashboard=false"]
        )
        agent = f"--dashboard-agent-listen-port={free_port()}"
        command = [sys.executable, "-c", RAY[0], "start", "--block", *RAY[1:], *PORTS, agent, *role]
        with open(folder / "log", "w") as log:
            self._process = subprocess.Popen(
                [*command, f"--temp-dir={folder}/ray"],
                env={**environment, "TMPDIR": f"{folder}/tmp"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it runs."""
        log = self.folder / "log"
        wait_for(
            lambda: "Ray runtime started" in log.read_text() or self._process.poll() is not None, "a Ray node"
        )
        assert self._process.poll() is None, log.read_text()

    def workers(self) -> list[int]:
        """The processes that build a task."""
        return [pid for pid in descendants(self._process.pid) if b"build_task" in _command(pid)]

    def kill(self) -> None:
        """End all its processes at once, with no chance to say so."""
        for pid in (*descendants(self._process.pid), self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def descendants(pid: int) -> list[int]:
    """The processes below the process."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 400) -> None:
    """Wait until a condition holds.

    Args:
        condition: Function that returns whether it holds.
        what: Name of the condition, for the message.
        seconds: Maximum time to wait.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def cluster(environment: dict[str, str], count: int = 3) -> Iterator[list[Node]]:
    """`count` nodes with one CPU each, the head first; nothing of them is left afterwards."""
    given = {**os.environ, **environment, **SETTINGS}
    folder = Path(tempfile.mkdtemp(prefix="sw-", dir="/tmp"))  # a socket's path is short
    nodes: list[Node] = []
    try:
        nodes.append(Node(folder / "0", given))
        nodes[0].wait()
        nodes += [Node(folder / str(number), given, nodes[0].address) for number in range(1, count)]
        for node in nodes:
            node.wait()
        yield nodes
    finally:
        for node in reversed(nodes):
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)
