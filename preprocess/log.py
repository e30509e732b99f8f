"""What `--verbose` shows: the rooms' own loggers on standard error, in this process and in those it starts."""

from __future__ import annotations

import logging
import os
import sys

from preprocess.printable import printable
from preprocess.redact import redact

VERBOSE = "SHARDWAVE_VERBOSE"  # environment variable, so that started processes know; "1" = on
NAMES = ("cli", "preprocess", "shards", "models", "search", "bench")  # every module logs under its own name


class _SafeFormatter(logging.Formatter):
    """Masks the passwords in what is logged, tracebacks included, and lets no control character of a name reach the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        record.msg, record.args = printable(record.getMessage(), lines=False), None
        return redact(super().format(record))


def set_up() -> None:
    """Show what the rooms log, where `--verbose` was given; once per process."""
    if os.environ.get(VERBOSE) != "1":
        return
    handler = logging.StreamHandler(sys.stderr)
    start = "\r\x1b[K" if sys.stderr.isatty() else ""  # over a progress bar, not behind it
    handler.setFormatter(_SafeFormatter(start + "%(asctime)s %(processName)s %(name)s: %(message)s", "%H:%M:%S"))
    for name in NAMES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.DEBUG)
