"""What all tests share."""

from __future__ import annotations

import signal

# Where the tests run in the background of a shell, an interrupt is ignored, and so it would be by every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
