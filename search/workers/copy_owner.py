"""The process that holds the resident copies on a GPU; all workers of the GPU map these copies.

PyTorch passes handles of the memory between the processes: CUDA IPC for a GPU, shared memory for the CPU. The
workers are processes, because PyTorch's random generator and numerical flags belong to a process: trials in
threads of one process would change each other's random numbers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Hashable
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

from shardwave.common.errors import ShardwaveError
from shardwave.search.workers import fork_server, process
from shardwave.search.workers.worker import describe, is_out_of_gpu_memory, release_memory

_log = logging.getLogger(__name__)
NOT_SHARED = "processes cannot share the memory of this GPU (%s): trials read from the shards"


class _Reply(NamedTuple):
    """Answer to a request.

    Attributes:
        copy: Return value of the objective's `load_copy`.
        error: Reason for which there is none.
        out_of_gpu_memory: Whether the memory of the GPU was exhausted.
    """

    copy: Any
    error: str | None = None
    out_of_gpu_memory: bool = False


class CopyOwner:
    """Handle of the process in the main process; waits until the process accepts requests.

    Args:
        objective: Objective with `load_copy`, see `shardwave.search.trial.Objective`.
        gpu: The only visible GPU of the process.
        threads: Threads of numerical libraries, see `fork_server.start`.

    Attributes:
        address: Address for `request`.
        link: Connection that is closed when the process ends.

    Raises:
        ShardwaveError: If the process cannot start.
    """

    def __init__(self, objective: Callable[..., None], gpu: str | None, threads: int) -> None:
        self.link, theirs = fork_server.CONTEXT.Pipe()
        folder = fork_server.folder()
        self.address = str(folder / f"copies-{self.link.fileno()}")
        Path(self.address).unlink(missing_ok=True)  # of an owner that was killed
        args = (theirs, objective, gpu, self.address, folder, fork_server.variables())
        self._process: BaseProcess = fork_server.CONTEXT.Process(target=owner_main, args=args)
        try:
            fork_server.start(getattr(objective, "modules", ()), threads, self._process)
            theirs.close()
            self.link.recv()
        except (OSError, EOFError) as error:
            raise ShardwaveError("the process that holds the data of a GPU ended while it started") from error

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self.link.poll()

    def end(self) -> int | None:
        """End the process, and return its exit status."""
        with contextlib.suppress(OSError, EOFError), _connect(self.address) as connection:
            connection.send(None)
            self._process.join(5)
        self._process.kill()
        self._process.join()
        self.link.close()
        return self._process.exitcode


def owner_main(
    link: Connection,
    objective: Any,
    gpu: str | None,
    address: str,
    folder: Path,
    variables: dict[str, str],
) -> None:
    """Answer requests for copies, one after another; each copy is made once.

    Args:
        link: Connection to the main process; receives a message when requests are accepted.
        objective: Objective with `load_copy`.
        gpu: The only visible GPU.
        address: Path of the socket.
        folder: Temporary folder of the search, see `process.set_up`.
        variables: Environment variables of the main process.
    """
    process.set_up(gpu, folder, variables)
    tempfile.tempdir = str(folder)  # of the socket that passes shared memory
    copies: dict[Hashable, Any] = {}
    with Listener(address, authkey=current_process().authkey) as listener:
        link.send("ready")
        while True:
            # a worker may be killed at any time
            with (
                contextlib.suppress(EOFError, ConnectionError, AuthenticationError),
                listener.accept() as connection,
            ):
                key = connection.recv()
                if key is None:
                    break
                connection.send_bytes(_reply(objective, copies, key))
    # PyTorch warns on exit that the workers, which were killed, did not release the copies
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _reply(objective: Any, copies: dict[Hashable, Any], key: Hashable) -> Any:
    """Return the pickled reply to a request."""
    try:
        if key not in copies:
            copies[key] = objective.load_copy(key)
    except Exception as error:
        reply = _Reply(None, describe(error), is_out_of_gpu_memory(error))
        del error
        release_memory()
        return ForkingPickler.dumps(reply)
    try:
        return ForkingPickler.dumps(_Reply(copies[key]))
    except RuntimeError as error:
        _log.warning(NOT_SHARED, describe(error))
        copies[key] = None
        release_memory()
        return ForkingPickler.dumps(_Reply(None))


def request(address: str, key: Hashable) -> Any:
    """Return the copy with the given key from a `CopyOwner`.

    Args:
        address: Address of the owner.
        key: Argument of the objective's `load_copy`.

    Returns:
        The return value of `load_copy`; None if the processes cannot share it.

    Raises:
        torch.OutOfMemoryError: If the memory of the GPU is exhausted.
        ShardwaveError: If `load_copy` failed.
        SystemExit: If the owner has ended: the main process then runs the trial again.
    """
    import torch

    try:
        with _connect(address) as connection:
            connection.send(key)
            reply: _Reply = connection.recv()
    except (EOFError, OSError):
        sys.exit("the process that holds the data of this GPU has ended")
    except RuntimeError as error:
        if is_out_of_gpu_memory(error):
            raise
        _log.warning(NOT_SHARED, describe(error))
        return None
    if reply.error is not None:
        raise (torch.OutOfMemoryError if reply.out_of_gpu_memory else ShardwaveError)(reply.error)
    return reply.copy


def _connect(address: str) -> Connection:
    return Client(address, authkey=current_process().authkey)
