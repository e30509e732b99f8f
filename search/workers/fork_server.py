"""The fork server of `multiprocessing`: it imports modules once, and workers are forked from it in milliseconds."""

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


@contextlib.contextmanager
def environment(threads: int) -> Iterator[None]:
    """Processes started in this context import as this one does, and their numerical libraries use so many threads."""
    values = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
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
    """Start the fork server unless it runs, and `process`, made with `CONTEXT`.

    The server imports `modules` at once, while the caller goes on; starting a process waits for these imports. One server
    serves all searches of this process and ends with it; `modules` and `threads` have an effect on a new server only.

    Raises:
        OSError, EOFError: The server ended.
    """
    folder()
    CONTEXT.set_forkserver_preload(["__main__", *modules])
    resource_tracker.ensure_running()  # before the signal is blocked: starting it unblocks the signal
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: the main process answers Ctrl-C
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
    """The folder of the server's socket; the first call makes it, and it is removed when this process ends."""
    context = temporary.folder()
    made = context.__enter__()
    before, tempfile.tempdir = tempfile.tempdir, str(made)
    try:
        util.get_temp_dir()  # `multiprocessing` keeps to what it chooses now
    finally:
        tempfile.tempdir = before
    util.Finalize(None, context.__exit__, (None, None, None), exitpriority=-200)  # after what `get_temp_dir` registers
    return made
