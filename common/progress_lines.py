"""Progress bars of tqdm as lines, for standard error that is no terminal."""

from __future__ import annotations

import io
import math
import time
from typing import Any

from tqdm import tqdm

from shardwave.common import messages

SHORT = 2.0  # seconds of a process in which no progress lines are printed
INTERVAL = 1.0  # minimum seconds from the start of a bar, or from another line, to a progress line


class Lines(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A tqdm bar that prints lines with the remaining time.

    No line is printed in the first `SHORT` seconds of the process or within `INTERVAL` seconds of another
    line; a later update, or the end, prints it then.

    Args:
        every: Units between two lines; a tenth of the total by default.
    """

    monitor_interval = 0  # without the monitor thread of tqdm, which would print too

    def __init__(self, *args: Any, every: float | None = None, **options: Any) -> None:
        # number of lines that are printed or skipped; infinite until tqdm is set up
        self._steps: float = math.inf
        super().__init__(
            *args,
            **{**options, "file": io.StringIO(), "leave": True, "delay": 0, "mininterval": 0, "miniters": 1},
        )
        self._every = every or (self.total or math.inf) / 10
        self._steps, self._begin = self._passed(), time.monotonic()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print a line if one is due; when the bar is closed (`pos` is 0), only at 100 %."""
        now = time.monotonic()
        if self._steps is math.inf or self._passed() <= self._steps or now - messages.started < SHORT:
            return
        if (
            self.n >= (self.total or math.inf)
            if pos == 0
            else now - max(self._begin, messages.last_line) >= INTERVAL
        ):
            self._steps = self._passed()
            messages.log_line(str(self))

    def __str__(self) -> str:
        """Return the finished share, the count, the postfix and the remaining time as text."""
        spent, done = self.format_dict["elapsed"], self.n - self.initial
        parts = [f"{100 * self.n / self.total:.0f} %"] if self.total else []
        if not self.unit_scale:
            parts.append(
                f"{self.n:,.0f}{f' of {self.total:,.0f}' if self.total else ''} {self.unit.strip()}s"
            )
        if self.postfix:
            parts.append(self.postfix)
        is_left = self.total is not None and 0 < done < self.total - self.initial
        parts.append(
            f"{messages.duration(spent * (self.total - self.n) / done)} left"
            if is_left
            else messages.duration(spent)
        )
        return (f"{self.desc}: " if self.desc else "") + ", ".join(parts)

    def _passed(self) -> int:
        return int(self.n / self._every * (1 + 1e-9))
