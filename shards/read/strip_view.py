"""Views that are cut from the strips of a set: the full clips and their slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from shardwave.common.environment import cores
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.format.layout import slice_key
from shardwave.shards.format.manifest import ShardEntry
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.read.gather import copy_rows
from shardwave.shards.read.stored_view import StoredView
from shardwave.shards.read.view import OpenedSet, View, row_bytes

FULL = -1  # number of the full clip among the slices
MOST_READERS = 8  # each holds a batch in memory


class OpenedStrips(OpenedSet, Protocol):
    """The part of `ShardSet` that the views of strips use."""

    @property
    def config(self) -> SpectrogramConfig | None:
        """Spectrogram configuration with the slices to cut."""
        ...

    @property
    def built_config(self) -> SpectrogramConfig | None:
        """Spectrogram configuration of the build, whose slices the vector fields describe."""
        ...


class StripView(View):
    """Random access to the full clips, the slices, or both, of splits of a set of strips.

    Images are cut from the strip of their clip and resized along time when they are read, and equal those of
    a set of views within one level.

    Args:
        shards: The set.
        splits: Manifest entries of the strips of each split.
        view: `full`, `slice` or `both`: of each split first the full clips, then the slices.

    Attributes:
        strips: The stored samples.
        strip: Index of each sample's strip in `strips`. int64 [samples].
        number: Number of each sample's slice, FULL for the full clip. int32 [samples].
        spans: First frame and last frame + 1 of each sample in its strip. int64 [samples, 2].

    Raises:
        ShardwaveError: An index is missing or damaged, or does not fit the manifest.
    """

    def __init__(self, shards: OpenedStrips, splits: Sequence[Sequence[ShardEntry]], view: str) -> None:
        assert shards.config is not None and shards.built_config is not None
        self.set: OpenedStrips = shards
        self._splits, self._view, self._config = [list(entries) for entries in splits], view, shards.config
        self.strips = StoredView(shards, [entry for entries in self._splits for entry in entries])
        self._check_vectors(shards.built_config)
        self._has_vectors_of_slices = _slicing(shards.config) == _slicing(shards.built_config)
        frames = self.strips.counts["npy"].astype(np.int64)
        full = np.stack([np.zeros_like(frames), frames], axis=1)
        of_slice, number, spans = _slices(frames, shards.config)
        ends = np.cumsum([0, *(sum(entry["samples"] for entry in entries) for entries in self._splits)])
        parts = []
        for first, last in zip(ends[:-1], ends[1:], strict=True):
            if view != "slice":
                rows = np.arange(first, last)
                parts.append((rows, np.full(len(rows), FULL), full[rows]))
            if view != "full":
                inside = slice(*np.searchsorted(of_slice, [first, last]))
                parts.append((of_slice[inside], number[inside], spans[inside]))
        strip, slice_, span = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.strip, self.number, self.spans = strip.astype(np.int64), slice_.astype(np.int32), span
        self.cls, self.clip = self.strips.cls[self.strip], self.strips.clip[self.strip]

    def __reduce__(self) -> tuple[Any, ...]:
        return StripView, (self.set, self._splits, self._view)  # each process maps the files itself

    @property
    def readers(self) -> int:
        """One thread per core, at most `MOST_READERS`: cutting takes longer than copying."""
        return min(cores(), MOST_READERS)

    @property
    def is_full(self) -> np.ndarray:
        """Whether each sample shows its full clip, see `View.is_full`."""
        return np.asarray(self.number == FULL)

    def random_spans(self, seed: int, epoch: int, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
        """Draw the frames of every slice anew, determined by (seed, epoch, index of the sample).

        The length of a slice is multiplied by a factor, whose logarithm is uniform, and then limited to the
        clip; all starts within the clip have the same probability. Full clips are not changed.

        Args:
            seed: Seed of the training.
            epoch: Number of the epoch.
            stretch: Least and greatest factor.

        Returns:
            As `spans`.
        """
        frames = self.strips.counts["npy"].astype(np.int64)[self.strip]
        place, position = np.random.Generator(np.random.PCG64([seed, epoch, 1])).random((2, len(self)))
        low, high = np.log(stretch)
        factor = np.where(self.is_full, 1.0, np.exp(low + (high - low) * place))
        length = np.rint((self.spans[:, 1] - self.spans[:, 0]) * factor).astype(np.int64)
        length = np.clip(length, 1, frames)
        start = np.minimum((position * (frames - length + 1)).astype(np.int64), frames - length)
        return np.stack([start, start + length], axis=1)

    def _copy(self, rows: np.ndarray, name: str, target: np.ndarray, spans: np.ndarray | None) -> None:
        strip, number = self.strip[rows], self.number[rows]
        starts = self.strips.starts(strip, name)
        step = row_bytes(self.set.stored[name])
        if name != "npy":
            if not self._has_vectors_of_slices and (number != FULL).any():
                raise UsageError(
                    f"{self.set.location}: {name} describes the slices of the build: use the set without "
                    "other slices, or build it with them"
                )
            places = starts + step * (1 + number.astype(np.int64))
            copy_rows(self.strips.addresses(strip) + places, target)
            return
        from shardwave.shards.read.cut import cut

        spans = self.spans[rows] if spans is None else np.asarray(spans, np.int64)
        first, stop = spans[:, 0], spans[:, 1]
        if ((first < 0) | (stop <= first) | (stop > self.strips.counts[name][strip])).any():
            raise ValueError("spans must be frames of the clips of the samples")
        places = starts + step * first
        with self.strips.watched(strip, places, step * (stop - first), target.nbytes):
            cut(self.strips.addresses(strip) + places, stop - first, target)

    def data(self, i: int, field: str) -> memoryview:
        """Return the bytes of the clip's strip, or of a vector of one sample, see `View.data`."""
        data = self.strips.data(int(self.strip[i]), field)
        if field == "npy":
            return data
        step = row_bytes(self.set.stored[field])
        row = 1 + int(self.number[i])
        return data[row * step : (row + 1) * step]

    def meta(self, i: int) -> SampleMeta:
        """Return the json field that sample `i` has in a set of views."""
        meta, number = self.strips.meta(int(self.strip[i])), int(self.number[i])
        if number == FULL:
            return {**meta, "view": "full"}
        second = self._config.sample_rate / self._config.hop_length
        start, stop = self.spans[i].tolist()
        position, length = round(meta["start"] + start / second, 6), round((stop - start) / second, 6)
        return {**meta, "view": "slice", "slice": number, "start": position, "length": length}

    def key(self, i: int) -> str:
        """Return the key that sample `i` has in a set of views."""
        key, number = self.strips.key(int(self.strip[i])), int(self.number[i])
        return key if number == FULL else slice_key(key, number)

    def split_and_shard(self, i: int) -> tuple[str, str]:
        """Return the split of sample `i` and the file name of its shard."""
        return self.strips.split_and_shard(int(self.strip[i]))

    def check_files(self) -> None:
        """Check that every shard is still the file that was opened, see `View.check_files`."""
        self.strips.check_files()

    def _check_vectors(self, built: SpectrogramConfig) -> None:
        """Check that every strip has a vector for each view of the build: compiled code reads them."""
        frames, which = np.unique(self.strips.counts["npy"], return_inverse=True)
        views = np.array([1 + len(built.frame_bounds(count)) for count in frames.tolist()] or [1])
        for name, counts in self.strips.counts.items():
            if name != "npy" and (counts != views[which]).any():
                raise ShardwaveError(
                    f"{self.set.location}: the vectors of {name} do not fit the slices of the set: run verify"
                )


def _slicing(config: SpectrogramConfig) -> tuple[Any, ...]:
    return config.slices, config.slice_seconds, config.slice_overlap


def _slices(frames: np.ndarray, config: SpectrogramConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return strip, number and span of the slices of strips of `frames` [strips] frames, in order."""
    lengths, which = np.unique(frames, return_inverse=True)
    bounds = [config.frame_bounds(length) if config.sliced else [] for length in lengths.tolist()]
    counts = np.array([len(each) for each in bounds], np.int64)
    firsts = np.cumsum(counts) - counts  # of each length in `table`
    table = np.array([span for each in bounds for span in each], np.int64).reshape(-1, 2)
    strip = np.repeat(np.arange(len(frames)), counts[which])
    begins = np.cumsum(counts[which]) - counts[which]
    number = np.arange(len(strip)) - begins[strip]
    return strip, number, table[firsts[which[strip]] + number]
