"""Optuna's journal storage with removal of incomplete lines, left by full disks and killed processes."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import filelock

from shardwave.common.errors import ShardwaveError
from shardwave.search import line_file

BEGINNING = b'{"op_code"'  # first bytes of every line


def open_journal(path: Path, shared: bool) -> Any:
    """Open a journal as an Optuna storage.

    Args:
        path: The file; a missing file is created.
        shared: Whether several searches append to the file. Every append then holds the lock file
            `<path>.lock` and is synchronized to the disk. A journal that is not shared can be rebuilt from
            trials.jsonl.

    Returns:
        An `optuna.storages.JournalStorage`.

    Raises:
        ShardwaveError: If a shared file is not a journal, or a line before the last one is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: contextlib.AbstractContextManager[Any] = (
        filelock.FileLock(f"{path}.lock") if shared else contextlib.nullcontext()
    )

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with lock:
                if shared:
                    line_file.remove_incomplete_line(path, BEGINNING)
                line_file.append(path, lines.encode(), sync=shared)

    backend = Journal(str(path))
    if os.access(path, os.W_OK):
        with lock:
            line_file.remove_incomplete_line(path, BEGINNING)
    try:
        return JournalStorage(backend)
    except Exception as error:  # Optuna replays the journal; a damaged line can raise any exception
        if not shared:
            raise
        number = line_file.first_damaged_line(path)
        damage = f"line {number} is damaged or no line of a journal"
        reason = damage if number else f"it cannot be replayed ({error!r})"
        remedy = "restore a copy of the file or use another file"
        raise ShardwaveError(f"--storage journal:{path}: {reason}; {remedy}") from error
