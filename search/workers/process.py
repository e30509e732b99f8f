"""Set-up of the processes of a search: signals of the main process's end, output, and the visible GPU."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
import threading
from pathlib import Path

from shardwave.common import log


def set_up(gpu: str | None, folder: Path, variables: dict[str, str]) -> None:
    """Set up a process that the fork server has started.

    Args:
        gpu: The only visible GPU; None: all GPUs are visible.
        folder: Temporary folder of the search, which the process removes if the main process is killed.
        variables: Environment variables of the main process; the fork server may have older values.
    """
    os.environ.update(variables)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    log.set_up()
    os.dup2(2, 1)  # standard output is reserved for the result of the command
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # the output of an objective is not lost if the process is killed
        sys.stdout.reconfigure(line_buffering=True)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _end_with_parent(folder: Path) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
