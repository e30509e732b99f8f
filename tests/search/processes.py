"""A look at the processes that a search started."""

from __future__ import annotations

import os
from pathlib import Path


def started(mark: str, folder: Path | None = None) -> dict[int, str]:
    """Command lines, by process id, of the living processes whose environment holds `mark` or that have a
    file open in `folder`.

    The second finds Ray's actors: they write their titles over their environment, but log into Ray's
    temporary folder.
    """
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                ours = mark.encode() in (process / "environ").read_bytes().split(b"\0")
                if ours or (folder is not None and _opens(process, folder)):
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if line:  # empty: it has ended, and waits to be noticed
                        found[int(process.name)] = line
            except OSError:
                continue
    return found


def _opens(process: Path, folder: Path) -> bool:
    return any(os.readlink(link).startswith(f"{folder}/") for link in (process / "fd").iterdir())


def remaining(folder: Path) -> list[Path]:
    """Return the entries of a temporary folder, except those of wandb, which Ray imports if it is installed.

    wandb makes two folders when it is imported, and a killed process leaves them.
    """
    return [path for path in folder.iterdir() if not path.name.endswith(("wandb-media", "wandb-artifacts"))]
