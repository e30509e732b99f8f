"""Files that appear whole or not at all: a temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath


def write_bytes(path: AnyPath, data: bytes | bytearray | memoryview, *, lasting: bool = True) -> None:
    """Write `data` under a temporary name in the same folder, then rename it to `path`; stores need no such name.

    With `lasting`, it is on disk when this returns. Whatever ends it before that, a full disk or Ctrl-C, `path` is as it was and
    the temporary file is removed.
    """
    if not isinstance(path, Path):
        any_path.write(path, bytes(data))
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if lasting:
            sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # of a full disk, for one
            error.filename = str(path)
        raise


def write_json(path: AnyPath, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, json_bytes(value, indent=2))


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    r"""Return `value` as JSON in UTF-8 with a final newline.

    Python keeps those bytes of a file name that are not UTF-8 as lone surrogates; they are written as escapes (`\udcff`), which
    `json.loads` turns back into the same name.
    """
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def replace(temporary: Path, path: Path) -> None:
    """Rename a finished, synced file to its final name and make the rename last."""
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: AnyPath) -> None:
    """Make a file's bytes, or renames within a folder, last."""
    if not isinstance(path, Path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
