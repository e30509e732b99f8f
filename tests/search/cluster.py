"""A Ray cluster of several nodes on this machine: processes with names, resources and temporary folders of
their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class Cluster:
    """Nodes `one` (the head), `two`, … of one CPU each. Their host names are these where namespaces may be
    made, and there the
    folder `private`, in which the driver has its temporary files, is empty for them, as another machine's
    would be.
    """

    def __init__(self, folder: Path):
        self.folder, self.private = folder, folder / "private"
        self.private.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        self.environment |= {
            "RAY_raylet_start_wait_time_s": "300",
            "RAY_worker_niceness": "0",
        }  # for busy machines
        self.separate = (
            subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True).returncode == 0
        )
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a node; its set cache and its log lie in `folder/name`."""
        (self.folder / name).mkdir()
        where = (
            ["--head", "--port", self.address.split(":")[1], "--include-dashboard=false"]
            if name == "one"
            else []
        )
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
            "--num-cpus=1", "--num-gpus=0",
            "--node-ip-address=127.0.0.1", "--object-store-memory=80000000",
            f"--temp-dir={self.folder / name}",
            *(where or [f"--address={self.address}"]),
        ]  # fmt: skip
        if self.separate:
            script = f'hostname {name} && mount -t tmpfs none {self.private} && exec "$@"'
            command = ["unshare", "--uts", "--mount", "sh", "-c", script, "sh", *command]
        environment = {**self.environment, "SHARDWAVE_CACHE": str(self.folder / name / "cache")}
        with open(self.folder / name / "log", "w") as log:
            self.nodes[name] = subprocess.Popen(
                command, env=environment, start_new_session=True, stdout=log, stderr=log
            )
        if name == "one":
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(self.address.split(":")[1])), 1).close()
                return
            assert time.monotonic() < until and self.nodes["one"].poll() is None, (
                self.folder / "one" / "log"
            ).read_text()
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """The node is lost, with all that ran on it."""
        process = self.nodes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        for session in Path("/proc").glob("[0-9]*"):  # workers make groups of their own in the node's session
            with contextlib.suppress(OSError, IndexError, ValueError):
                if os.getsid(int(session.name)) == process.pid:
                    os.kill(int(session.name), signal.SIGKILL)
        process.wait()


JOINED = """
import sys, time, ray
while not ray.is_initialized():
    try:
        ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    except ConnectionError:  # no node is registered yet
        time.sleep(0.5)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.1)
"""


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """A cluster of so many nodes while the context lasts."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path is short
    made = Cluster(folder)
    try:
        for name in ("one", "two", "three", "four")[:nodes]:
            made.start(name)
        command = [sys.executable, "-c", JOINED, made.address, str(nodes)]
        subprocess.run(command, env=made.environment, check=True, timeout=400)
        yield made
    finally:
        for name in list(reversed(made.nodes)):
            made.kill(name)
        shutil.rmtree(folder, ignore_errors=True)
