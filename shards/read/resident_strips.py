"""A copy of strips in the memory of a GPU, from which the images of a batch are cut and resized there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shardwave.common.errors import ShardwaveError
from shardwave.shards.read.loader import Batch
from shardwave.shards.read.resident import available
from shardwave.shards.read.stored_view import StoredView
from shardwave.shards.read.strip_view import StripView

PIXELS = 1 << 26  # of images that are resized at a time; bounds temporary memory


class ResidentStrips:
    """The strips of a view, and its `cls` and `clip` columns, as tensors on a device. A `loader.Source`.

    Clips need a fraction of the memory of their finished images, and other frames can be chosen in each
    epoch. The pixels are those of `shardwave.shards.read.cut`, up to the rounding of float32 sums.

    Args:
        view: The samples.
        device: Device of the tensors.
        frames: Result of `frames_of` for the strips of the view; None: computes it.

    Attributes:
        frames: The frames of all strips, one after another. uint8 [frames, frequency].

    Raises:
        ShardwaveError: The strips do not fit into the free memory of the device.
    """

    ahead = False

    def __init__(
        self, view: StripView, device: str | torch.device = "cpu", frames: Tensor | None = None
    ) -> None:
        self.device = torch.device(device)
        self.width, self._spans = view.set.field("npy")["shape"][1], view.spans
        counts = view.strips.counts["npy"].astype(np.int64)
        ends = np.cumsum(counts)
        self._first = (ends - counts)[view.strip]
        self.frames = frames_of(view.strips, self.device) if frames is None else frames
        self.cls = torch.from_numpy(view.cls).to(self.device, copy=True)
        self.clip = torch.from_numpy(view.clip).to(self.device, copy=True)

    def __len__(self) -> int:
        return len(self.cls)

    def fetch(self, rows: np.ndarray, spans: np.ndarray | None = None) -> Batch:
        """Return the batch of the samples `rows` (int64 [batch]) on the device, see `loader.Source.fetch`."""
        spans = self._spans[rows] if spans is None else spans
        lengths = spans[:, 1] - spans[:, 0]
        places = np.stack([rows, self._first[rows] + spans[:, 0], lengths])
        index, first, count = self._moved(torch.from_numpy(places))
        together = max(1, PIXELS // (self.width * self.frames.shape[1]))
        taps = int(np.ceil(2 * max(1.0, lengths.max(initial=1) / self.width))) + 1
        images = [
            resized(self.frames, *part, self.width, taps)
            for part in zip(first.split(together), count.split(together), strict=True)
        ]
        return {
            "npy": torch.cat(images),
            "cls": self.cls.index_select(0, index),
            "clip": self.clip.index_select(0, index),
            "index": index,
        }

    def _moved(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def resized(frames: Tensor, first: Tensor, count: Tensor, width: int, taps: int) -> Tensor:
    """Resize ranges of frames along time, with the weights of `preprocess.dsp.filters.resize`.

    Args:
        frames: Pixels, uint8 [frames, frequency].
        first: First frame of each image. int64 [images].
        count: Number of frames of each image. int64 [images].
        width: Columns of an image.
        taps: Upper bound of the number of frames with a weight in a column.

    Returns:
        The images, rounded half up. uint8 [images, frequency, width].
    """
    scale = count.double()[:, None] / width
    radius = scale.clamp_min(1.0)
    centre = (torch.arange(width, device=frames.device, dtype=torch.float64) + 0.5) * scale - 0.5
    start = torch.ceil(centre - radius)
    total = torch.zeros_like(centre)
    for tap in range(taps):
        total += (1 - (start + tap - centre).abs() / radius).clamp_min_(0)
    levels = torch.full((*centre.shape, frames.shape[1]), 0.5, device=frames.device)
    last = count[:, None] - 1
    for tap in range(taps):
        weight = (1 - (start + tap - centre).abs() / radius).clamp_min_(0) / total
        place = first[:, None] + torch.minimum((start + tap).long().clamp_min_(0), last)
        pixels = frames.index_select(0, place.flatten()).view(levels.shape)
        levels.addcmul_(pixels.float(), weight.float().unsqueeze(2))
    return levels.to(torch.uint8).transpose(1, 2).contiguous()


def frames_of(strips: StoredView, device: torch.device) -> Tensor:
    """Copy the frames of strips to a device.

    Args:
        strips: The strips.
        device: Device of the copy.

    Returns:
        The frames of all strips, one after another. uint8 [frames, frequency].

    Raises:
        ShardwaveError: They do not fit into the free memory of the device.
    """
    needed, free = size(strips), available(device)
    if needed > free:
        raise ShardwaveError(
            f"{strips.set.location}: {needed / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB free on "
            f"{device}: read from disk"
        )
    counts = strips.counts["npy"].tolist()
    frames = torch.empty((sum(counts), _height(strips)), dtype=torch.uint8, device=device)
    for i, part in enumerate(torch.split(frames, counts)):
        part.copy_(torch.from_numpy(strips.array(i, "npy").T.copy()))
    return frames


def size(strips: StoredView) -> int:
    """Return the number of bytes of a resident copy."""
    return int(strips.counts["npy"].sum(dtype=np.int64)) * _height(strips)


def fits(strips: StoredView, device: str | torch.device) -> bool:
    """Return whether a resident copy takes at most half of the free memory of a device."""
    return size(strips) <= 0.5 * available(device)


def _height(strips: StoredView) -> int:
    return strips.set.stored["npy"]["shape"][0] or 0
