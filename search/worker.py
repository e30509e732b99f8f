"""What the template process and the workers that it forks do. The template runs no thread and touches no GPU: forking is safe."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from preprocess import log
from preprocess.redact import redact
from search.temporary import clear
from search.trial import Assignment, TrialStopped, check_report

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: the disk's, the user's, or for a file of this size


def template_main(
    control: Connection, listener: socket.socket, folder: str, objective: Callable[..., None], threads: int
) -> None:
    """Import, then fork a worker for every client of `listener`, and answer on `control` how workers ended (see `Template`)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log.set_up()
    os.dup2(2, 1)  # standard output belongs to the command's result
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    left_alone = True
    children: list[int] = []
    try:
        error = attempt(lambda: import_all(objective))
        while True:
            if listener in wait([control, listener]):
                client, _ = listener.accept()
                pid = os.fork()
                if pid == 0:
                    control.close()
                    listener.close()
                    _worker_process(Connection(client.detach()), objective, threads, error)
                client.close()
                children.append(pid)
            else:
                request = control.recv()
                if request == "close":
                    left_alone = False
                    break
                pid = request or children[-1]  # None: one that died before it could tell its process id, so a late one
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                children.remove(pid)
                control.send(os.waitstatus_to_exitcode(status))
    except (EOFError, ConnectionError):
        pass
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if left_alone:
            clear(Path(folder))
        else:
            os._exit(0)  # the interpreter's own end, with torch imported, would take a second


def _worker_process(link: Connection, objective: Callable[..., None], threads: int, error: str | None) -> None:
    """A worker, from fork to exit; never returns.

    It is sent its environment, then assignments, and after each report whether the trial stops. It sends ("started", process id),
    ("ready", name) or ("broken", message), then of its trials ("report", trial, epoch, value, spent, info), ("end", trial,
    state, error, info), and ("idle",) when it waits for the next assignment.
    """
    status = 0
    try:
        os.environ.update(link.recv())
        link.send(("started", os.getpid()))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        error = error or attempt(getattr(objective, "prepare", None))
        error = error and f"a search worker could not start: {error}"
        link.send(("broken", error) if error else ("ready", f"{socket.gethostname()}:{os.getpid()}"))
        while not error:
            run_one(link, objective, link.recv())
            link.send(("idle",))
    except (EOFError, ConnectionError):
        pass  # the client is gone, or needs this worker no more
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def import_all(objective: Callable[..., None]) -> None:
    """Import the modules that the objective names."""
    for name in getattr(objective, "modules", ()):
        importlib.import_module(name)


def attempt(call: Callable[[], None] | None) -> str | None:
    """Call `call`, if there is one; returns its error as one line, or None."""
    try:
        if call is not None:
            call()
    except Exception as error:
        return describe(error)
    return None


def run_one(link: Connection, objective: Callable[..., None], work: Assignment) -> None:
    """Run one trial."""
    report = _Report(link, work.trial)
    try:
        state, error = run_trial(objective, work.params, report)
    except DiskFull as full:
        link.send(("broken", str(full)))
        return
    link.send(("end", work.trial, state, error, report.info))


class DiskFull(Exception):
    """A trial found no room for its weights: the search ends, and a resumed one runs the trial again."""


class _Report:
    def __init__(self, link: Connection, trial: int) -> None:
        self.trial = trial
        self.info: dict[str, Any] = {}
        self._link = link
        self._epoch = 0

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        self._epoch = check_report(self._epoch, epoch, value)
        self._link.send(("report", self.trial, epoch, float(value), dict(spent or {}), self.info))
        if self._link.recv():
            raise TrialStopped


def run_trial(objective: Callable[..., None], params: Mapping[str, Any], report: Any) -> tuple[str, str | None]:
    """Call the objective; returns the state it ended in and, when it failed, why. Memory errors free what they can.

    Raises:
        DiskFull: There was no room for what the objective writes.
    """
    try:
        objective(dict(params), report)
    except TrialStopped:
        return "PRUNED", None
    except Exception as error:
        reason = describe(error)
        if isinstance(error, OSError) and error.errno in FULL:
            raise DiskFull(
                f"{error.filename or 'disk'}: {error.strerror}: free some space, then run the same command again with --resume"
            ) from None
        report.info["traceback"] = redact(traceback.format_exc())
        del error
        release_memory()
        return "FAILED", reason
    return "COMPLETE", None


def describe(error: BaseException) -> str:
    """An exception as one line: its type and message, without passwords in URLs."""
    message = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def release_memory() -> None:
    """Give a failed trial's memory back, so that the next one does not inherit its shortage."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
