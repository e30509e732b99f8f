"""Copies of a unit's clips from an object store, for engines, which read files: some ahead of the one in work, then removed."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from shards.plan import PlannedClip
from shards.url_path import UrlPath

AHEAD = 16  # clips fetched at a time


class ClipCopies:
    """Iterated over, it gives the path of each clip's copy as soon as that is there; `done` removes it.

    A clip that is no longer in the store has a path without a file. Raises ShardwaveError where the store goes on failing, or
    gives other than the planned number of bytes.
    """

    def __init__(self, audio: UrlPath, clips: Sequence[PlannedClip], folder: Path):
        self._audio, self._clips, self._folder = audio, clips, folder

    def __iter__(self) -> Iterator[Path]:
        pool = ThreadPoolExecutor(AHEAD, "fetch")
        try:
            rest = iter(range(len(self._clips)))
            waiting: deque[Future[Path]] = deque(pool.submit(self._fetch, i) for i in islice(rest, AHEAD))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(self._fetch, i) for i in islice(rest, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def __getitem__(self, i: int) -> Path:
        return self._folder / f"clip-{i}"

    def done(self, i: int) -> None:
        """Remove the copy of clip i."""
        self[i].unlink(missing_ok=True)

    def _fetch(self, i: int) -> Path:
        planned = self._clips[i]
        with contextlib.suppress(FileNotFoundError):
            (self._audio / planned.clip.path).fetch(self[i], planned.bytes)
        return self[i]
