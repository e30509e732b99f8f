"""Ctrl-C (and SIGTERM) as something to wait for, not an exception in the middle of a write."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only makes the next `wait` raise KeyboardInterrupt; a second one raises at once.

    In a thread other than the main one, signals stay as they are.
    """

    def __enter__(self) -> Interrupts:
        self._seen = False
        self._reader, self._writer = os.pipe()
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._seen:
            raise KeyboardInterrupt
        self._seen = True
        os.write(self._writer, b"!")

    def wait(self, links: Sequence[Connection], seconds: float | None = None) -> list[Connection]:
        """The connections that have something to read, or none after so many seconds; raises KeyboardInterrupt once a signal has
        come."""
        ready = wait([*links, self._reader], seconds)
        if self._reader in ready:
            raise KeyboardInterrupt
        return [link for link in links if link in ready]
