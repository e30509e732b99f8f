"""What a search worker process does, and how a trial is run, in a worker or in one of Ray's actors."""

from __future__ import annotations

import errno
import gc
import importlib
import multiprocessing
import os
import shutil
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from shardwave.common import log
from shardwave.common.environment import cores
from shardwave.common.redact import redact
from shardwave.search.trial import Assignment, Report, TrialStopped, check_report

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: the disk's, the user's, or for a file of this size


def worker_main(link: Connection, objective: Callable[..., None], threads: int, gpu: str | None, folder: Path) -> None:
    """Run the assignments that `link` brings, one after another.

    After each report the worker receives whether the trial stops. It sends ("ready", name) or ("broken", message), then of its
    trials ("report", trial, epoch, value, spent, info) and ("end", trial, state, error, info).

    Args:
        link: The connection to the main process; the worker ends when it is closed.
        objective: What it calls.
        threads: Threads of a trial.
        gpu: The GPU that is visible to it; None: all.
        folder: The search's temporary folder, which the worker removes if the main process is killed.
    """
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    log.set_up()
    os.dup2(2, 1)  # standard output belongs to the command's result
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def send(*report: Any) -> bool:
        link.send(("report", *report))
        return link.recv()

    try:
        error = prepare(objective, threads)
        link.send(("broken", error) if error else ("ready", worker_name()))
        while not error:
            work: Assignment = link.recv()
            try:
                link.send(("end", work.trial, *run_trial(objective, work, send)))
            except DiskFull as full:
                link.send(("broken", str(full)))
    except (EOFError, ConnectionError):
        pass  # the main process is gone, or needs this worker no more


def _end_with_parent(folder: Path) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def worker_name() -> str:
    """This process, as trials name it: HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


def threads(objective: Callable[..., None], jobs: int) -> int:
    """Threads of a trial: OMP_NUM_THREADS where the user set it, the objective's `threads`, or a share of the cores."""
    chosen = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if chosen.isdigit() and int(chosen):
        return int(chosen)
    return getattr(objective, "threads", None) or max(1, cores() // jobs)


def prepare(objective: Callable[..., None], threads: int) -> str | None:
    """Import what the objective needs and call its `prepare`; returns why that failed, as one line, or None."""
    try:
        for name in getattr(objective, "modules", ()):
            importlib.import_module(name)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        getattr(objective, "prepare", lambda: None)()
    except Exception as error:
        return f"a search worker could not start: {describe(error)}"
    return None


class DiskFull(Exception):
    """A trial found no room for its weights: the search ends, and a resumed one runs the trial again."""


class _Report:
    def __init__(self, trial: int, send: Callable[..., bool]) -> None:
        self.trial = trial
        self.info: dict[str, Any] = {}
        self._send = send
        self._epoch = 0

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        self._epoch = check_report(self._epoch, epoch, value)
        if self._send(self.trial, epoch, float(value), dict(spent or {}), self.info):
            raise TrialStopped


def run_trial(
    objective: Callable[..., None], work: Assignment, send: Callable[..., bool]
) -> tuple[str, str | None, dict[str, Any]]:
    """Call the objective for one trial.

    Args:
        objective: See `shardwave.search.trial.Objective`.
        work: The trial.
        send: Called with (trial, epoch, value, spent, info) of every report; returns whether the trial stops.

    Returns:
        The state in which the trial ended, why it failed (or None), and what the objective noted in `Report.info`.

    Raises:
        DiskFull: There was no room for what the objective writes.
    """
    report: Report = _Report(work.trial, send)
    try:
        objective(dict(work.params), report)
    except TrialStopped:
        return "PRUNED", None, report.info
    except Exception as error:
        reason = describe(error)
        if isinstance(error, OSError) and error.errno in FULL:
            raise DiskFull(
                f"{error.filename or 'disk'}: {error.strerror}: free some space, then run the same command again with --resume"
            ) from None
        report.info["traceback"] = redact(traceback.format_exc())
        del error
        release_memory()
        return "FAILED", reason, report.info
    return "COMPLETE", None, report.info


def describe(error: BaseException) -> str:
    """An exception as one line: its type and message, without passwords in URLs."""
    message = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def release_memory() -> None:
    """Give a failed trial's memory back, so that the next one does not inherit its shortage."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
