"""The fork server of `multiprocessing`, which imports modules once and forks workers in milliseconds."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.process import BaseProcess
from pathlib import Path

from shardwave.search.workers import temporary

CONTEXT = multiprocessing.get_context("forkserver")


IS_SERVER = "SHARDWAVE_FORK_SERVER"  # environment variable of the server: "1"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def variables() -> dict[str, str]:
    """Return the environment variables of this process that are passed to workers.

    All variables are passed, except those that `environment` sets.
    """
    return {
        name: value for name, value in os.environ.items() if name not in (*THREAD_VARIABLES, "PYTHONPATH")
    }


@contextlib.contextmanager
def environment(threads: int) -> Iterator[None]:
    """Set the environment of processes that are started inside the context.

    Args:
        threads: Number of threads of their numerical libraries.

    Yields:
        None. `PYTHONPATH` is set to this process's `sys.path` until the context ends.
    """
    values = dict.fromkeys(THREAD_VARIABLES, str(threads))
    values[IS_SERVER] = "1"
    values["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)


def start(modules: Sequence[str], threads: int, process: BaseProcess | None = None) -> None:
    """Start the fork server unless it is running, and then a process.

    The server imports the modules in the background; starting a process waits for these imports. The server
    ends with this process.

    Args:
        modules: Modules that a new server imports; without effect on a running server.
        threads: Threads of numerical libraries; without effect on a running server.
        process: The process, created with `CONTEXT`; None: only start the server.

    Raises:
        OSError: If the server has ended.
        EOFError: If the server has ended.
    """
    folder()
    CONTEXT.set_forkserver_preload(["__main__", *modules, "shardwave.search.workers.server_exit"])
    resource_tracker.ensure_running()  # before the signal is blocked, because this unblocks it
    # new processes inherit the mask; the main process handles Ctrl-C
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment(threads):
            if process is None:
                forkserver.ensure_running()
            else:
                process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@functools.cache
def folder() -> Path:
    """Return the folder of the server's socket, which exists until this process ends."""
    context = temporary.folder()
    path = context.__enter__()
    before, tempfile.tempdir = tempfile.tempdir, str(path)
    try:
        util.get_temp_dir()  # `multiprocessing` keeps this choice
    finally:
        tempfile.tempdir = before
    # exitpriority: after the finalizer of `get_temp_dir`
    util.Finalize(None, context.__exit__, (None, None, None), exitpriority=-200)
    return path
