"""Files of JSON lines that grow: whole lines or nothing, also on a full disk, and a torn last line removed."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from pathlib import Path

from shardwave.common.messages import say


def append(path: Path, lines: bytes, sync: bool = False) -> None:
    """Append whole lines; when they do not fit on the disk, the file is left as it was.

    Raises:
        OSError: The lines could not be written; `filename` names the file.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        left = memoryview(lines)
        try:
            while left:
                left = left[file.write(left) or 0 :]
            if sync:
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise OSError(error.errno, error.strerror, str(path)) from None


def cut_torn_line(path: Path, beginning: bytes) -> int:
    """Remove the last line if it has no newline or is not JSON, as a full disk, a kill or a power failure leaves it, and say so.

    Args:
        path: The file; it may be missing. The caller holds the lock of its writers.
        beginning: What every line begins with. A file whose first line does not is somebody else's and stays as it is.

    Returns:
        The number of bytes removed.
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
        say(f"{path}: removed a last line that was cut off ({size - start} bytes; a full disk or a kill leaves such)")
        return size - start
    return 0


def first_damaged_line(path: Path) -> int | None:
    """The number (from 1) of the first line that is not a JSON object, None if there is none."""
    with open(path, "rb") as file:
        return next((number for number, line in enumerate(file, 1) if not is_json(line)), None)


def is_json(line: bytes) -> bool:
    """Whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
