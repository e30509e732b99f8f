"""Where `compiled` keeps machine code; told without loading Numba."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path


@functools.cache
def cache_folder() -> Path | None:
    """The first that can be written of NUMBA_CACHE_DIR, the package's own `__pycache__` and the user's cache folder."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.read_bytes())
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardwave"
    named = os.environ.get("NUMBA_CACHE_DIR")
    for base in [Path(named)] if named else [package / "__pycache__", user]:
        folder = base / f"compiled-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def holds_engine() -> bool:
    """Whether machine code of this package, as it is now, is kept."""
    folder = cache_folder()
    return folder is not None and any(folder.glob(f"{Path(__file__).parent.name}_*/*.nbi"))
