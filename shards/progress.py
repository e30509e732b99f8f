"""Progress on standard error: bars on a terminal, lines elsewhere, nothing under `--quiet`; and remarks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from preprocess.printable import one_line, write_line
from preprocess.redact import redact

SHORT = 2.0  # seconds of a process in which no progress lines are printed
INTERVAL = 1.0  # least seconds from a bar's start, or another line, to a progress line
SILENCE = 10.0  # seconds without a line after which `heartbeat` prints one; they double after each, up to LONGEST
LONGEST = 80.0

_started = _last_line = time.monotonic()
_unsaid = False


def bar(*, every: Any = None, shown: Any = True, **options: Any) -> Any:
    """Return a progress bar on standard error with tqdm's interface; where standard error is no terminal, one that prints lines.

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
    return Lines(every=every, **options)


class Lines:
    """Progress as lines: one for each `every` units, with the time left.

    None is printed in the first `SHORT` seconds of the process, nor within `INTERVAL` seconds of another line: then the next
    update prints it. It has the methods of tqdm that this project calls; options that concern a bar's looks are ignored.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        *,
        total: float | None = None,
        initial: float = 0,
        desc: str = "",
        unit: str = "it",
        unit_scale: bool = False,
        every: float | None = None,
        **_: Any,
    ) -> None:
        self.total = len(iterable) if total is None and hasattr(iterable, "__len__") else total  # type: ignore[arg-type]
        self.n, self._initial, self._iterable = initial, initial, iterable
        self._name, self._unit, self._counts, self._every = desc, unit.strip(), not unit_scale, every
        self._postfix = ""
        self._begin = time.monotonic()
        self._steps = self._passed()
        _open.append(self)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._iterable or ():
                yield item
                self.update()

    def update(self, count: float = 1) -> None:
        """Count units; prints a line where one is due."""
        self.n += count
        self.refresh()

    def refresh(self) -> None:
        """Print a line where one is due."""
        now = time.monotonic()
        steps = self._passed()
        if steps > self._steps and now - _started >= SHORT and now - max(self._begin, _last_line) >= INTERVAL:
            self._steps = steps
            print_line(self.line())

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Set what is said beside the count."""
        self._postfix = text
        if refresh:
            self.refresh()

    def set_postfix(self, refresh: bool = True, **values: Any) -> None:
        """Set what is said beside the count, as names and values."""
        self.set_postfix_str(", ".join(f"{name} {value}" for name, value in values.items()), refresh)

    def close(self) -> None:
        """End it; prints its last line where one is due that came too soon after another."""
        if self in _open:
            _open.remove(self)
            if self.total and self.n >= self.total and self._passed() > self._steps and time.monotonic() - _started >= SHORT:
                print_line(self.line())

    def line(self) -> str:
        """Return the state as text: the share that is done, the count, what the caller adds, the time left."""
        parts = [f"{100 * self.n / self.total:.0f} %"] if self.total else []
        if self._counts:
            of = f" of {self.total:,.0f}" if self.total else ""
            parts.append(f"{self.n:,.0f}{of} {self._unit}s")
        if self._postfix:
            parts.append(self._postfix)
        done, spent = self.n - self._initial, time.monotonic() - self._begin
        left = self.total is not None and 0 < done < self.total - self._initial
        parts.append(f"{duration(spent * (self.total - self.n) / done)} left" if left and self.total else duration(spent))
        return (f"{self._name}: " if self._name else "") + ", ".join(parts)

    def _passed(self) -> int:
        every = self._every or (self.total or 0) / 10
        return int(self.n / every * (1 + 1e-9)) if every else 0


_open: list[Lines] = []


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
        while not ended.wait(max(0.05, max(begin, _last_line) + silence - time.monotonic())):
            if max(begin, _last_line) > mine:
                mine, silence = _last_line, SILENCE  # somebody else has printed
            if time.monotonic() - mine >= silence:
                working = f"{name}: working, {duration(time.monotonic() - begin)} so far"
                print_line(_open[-1].line() if _open else working)
                mine, silence = _last_line, min(2 * silence, LONGEST)

    thread = threading.Thread(target=watch, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def print_line(text: str) -> None:
    """Print a line on standard error, passwords in URLs masked."""
    global _last_line
    _last_line = time.monotonic()
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
