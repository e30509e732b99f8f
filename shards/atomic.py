"""Files that appear whole or not at all: a temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shards.url_path import Place, UrlPath


def write_bytes(path: Place, data: bytes | bytearray) -> None:
    """Write `data` under a temporary name in the same folder, then rename it to `path`; stores need no such name."""
    if isinstance(path, UrlPath):
        path.write(bytes(data))
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Place, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def replace(temporary: Path, path: Path) -> None:
    """Rename a finished, synced file to its final name and make the rename last."""
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Place) -> None:
    """Make renames within `folder` last."""
    if isinstance(folder, UrlPath):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
