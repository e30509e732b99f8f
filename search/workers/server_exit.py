"""Imported by the fork server alone, after all other modules: ends it without the teardown of these modules.

The server holds the standard error of the command, so that a program that reads it waits for the server's end.
"""

from __future__ import annotations

import atexit
import os

atexit.register(os._exit, 0)
