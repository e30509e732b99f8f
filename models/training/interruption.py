"""Handling of Ctrl-C and SIGTERM during training."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

KINDS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context manager that defers SIGINT and SIGTERM until the training state can be saved.

    After a call of `install`, the first signal only sets `requested`; a second one raises KeyboardInterrupt
    immediately. The previous signal handlers are restored at the end. Outside the main thread the object has
    no effect.
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

    def install(self) -> None:
        """Install the handlers. Signals that the process ignores stay ignored."""
        for kind, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(kind, self._on_signal)

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt if a signal was received."""
        if self.requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Make SIGTERM, which clusters send before they end a job, raise KeyboardInterrupt inside a `with` block.

    The context manager has no effect outside the main thread.
    """
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
