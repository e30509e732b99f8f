"""Optuna's journal, made to survive full disks and kills: no half lines, and a torn last line is removed when it is opened."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardwave.common.errors import ShardwaveError
from shardwave.search import line_file

BEGINNING = b'{"op_code"'  # of every line


def own_journal(path: Path) -> Any:
    """The storage of one search, in its run folder, whose lock the caller holds.

    What a power failure may cost is rebuilt from trials.jsonl: Optuna's own backend would wait some milliseconds for the disk at
    every parameter and every value.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class OwnJournal(JournalFileBackend):
        """A journal of one process."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            line_file.append(path, _lines(logs))

    line_file.cut_torn_line(path, BEGINNING)
    return JournalStorage(OwnJournal(str(path)))


def shared_journal(path: Path) -> Any:
    """The storage of several searches (`--storage journal:PATH`).

    Raises:
        ShardwaveError: A line is damaged that is not the last one, or the file is no journal.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = path.absolute()  # Optuna's lock is a symbolic link to it: a relative one, seen from its folder, points nowhere

    class SharedJournal(JournalFileBackend):
        """A journal of several processes; half a line that another process left is removed before anything is appended."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            with self.locked():
                if not line_file.ends_with_newline(path):
                    line_file.cut_torn_line(path, BEGINNING)
                line_file.append(path, _lines(logs), sync=True)

        @contextlib.contextmanager
        def locked(self) -> Iterator[None]:
            self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()

    backend = SharedJournal(str(path))
    if os.access(path, os.W_OK):
        with backend.locked():
            line_file.cut_torn_line(path, BEGINNING)
    try:
        return JournalStorage(backend)
    except Exception as error:  # Optuna replays the journal, and raises whatever a damaged line leads to
        number = line_file.first_damaged_line(path)
        where = f"line {number} is damaged or no line of a journal" if number else f"it cannot be replayed ({error!r})"
        raise ShardwaveError(f"--storage journal:{path}: {where}; restore the file from a copy, or name another file") from error


def _lines(logs: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
