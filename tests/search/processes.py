"""A look at the processes that a search started."""

from __future__ import annotations

from pathlib import Path


def alive(mark: str) -> list[str]:
    """Command lines of the living processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found
