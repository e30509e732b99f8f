"""BLAKE3 digests of shard contents."""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3


def file_digest(path: Path, threads: int = 1) -> str:
    """Compute the BLAKE3 digest of a file, in hexadecimal.

    Args:
        path: The file.
        threads: Number of threads that hash it; `blake3.AUTO` for one per core.

    Raises:
        OSError: The file cannot be read.
    """
    if os.path.getsize(path) == 0:  # an empty file cannot be mapped
        return blake3().hexdigest()
    return blake3(max_threads=threads).update_mmap(path).hexdigest()
