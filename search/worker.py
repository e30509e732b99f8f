"""The process that imports once and forks workers, and what a worker does.

Imports of torch and the like cost seconds. One template process pays them; every worker is a fork of it and starts in
milliseconds. The template runs no thread and touches no GPU, so that forking is safe; it ends, with its workers, when the main
process is gone.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from search.interface import Assignment, TrialStopped, check_report


def template_main(control: Connection, objective: Callable[..., None], threads: int) -> None:
    """Import, then fork a worker for every socket that arrives on `control`, and answer how workers ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(2, 1)  # standard output belongs to the command's result
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    children: set[int] = set()
    try:
        error = attempt(lambda: import_all(objective))
        while True:
            request = control.recv()
            if isinstance(request, dict):  # a worker, with these environment variables
                link = recv_handle(control)
                pid = os.fork()
                if pid == 0:
                    control.close()
                    os.environ.update(request)
                    _worker_process(Connection(link), objective, threads, error)
                os.close(link)
                children.add(pid)
                control.send(pid)
            else:  # a worker's process id: how did it end?
                os.kill(request, signal.SIGKILL)
                _, status = os.waitpid(request, 0)
                children.discard(request)
                control.send(os.waitstatus_to_exitcode(status))
    except (EOFError, ConnectionError):
        pass
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _worker_process(link: Connection, objective: Callable[..., None], threads: int, error: str | None) -> None:
    """A worker, from fork to exit; never returns."""
    status = 0
    try:
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        error = error or attempt(getattr(objective, "prepare", None))
        link.send(("broken", error) if error else ("ready", f"{socket.gethostname()}:{os.getpid()}"))
        while not error:
            work: list[Assignment] = link.recv()
            run_one(link, objective, work[0]) if len(work) == 1 else run_several(link, objective, work)
            link.send(("idle",))
    except (EOFError, ConnectionError):
        pass  # the main process is gone, or needs this worker no more
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
    """Run one trial, telling `("report", trial, epoch, value, spent)` and `("end", trial, state, error, info)`."""
    report = _Report(link, work.trial)
    state, error = run_trial(objective, work.params, report)
    link.send(("end", work.trial, state, error, report.info))


class _Report:
    def __init__(self, link: Connection, trial: int) -> None:
        self.trial = trial
        self.info: dict[str, Any] = {}
        self._link = link
        self._epoch = 0

    def __call__(self, epoch: int, value: float, spent: Mapping[str, float] | None = None) -> None:
        self._epoch = check_report(self._epoch, epoch, value)
        self._link.send(("report", {self.trial: (epoch, float(value), dict(spent or {}))}))
        if self._link.recv():
            raise TrialStopped


def run_several(link: Connection, objective: Any, work: list[Assignment]) -> None:
    """Run several trials as one; those that a failure of the batch leaves without an end are run one by one."""
    report = _BatchReport(link, [one.trial for one in work])
    try:
        objective.run_batch([dict(one.params) for one in work], report)
    except Exception as error:
        link.send(("batch-failed", [work[i].trial for i in sorted(report.open)], describe(error)))
        release_memory()
        return
    for i in sorted(report.open):
        link.send(("end", work[i].trial, "COMPLETE", None, report.infos[i]))


class _BatchReport:
    def __init__(self, link: Connection, trials: list[int]) -> None:
        self.trials = trials
        self.infos: list[dict[str, Any]] = [{} for _ in trials]
        self.open = set(range(len(trials)))
        self._link = link
        self._epochs = [0] * len(trials)

    def __call__(
        self, values: Mapping[int, tuple[int, float]], spent: Mapping[int, Mapping[str, float]] | None = None
    ) -> set[int]:
        told, ended = {}, set()
        for i, (epoch, value) in values.items():
            try:
                self._epochs[i] = check_report(self._epochs[i], epoch, value)
                told[self.trials[i]] = (epoch, float(value), dict((spent or {}).get(i, {})))
            except ValueError as error:
                self.fail(i, error)
                ended.add(i)
        self._link.send(("report", told))
        stopped: set[int] = self._link.recv()
        for i in sorted(values.keys() - ended):
            if self.trials[i] in stopped:
                self._end(i, "PRUNED", None)
                ended.add(i)
        return ended

    def fail(self, index: int, error: Exception) -> None:
        self._end(index, "FAILED", describe(error))

    def _end(self, i: int, state: str, error: str | None) -> None:
        self.open.discard(i)
        self._link.send(("end", self.trials[i], state, error, self.infos[i]))


def run_trial(objective: Callable[..., None], params: Mapping[str, Any], report: Any) -> tuple[str, str | None]:
    """Call the objective; returns the state it ended in and, when it failed, why. Memory errors free what they can."""
    try:
        objective(dict(params), report)
    except TrialStopped:
        return "PRUNED", None
    except Exception as error:
        reason = describe(error)
        report.info["traceback"] = traceback.format_exc()
        del error
        release_memory()
        return "FAILED", reason
    return "COMPLETE", None


def describe(error: BaseException) -> str:
    """An exception as one line: its type and message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def release_memory() -> None:
    """Give a failed trial's memory back, so that the next one does not inherit its shortage."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
