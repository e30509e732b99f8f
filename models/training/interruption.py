"""Ctrl-C and SIGTERM while a model is trained."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

KINDS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context in which a signal can be made to wait until the training's state can be saved.

    Once `arm` was called, the first SIGINT or SIGTERM only sets `requested`; a second one raises KeyboardInterrupt at once. The
    signal handlers of before are restored at the end. In a thread other than the main one signals stay as they are.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {kind: signal.getsignal(kind) for kind in KINDS}
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._before.items():
            if handler is not None and signal.getsignal(kind) is not handler:
                signal.signal(kind, handler)

    def arm(self) -> None:
        """From now on the first signal only sets `requested`. Signals that the process ignores stay ignored."""
        for kind, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(kind, self._note)

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt where a signal has come."""
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM (a cluster's notice) raise KeyboardInterrupt, as Ctrl-C does. Without effect outside the main thread."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
