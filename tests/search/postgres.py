"""A PostgreSQL server of the tests' own, on a Unix socket; it refuses to run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Its database's URL while the context lasts; skips the test where PostgreSQL or its driver is not
    installed."""
    pytest.importorskip("psycopg")
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("PostgreSQL is not installed: no initdb and pg_ctl on PATH")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"

    def command(*arguments: str) -> None:
        environment = {**os.environ, "HOME": str(folder)}
        done = subprocess.run(
            [*arguments, "-D", str(data)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            **other,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}"

    try:
        command("initdb", "--no-sync", "--auth=trust", "--username=search", "--locale=C", "--encoding=UTF8")
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=30"
        )
        command("pg_ctl", "start", "--wait", "--silent", f"--log={log}", f"--options={options}")
        try:
            yield f"postgresql://search@/postgres?host={folder}"
        finally:
            command("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
    finally:
        shutil.rmtree(folder)
