"""Survey of the headers of clips, for automatic settings and estimates of sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.probe import Header, probe
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.clip import Clip
from shardwave.shards.storage.any_path import AnyPath, ObjectFile

MAX_HEADERS = 500
MAX_REMOTE_HEADERS = 100  # in an object store, where each header takes one or two requests
THREADS, REMOTE_THREADS = 4, 32


@dataclasses.dataclass(frozen=True)
class Survey:
    """Headers of all clips, or of some that are evenly spread over the sorted list.

    Attributes:
        clips: Number of all clips.
        rows: int64 [headers], ascending numbers of the clips whose headers were read.
        headers: The headers; None for an unreadable one.
    """

    clips: int
    rows: np.ndarray
    headers: list[Header | None]

    @property
    def complete(self) -> bool:
        """Whether the headers of all clips were read."""
        return len(self.rows) == self.clips

    @property
    def readable(self) -> np.ndarray:
        """Whether each header is readable: bool [headers]."""
        return np.array([header is not None for header in self.headers], bool)

    @property
    def seconds(self) -> np.ndarray:
        """Lengths in seconds: float64 [readable headers]."""
        return np.array([header.seconds for header in self.headers if header is not None], float)

    @property
    def rates(self) -> np.ndarray:
        """Sample rates in Hz: int64 [readable headers]."""
        return np.array([header.rate for header in self.headers if header is not None], np.int64)

    def slices(self, config: SpectrogramConfig) -> np.ndarray:
        """Compute the number of slices of each clip from its header: float64 [readable headers]."""
        return np.array([len(config.slice_bounds(samples)) for samples in self.samples(config)], float)

    def samples(self, config: SpectrogramConfig) -> list[int]:
        """Compute the number of audio samples of each readable clip at the sample rate of `config`."""
        samples: list[int] = np.ceil(self.seconds * config.sample_rate).astype(np.int64).tolist()
        return samples


EMPTY = Survey(0, np.empty(0, np.int64), [])


def read(audio: AnyPath, clips: Sequence[Clip], *, complete: bool = False) -> Survey:
    """Read the headers of clips.

    Args:
        audio: The audio folder.
        clips: Sorted clips.
        complete: Whether to read all headers. By default at most MAX_HEADERS (at a URL: MAX_REMOTE_HEADERS)
            are read, which are selected by the positions in the list alone.

    Raises:
        ShardwaveError: An object store keeps failing.
    """
    remote = not isinstance(audio, Path)
    limit = MAX_REMOTE_HEADERS if remote else MAX_HEADERS
    count = len(clips) if complete else min(len(clips), limit)
    rows = np.arange(count) if count == len(clips) else np.linspace(0, len(clips) - 1, count).astype(np.int64)
    paths = list(dict.fromkeys(clips[row].path for row in rows.tolist()))  # a file may have several segments
    with ThreadPoolExecutor(REMOTE_THREADS if remote else THREADS, "headers") as pool:
        headers = dict(zip(paths, pool.map(lambda path: read_header(audio / path), paths), strict=True))
    return Survey(
        len(clips), rows, [_clip_header(headers[clips[row].path], clips[row]) for row in rows.tolist()]
    )


def _clip_header(header: Header | None, clip: Clip) -> Header | None:
    """Return the header of a clip, which may be a segment of its file; None if the file ends before it."""
    if header is None or not clip.is_segment:
        return header
    seconds = min(header.seconds, header.seconds if clip.end is None else clip.end) - (clip.start or 0.0)
    return header._replace(seconds=seconds) if seconds > 0 else None


def read_header(path: AnyPath) -> Header | None:
    """Read a header, or None if it is unreadable; raises ShardwaveError if an object store keeps failing."""
    try:
        if isinstance(path, Path):
            return probe(path)
        with ObjectFile(path) as file:
            try:
                return probe(file)  # type: ignore[arg-type]
            finally:
                if file.error is not None:
                    raise file.error
    except (BadAudio, OSError):
        return None
