"""The process that imports once and forks workers, as its owner and its clients see it."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Client, Connection

from preprocess.environment import cores
from search.temporary import TemporaryFolder
from search.worker import template_main


class Template:
    """A process that imports at once, while the caller goes on, and forks a worker for everyone who connects to `address`.

    Imports of torch and the like cost seconds; a fork of a process that has them costs milliseconds. It ends, with its workers,
    when it is closed or when its owner dies; `folder` (open to this user alone), and whatever works in it, go with it.
    """

    def __init__(self, objective: Callable[..., None], threads: int) -> None:
        self._temporary = TemporaryFolder()
        self.folder = self._temporary.path
        self.address = str(self.folder / "workers")
        context = multiprocessing.get_context("spawn")
        self._control, theirs = context.Pipe()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen(64)
            arguments = (theirs, listener, str(self.folder), objective, threads)
            self._process = context.Process(target=template_main, args=arguments, name="search-template")
            self._process.start()
        theirs.close()

    @property
    def exit_status(self) -> int | None:
        """Of the template process; None while it lives."""
        return self._process.exitcode

    def how_it_ended(self, pid: int | None) -> str:
        """End the worker `pid` if it lives, and say how it ended."""
        try:
            self._control.send(pid)
            status = self._control.recv()
        except (EOFError, ConnectionError):
            return "the process that starts workers was killed"
        if status < 0:
            return f"its worker was killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")
        return f"its worker ended with exit status {status}"

    def close(self) -> None:
        """End the template and its workers."""
        with contextlib.suppress(ConnectionError):
            self._control.send("close")
        self._control.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._temporary.close()


def connect(address: str, environment: Mapping[str, str]) -> Connection:
    """A new worker, with these environment variables beside the template's: its end of the conversation (see `search.worker`).

    Raises OSError when no template listens there.
    """
    link = Client(address)
    link.send(dict(environment))
    return link


def threads(objective: Callable[..., None], jobs: int, chosen: str | None = None) -> int:
    """Threads of a worker.

    Args:
        objective: Its `threads`, where it has any, is the number that is of use to a trial.
        jobs: Workers that share the cores, where the objective says nothing.
        chosen: OMP_NUM_THREADS as the user set it, which is used instead of both.
    """
    first = (chosen or "").split(",")[0].strip()
    if first.isdigit() and int(first):
        return int(first)
    return getattr(objective, "threads", None) or max(1, cores() // jobs)
