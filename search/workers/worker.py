"""Main function of a worker process, and the execution of a trial in a worker or a Ray actor."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from shardwave.common.environment import cores
from shardwave.common.redact import redact
from shardwave.search.trial import Assignment, Ending, Info, Report, TrialStopped, check_report
from shardwave.search.workers import process

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, exhausted quota, file size limit


def worker_main(
    link: Connection,
    objective: Callable[..., None],
    threads: int,
    gpu: str | None,
    shared: Callable[[Any], Any] | None,
    folder: Path,
    variables: dict[str, str],
) -> None:
    """Run the trials that the main process assigns, one after another.

    The worker sends ("ready", name) after its preparation, ("report", trial, epoch, value, spent, info) after
    each epoch, ("end", trial, Ending) after each trial, and ("broken", message) for an error that
    ends the search. It receives an `Assignment` for each trial, and after each report whether the trial
    stops.

    Args:
        link: Connection to the main process; the worker ends when it is closed.
        objective: See `shardwave.search.trial.Objective`.
        threads: Number of CPU threads per trial.
        gpu: The only visible GPU; None: all GPUs are visible.
        shared: Function of the objective's resident copies that another process holds; None: the objective
            makes its own.
        folder: Temporary folder of the search, which the worker removes if the main process is killed.
        variables: Environment variables of the main process; the fork server may have older values.
    """
    process.set_up(gpu, folder, variables)
    if shared is not None:
        objective.shared = shared  # type: ignore[attr-defined]

    def send(*report: Any) -> bool:
        link.send(("report", *report))
        return bool(link.recv())

    try:
        error = prepare(objective, threads)
        link.send(("broken", error) if error else ("ready", worker_name()))
        while not error:
            work: Assignment = link.recv()
            try:
                link.send(("end", work.trial, run_trial(objective, work, send)))
            except DiskFull as full:
                link.send(("broken", str(full)))
    except (EOFError, ConnectionError):
        pass  # the main process has ended or closed the connection


def worker_name() -> str:
    """Return the name of this process as HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


def threads_per_trial(objective: Callable[..., None], jobs: int) -> int:
    """Return OMP_NUM_THREADS, else `objective.threads`, else the number of cores divided by `jobs`."""
    setting = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if setting.isdigit() and int(setting):
        return int(setting)
    return getattr(objective, "threads", None) or max(1, cores() // jobs)


def prepare(objective: Callable[..., None], threads: int) -> str | None:
    """Import the modules of the objective and call its `prepare`; return an error message or None."""
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
    """Raised if a trial cannot write its files on a full disk; the search ends and can be resumed."""


class _Report:
    def __init__(self, trial: int, send: Callable[..., bool]) -> None:
        self.trial = trial
        self.info: Info = {}
        self._send = send
        self._epoch = 0

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        self._epoch = check_report(self._epoch, epoch, value)
        if self._send(self.trial, epoch, float(value), dict(spent or {}), self.info):
            raise TrialStopped


def run_trial(objective: Callable[..., None], work: Assignment, send: Callable[..., bool]) -> Ending:
    """Call the objective for one trial.

    Args:
        objective: See `shardwave.search.trial.Objective`.
        work: The trial.
        send: Called with (trial, epoch, value, spent, info) of every report; returns whether the trial stops.

    Returns:
        The end of the trial.

    Raises:
        DiskFull: If the objective cannot write its files because the disk is full.
    """
    report: Report = _Report(work.trial, send)
    try:
        objective(dict(work.params), report)
    except TrialStopped:
        return Ending("PRUNED", None, report.info)
    except Exception as error:
        reason = describe(error)
        if isinstance(error, OSError) and error.errno in FULL:
            raise DiskFull(
                f"{error.filename or 'disk'}: {error.strerror}: free some space, then run the same "
                "command again with --resume"
            ) from None
        report.info["traceback"] = redact(traceback.format_exc())
        exhausted = is_out_of_gpu_memory(error)
        del error
        release_memory()
        return Ending("FAILED", reason, report.info, exhausted)
    return Ending("COMPLETE", None, report.info)


def describe(error: BaseException) -> str:
    """Return the type and the message of an exception as one line, without passwords in URLs."""
    message = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Return whether an exception means that the memory of the GPU is exhausted."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    # the CUDA runtime, cuBLAS and cuDNN have no exception of their own
    texts = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def release_memory() -> None:
    """Release the memory of a failed trial, so that the next one does not run out of memory as well."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
