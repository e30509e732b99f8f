"""An image summed up from consecutive parts of a clip whose lines do not fit in memory together."""

from __future__ import annotations

import numpy as np

from preprocess.filters import resize_taps


class LongView:
    """The image [size, size] of frames [start, stop); its memory is taken with the first part that it lies in."""

    def __init__(self, start: int, stop: int, image: np.ndarray):
        self.start, self.stop, self.image = start, stop, image
        self._sums: np.ndarray | None = None  # float32 [time pixel, frequency pixel]

    def add(self, first: int, lines: np.ndarray) -> bool:
        """Take lines [frames, size], the levels of the frames from `first` on; parts come in order. True: the image is drawn."""
        low, high = max(first, self.start), min(first + len(lines), self.stop)
        if low >= high:
            return False
        size = len(self.image)
        if self._sums is None:
            self._sums = np.zeros((size, size), np.float32)
        taps = resize_taps(self.stop - self.start, size)
        width = taps.weights.shape[1]
        begin, end = low - self.start, high - self.start
        touched = slice(np.searchsorted(taps.first, begin - width, "right"), np.searchsorted(taps.first, end, "left"))
        columns = taps.first[touched, None] + np.arange(width) - begin
        inside = (columns >= 0) & (columns < end - begin)
        weights = np.zeros((len(columns), end - begin), np.float32)
        row = np.broadcast_to(np.arange(len(columns))[:, None], columns.shape)
        weights[row[inside], columns[inside]] = taps.weights[touched][inside]
        self._sums[touched] += weights @ lines[low - first : high - first]
        if high < self.stop:
            return False
        self.image[:] = (self._sums.T + 0.5).astype(np.uint8)
        self._sums = None
        return True
