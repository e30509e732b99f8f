"""Ray, quiet, and connected to a cluster that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from preprocess.errors import ShardwaveError, UsageError

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
PATIENCE = 10.0  # seconds for the first answer; Ray itself would wait for minutes


def ray_module(wanted_by: str, **settings: str) -> Any:
    """The package, quiet; raises `UsageError`, naming who wants it, when it is not installed. `settings`: environment variables
    that it reads.
    """
    for name, value in {**QUIET, **settings}.items():
        os.environ.setdefault(name, value)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        import ray
    except ImportError:
        raise UsageError(f"{wanted_by} needs the package ray: pip install 'ray[tune]>=2.60'") from None
    return ray


def connect(ray: Any, address: str) -> None:
    """Join the cluster at `address` (`auto` or HOST:PORT); one clear line where none answers there."""
    _probe(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise ShardwaveError(f"--address {address}: no Ray cluster answers there: {reason}") from None


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The package ray, joined to the cluster at `address` meanwhile; None without an address."""
    if address is None:
        yield None
        return
    ray = ray_module("--address")
    if ray.is_initialized():
        raise ShardwaveError("Ray already runs in this process: call ray.shutdown() first")
    connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536) or "/" in host:
        raise UsageError(f"--address must be auto or HOST:PORT of a Ray cluster, got {address}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise ShardwaveError(f"--address {address}: no Ray cluster answers there: {error.strerror or error}") from None
