"""Imported by the fork server after all other modules: ends it without the teardown of these modules.

The server holds the standard error of the command, so a program that reads it waits for the server's end.
"""

from __future__ import annotations

import atexit
import os

SERVER = (
    "SHARDWAVE_FORK_SERVER"  # "1" in the environment of the server, so that no other program ends this way
)

if os.environ.get(SERVER) == "1":
    atexit.register(os._exit, 0)
