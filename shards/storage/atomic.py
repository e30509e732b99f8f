"""Atomic writes: a temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath


def write_bytes(path: AnyPath, data: bytes | bytearray | memoryview, *, lasting: bool = True) -> None:
    """Write a file atomically: to a temporary file in the same folder, which is then renamed.

    If this fails, because of a full disk or Ctrl-C, the temporary file is removed and `path` is unchanged.

    Args:
        path: The file, or its URL; a store replaces an object as a whole without a temporary file.
        data: Content of the file.
        lasting: Whether to wait until file and rename are on disk (fsync).
    """
    if not isinstance(path, Path):
        any_path.write(path, bytes(data))
        return
    with opened(path, lasting=lasting) as file:
        file.write(data)


@contextlib.contextmanager
def opened(path: Path, *, lasting: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`, which is renamed to `path` at the end of the context.

    If the context ends with an error, the temporary file is removed and `path` is unchanged.

    Args:
        path: The file.
        lasting: Whether to wait until file and rename are on disk (fsync).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if lasting:
            sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # such as the error of a full disk
            error.filename = str(path)
        raise


def write_json(path: AnyPath, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, json_bytes(value, indent=2))


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    r"""Return `value` as JSON in UTF-8 with a final newline.

    Python represents bytes of a file name that are not UTF-8 as lone surrogates. They are written as escapes
    (`\udcff`), from which `json.loads` restores the name.
    """
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def replace(temporary: Path, path: Path) -> None:
    """Rename a complete, synced file to its final name and sync the folder."""
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: AnyPath) -> None:
    """Write the content of a file, or the renames within a folder, to disk (fsync). Does nothing at a URL."""
    if not isinstance(path, Path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
