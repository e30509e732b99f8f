"""Messages to users, through the logger `shardwave.messages`.

They have the level INFO, so that a program that imports the package shows none of them unless it configures
logging. The commands print them on standard error (see `log.set_up`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from shardwave.common.printable import one_line

LOGGER = logging.getLogger("shardwave.messages")

started = last_line = time.monotonic()
_muted = False


def say(*lines: str) -> None:
    """Log a message of one or several lines. Line ends within a line, as in a file name, are escaped."""
    if not is_muted():
        log_line("\n".join(map(one_line, lines)))


def log_line(text: str) -> None:
    """Log text without changes, and record the time in `last_line`."""
    global last_line
    last_line = time.monotonic()
    LOGGER.info("%s", text)


def is_quiet() -> bool:
    """Return whether neither messages nor progress are shown."""
    return not LOGGER.isEnabledFor(logging.INFO)


def is_muted() -> bool:
    """Return whether messages are not shown, so that nothing need be computed for them."""
    return _muted or is_quiet()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Suppress messages within the context, as about a temporary shard set; progress is still shown."""
    global _muted
    before, _muted = _muted, True
    try:
        yield
    finally:
        _muted = before


def duration(seconds: float) -> str:
    """Return a duration as text, for example 8 s, 3 min 20 s or 2 h 5 min."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"
