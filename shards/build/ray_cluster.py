"""Import Ray without its messages, and connect it to a running cluster or start it on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from typing import Any

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
PATIENCE = 10.0  # seconds to wait for a connection; Ray itself waits for minutes
_own_token: str | None = None  # of `use_own_token`


def ray_module(wanted_by: str, **settings: str) -> Any:
    """Import Ray with its messages disabled.

    Args:
        wanted_by: Option that needs Ray, for the error message.
        **settings: Environment variables for Ray, unless they are set.

    Returns:
        The package.

    Raises:
        UsageError: Ray is not installed.
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


def use_own_token() -> None:
    """Set a new authentication token for the Ray that this process starts: only this process can use it.

    By default, Ray 2.60 creates a token and leaves it in the home folder. Ray reads the token once, on
    import; the function does nothing if Ray is imported or RAY_AUTH_MODE is set.
    """
    global _own_token
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        _own_token = secrets.token_hex(32)
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_own_token)


def connect(ray: Any, address: str) -> None:
    """Connect to a running Ray cluster.

    Args:
        ray: The package.
        address: HOST:PORT, or `auto` for the cluster of RAY_ADDRESS, or else the one that runs on this
            machine.

    Raises:
        UsageError: The address does not have this form.
        ShardwaveError: No cluster answers at the address, or this process uses a token of its own.
    """
    named = (os.environ.get("RAY_ADDRESS") or "auto") if address == "auto" else address
    option = f"--address {address}" if named == address else f"--address auto (RAY_ADDRESS={named})"
    if _own_token is not None:
        # The cluster could not reach this process: all actors would end with "all references were removed"
        raise ShardwaveError(
            f"{option}: this process has started Ray with a token of its own, which Ray keeps: connect to a "
            "cluster from another process, or set RAY_AUTH_MODE before the first search"
        )
    _probe(named, option)
    try:
        ray.init(address=named, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError, or a plain Exception
        raise ShardwaveError(f"{option}: no Ray cluster answers there: {reason(error)}") from error


def start(ray: Any, **settings: Any) -> None:
    """Start Ray on this machine; RAY_ADDRESS is ignored.

    Args:
        ray: The package.
        **settings: Arguments of `ray.init`.

    Raises:
        ShardwaveError: Ray did not start.
    """
    if (os.environ.get("RAY_ADDRESS") or "local") != "local":
        named = os.environ["RAY_ADDRESS"]
        say(
            f"RAY_ADDRESS={named} is not used: without --address, Ray is started here; --address auto uses it"
        )
    try:
        ray.init(address="local", log_to_driver=False, logging_level="ERROR", **settings)
    except Exception as error:  # Ray raises a plain Exception after a timeout
        raise ShardwaveError(
            f"Ray did not start on this machine: {reason(error)}; free some memory or give fewer --jobs and "
            "go on with --resume, or choose --backend optuna or random, which need no Ray"
        ) from error


def reason(error: BaseException) -> str:
    """Return the message of an exception of Ray as one line."""
    return " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to a Ray cluster in the context; yields the package ray, or None if there is no address.

    Args:
        address: Address of the cluster, see `connect`.

    Raises:
        UsageError: Ray is not installed, or the address is not valid.
        ShardwaveError: Ray is already initialized, or no cluster answers at the address.
    """
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


def _probe(address: str, option: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536) or "/" in host:
        source = (
            "--address" if option == f"--address {address}" else "RAY_ADDRESS (taken with --address auto)"
        )
        raise UsageError(f"{source} must be auto or HOST:PORT of a Ray cluster, got {address}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise ShardwaveError(f"{option}: no Ray cluster answers there: {error.strerror or error}") from None
