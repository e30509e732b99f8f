"""What the headers of a folder's clips say: lengths, rates and channels, by which settings are chosen and sizes estimated."""

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

MOST = 500  # headers read
MOST_REMOTE = 100  # of objects in a store: each is a request or two
THREADS, REMOTE_THREADS = 4, 32


@dataclasses.dataclass(frozen=True)
class Survey:
    """Headers of a folder's clips: of all of them, or of some that are spread evenly over the sorted list."""

    clips: int  # of the folder
    rows: np.ndarray  # int64 [headers]: numbers of the clips whose headers were read, ascending
    headers: list[Header | None]  # None: unreadable

    @property
    def whole(self) -> bool:
        """Whether every clip was looked at."""
        return len(self.rows) == self.clips

    @property
    def readable(self) -> np.ndarray:
        """bool [headers]: whether each was readable."""
        return np.array([header is not None for header in self.headers], bool)

    @property
    def seconds(self) -> np.ndarray:
        """float64 [readable headers]: lengths."""
        return np.array([header.seconds for header in self.headers if header is not None], float)

    @property
    def rates(self) -> np.ndarray:
        """int64 [readable headers]: sample rates in Hz."""
        return np.array([header.rate for header in self.headers if header is not None], np.int64)

    def slices(self, config: SpectrogramConfig) -> np.ndarray:
        """float64 [readable headers]: slices that `config` makes of each clip, by the length its header claims."""
        return np.array([len(config.slice_bounds(samples)) for samples in self.samples(config)], float)

    def samples(self, config: SpectrogramConfig) -> list[int]:
        """Samples of each readable clip at the rate of `config`."""
        return np.ceil(self.seconds * config.sample_rate).astype(np.int64).tolist()


NOTHING = Survey(0, np.empty(0, np.int64), [])


def take(audio: AnyPath, clips: Sequence[Clip], *, whole: bool = False) -> Survey:
    """Read the headers of `clips`, which lie below `audio`: of all where there are at most MOST (or with `whole`), else of MOST
    of them. Which ones follows from the sorted list alone.
    """
    remote = not isinstance(audio, Path)
    most = MOST_REMOTE if remote else MOST
    count = len(clips) if whole else min(len(clips), most)
    rows = np.arange(count) if count == len(clips) else np.linspace(0, len(clips) - 1, count).astype(np.int64)
    paths = list(dict.fromkeys(clips[row].path for row in rows.tolist()))  # a file may have many segments
    with ThreadPoolExecutor(REMOTE_THREADS if remote else THREADS, "headers") as pool:
        of_files = dict(zip(paths, pool.map(lambda path: header(audio / path), paths), strict=True))
    return Survey(len(clips), rows, [_of_clip(of_files[clips[row].path], clips[row]) for row in rows.tolist()])


def _of_clip(header: Header | None, clip: Clip) -> Header | None:
    """The header of a clip that may be a segment of its file; None if the file is unreadable, or ends before the segment."""
    if header is None or not clip.is_segment:
        return header
    seconds = min(header.seconds, header.seconds if clip.end is None else clip.end) - (clip.start or 0.0)
    return header._replace(seconds=seconds) if seconds > 0 else None


def header(path: AnyPath) -> Header | None:
    """The header of a file or an object, None where it is not readable; raises ShardwaveError where the store goes on failing."""
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
