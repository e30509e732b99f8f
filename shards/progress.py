"""Progress on standard error: bars on a terminal, lines elsewhere, nothing under `--quiet`; and remarks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from preprocess.printable import one_line, write_line
from preprocess.redact import redact

SHORT = 2.0  # seconds of a process in which no progress lines are printed
INTERVAL = 1.0  # least seconds from a bar's start, or another line, to a progress line
SILENCE = 10.0  # seconds without a line after which `heartbeat` prints one; they double after each, up to LONGEST
LONGEST = 80.0

started = last_line = time.monotonic()
_bars: deque[Any] = deque(maxlen=8)  # that print lines, the last ones made
_unsaid = False


def bar(*, every: Any = None, shown: Any = True, **options: Any) -> Any:
    """Return a tqdm bar on standard error; where that is no terminal, one that prints lines.

    Args:
        every: Units after which a line is printed; a tenth of the total by default.
        shown: Whether to show anything: of several processes that do the same work, one does.
        options: As tqdm takes them.
    """
    if "desc" in options:  # the name of a set or of a file
        options["desc"] = one_line(str(options["desc"]))
    if quiet() or not shown or sys.stderr.isatty():
        from tqdm import tqdm

        return tqdm(file=sys.stderr, disable=quiet() or not shown, dynamic_ncols=True, **options)
    from shards.progress_lines import Lines

    _bars.append(Lines(every=every, **options))
    return _bars[-1]


@contextlib.contextmanager
def heartbeat(name: str) -> Iterator[None]:
    """Print a line after `SILENCE` seconds without one: the state of the open progress lines, or that `name` is working.

    Where standard error is a terminal, or `--quiet` was given, it does nothing; of processes that Lightning started, one prints.
    """
    if quiet() or sys.stderr.isatty() or os.environ.get("LOCAL_RANK", "0") != "0":
        yield
        return
    ended, begin = threading.Event(), time.monotonic()

    def watch() -> None:
        mine, silence = begin, SILENCE  # the time of the last line printed here; how long to wait for the next
        while not ended.wait(max(0.05, max(begin, last_line) + silence - time.monotonic())):
            if max(begin, last_line) > mine:
                mine, silence = last_line, SILENCE  # somebody else has printed
            if time.monotonic() - mine >= silence:
                working = f"{name}: working, {duration(time.monotonic() - begin)} so far"
                print_line(next((str(bar) for bar in reversed(_bars) if not bar.disable), working))
                mine, silence = last_line, min(2 * silence, LONGEST)

    thread = threading.Thread(target=watch, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def print_line(text: str) -> None:
    """Print a line on standard error, passwords in URLs masked."""
    global last_line
    last_line = time.monotonic()
    write_line(redact(text), sys.stderr)


def duration(seconds: float) -> str:
    """Return a duration as text: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def say(*lines: str) -> None:
    """Print a remark of one or several lines on standard error.

    Passwords in URLs are masked; line ends within a line, of a file's name, are escaped.
    """
    if not silent():
        print_line("\n".join(map(one_line, lines)))


def silent() -> bool:
    """Whether remarks are not shown, so that nothing need be found out for them."""
    return quiet() or _unsaid


@contextlib.contextmanager
def unsaid() -> Iterator[None]:
    """Leave out the remarks of what works for somebody else on a temporary set; bars still show."""
    global _unsaid
    before, _unsaid = _unsaid, True
    try:
        yield
    finally:
        _unsaid = before


def quiet() -> bool:
    """Whether `--quiet` was given (SHARDWAVE_QUIET=1: started processes know it too)."""
    return os.environ.get("SHARDWAVE_QUIET") == "1"
