"""Append-only files of JSON lines: atomic appends and removal of an incomplete last line."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from pathlib import Path

from shardwave.common.messages import say


def append(path: Path, lines: bytes, sync: bool = False) -> None:
    """Append lines to a file; on an error, such as a full disk, the file keeps its former content.

    Args:
        path: The file.
        lines: Complete lines, each with its newline.
        sync: Whether to synchronize the file to the disk.

    Raises:
        OSError: If the lines cannot be written; its `filename` is `path`.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        unwritten = memoryview(lines)
        try:
            while unwritten:
                unwritten = unwritten[file.write(unwritten) or 0 :]
            if sync:
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise OSError(error.errno, error.strerror, str(path)) from None


def remove_incomplete_line(path: Path, beginning: bytes) -> int:
    """Remove the last line if it has no newline or is not a JSON object, and print a message.

    Full disks, killed processes and power failures leave such lines.

    Args:
        path: The file; it may be missing. The caller holds the lock of its writers.
        beginning: First bytes of every line. A file with another beginning is not changed.

    Returns:
        The number of removed bytes.
    """
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(b"\n", 0, size - 1) + 1
            last, first = content[start:size], content[: len(beginning)]
        if (last.endswith(b"\n") and is_json(last)) or not beginning.startswith(first):
            return 0
        file.truncate(start)
        os.fsync(file.fileno())
        cause = "left by a full disk or a killed process"
        say(f"{path}: removed an incomplete last line of {size - start} bytes, {cause}")
        return size - start
    return 0


def first_damaged_line(path: Path) -> int | None:
    """Return the number (from 1) of the first line that is not a JSON object; None if all lines are."""
    with open(path, "rb") as file:
        return next((number for number, line in enumerate(file, 1) if not is_json(line)), None)


def is_json(line: bytes) -> bool:
    """Return whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
