"""Optuna's journal, made to survive full disks and kills: no half lines, and a torn last line is removed."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import filelock

from shardwave.common.errors import ShardwaveError
from shardwave.search import line_file

BEGINNING = b'{"op_code"'  # of every line


def open_journal(path: Path, shared: bool) -> Any:
    """Open a journal as Optuna's storage.

    Args:
        path: The file; it is made where it is missing.
        shared: Several searches append to it, each under a lock (`path` with .lock) and synchronised with the disk. The
            journal in a run folder has one writer, and what a power failure costs is rebuilt from trials.jsonl.

    Raises:
        ShardwaveError: A line of a shared journal is damaged that is not the last one, or the file is no journal.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock: contextlib.AbstractContextManager[Any] = filelock.FileLock(f"{path}.lock") if shared else contextlib.nullcontext()

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            with lock:
                if shared:
                    line_file.cut_torn_line(path, BEGINNING)
                line_file.append(path, lines.encode(), sync=shared)

    backend = Journal(str(path))
    if os.access(path, os.W_OK):
        with lock:
            line_file.cut_torn_line(path, BEGINNING)
    try:
        return JournalStorage(backend)
    except Exception as error:  # Optuna replays the journal, and raises whatever a damaged line leads to
        if not shared:
            raise
        number = line_file.first_damaged_line(path)
        where = f"line {number} is damaged or no line of a journal" if number else f"it cannot be replayed ({error!r})"
        raise ShardwaveError(f"--storage journal:{path}: {where}; restore the file from a copy, or name another file") from error
