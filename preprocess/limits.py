"""What of an audio file is accepted; light to import, for the command line's defaults."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """What of an audio file is accepted; a file beyond it is quarantined."""

    seconds: float = 3_600.0  # longest clip
    missing_seconds: float = 0.1  # most that may be missing of what the file states that it holds


DEFAULTS = Limits()
