"""Progress on standard error: bars on a terminal, else lines; nothing if messages are not shown."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from shardwave.common import messages
from shardwave.common.printable import one_line

SILENCE = 10.0  # seconds without a line after which `heartbeat` prints one; doubled after each, up to LONGEST
LONGEST = 80.0

_bars: deque[Any] = deque(maxlen=8)  # the last bars that print lines


def bar(*, every: Any = None, shown: Any = True, **options: Any) -> Any:
    """Return a progress bar of tqdm on standard error, or an object that prints lines if that is no terminal.

    Args:
        every: Units between two lines; a tenth of the total by default.
        shown: Show progress; False for all but one of several processes with the same work.
        **options: Options of tqdm.
    """
    if "desc" in options:  # the name of a set or of a file
        options["desc"] = one_line(str(options["desc"]))
    hidden = messages.is_quiet() or not shown
    if hidden or sys.stderr.isatty():
        from tqdm import tqdm

        return tqdm(file=sys.stderr, disable=hidden, dynamic_ncols=True, **options)
    from shardwave.common.progress_lines import Lines

    _bars.append(Lines(every=every, **options))
    return _bars[-1]


@contextlib.contextmanager
def heartbeat(name: str) -> Iterator[None]:
    """Print a line after `SILENCE` seconds without one, within the context.

    The line is the state of the current progress lines, or else states that `name` is working. Nothing is
    printed on a terminal or if messages are not shown. Of several processes of Lightning, only the first
    prints.

    Args:
        name: Name of the work.
    """
    if messages.is_quiet() or sys.stderr.isatty() or os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    ended, begin = threading.Event(), time.monotonic()

    def watch() -> None:
        last, silence = begin, SILENCE  # time of the last known line; seconds until the next
        while not ended.wait(max(0.05, max(begin, messages.last_line) + silence - time.monotonic())):
            if max(begin, messages.last_line) > last:
                last, silence = messages.last_line, SILENCE  # another line was printed meanwhile
            if time.monotonic() - last >= silence:
                working = f"{name}: working, {messages.duration(time.monotonic() - begin)} so far"
                messages.log_line(next((str(bar) for bar in reversed(_bars) if not bar.disable), working))
                last, silence = messages.last_line, min(2 * silence, LONGEST)

    thread = threading.Thread(target=watch, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
