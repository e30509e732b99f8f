"""What all tests share."""

from __future__ import annotations

import signal

import pytest

from shardwave.common import log

# Where the tests run in the background of a shell, an interrupt is ignored, and so it would be by every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def shown_messages() -> None:
    """Show messages on standard error, as the commands do."""
    log.set_up()
