"""Log handlers of the commands: messages and, with `--verbose`, log records, on standard error."""

from __future__ import annotations

import logging
import os
import sys

from shardwave.common import messages
from shardwave.common.printable import printable, write_line
from shardwave.common.redact import redact

VERBOSE = "SHARDWAVE_VERBOSE"  # environment variables, which child processes inherit; "1" = on
QUIET = "SHARDWAVE_QUIET"


def verbose() -> bool:
    """Return whether `--verbose` was given."""
    return os.environ.get(VERBOSE) == "1"


class _SafeFormatter(logging.Formatter):
    """Formatter that masks passwords, also in tracebacks, and escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        record.msg, record.args = printable(record.getMessage(), lines=False), None
        return redact(super().format(record))


class _MessageHandler(logging.Handler):
    """Handler that prints messages as plain lines, with passwords in URLs masked."""

    def emit(self, record: logging.LogRecord) -> None:
        write_line(redact(record.getMessage()), sys.stderr)


def set_up() -> None:
    """Install the handlers: messages unless `--quiet` was given, and log records with `--verbose`."""
    quiet = os.environ.get(QUIET) == "1"
    messages.LOGGER.handlers, messages.LOGGER.propagate = [_MessageHandler()], False
    messages.LOGGER.setLevel(logging.CRITICAL if quiet else logging.INFO)
    if verbose():
        handler = logging.StreamHandler(sys.stderr)
        start = "\r\x1b[K" if sys.stderr.isatty() else ""  # overwrite a progress bar
        handler.setFormatter(
            _SafeFormatter(start + "%(asctime)s %(processName)s %(name)s: %(message)s", "%H:%M:%S")
        )
        logger = logging.getLogger("shardwave")
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.DEBUG)
