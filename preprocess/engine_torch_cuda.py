"""The torch engine on CUDA: files decoded by a pool of CPU threads, batches of clips computed by `batch`, images copied back
meanwhile.

Samples go through pinned memory; copies to the device, computation and copies from it run on streams of their own, a few batches
in flight, so that decoding, copying, computing and the caller's writing overlap. torch's caching allocators keep the pinned
memory that is handed out. All engines of a process share the decoding threads.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from preprocess.batch import BatchTransform, Place, buffer_samples, extent, lay
from preprocess.config import SpectrogramConfig
from preprocess.engine_base import NO_CUDA, ClipOutput, Engine, EngineOutput, Segment, conditioned, decode_source, fit_clip
from preprocess.errors import BadAudio, UsageError
from preprocess.limits import DEFAULTS, Limits

IN_FLIGHT = 3  # batches
FRAMES = (1 << 13) - 4  # of a batch: 6 clips of 30 s, 16 MB (pinned memory comes in powers of two)
PIECE = 1 << 22  # samples decoded at once
PIXELS = 1 << 24  # of a batch's images: 5 clips of eleven views


class Clip(NamedTuple):
    """A clip ready for the buffer."""

    conditioned: np.ndarray  # float32, see `preprocess.engine_base.conditioned`
    exponent: int
    samples: int  # as it came
    origin: tuple[int, int, float, int | None, str | None]  # the fields of `Decoded` but for the samples


class _Batch(NamedTuple):
    """A batch on its way; the images are good once `done` has happened."""

    clips: list[tuple[int, Clip | BadAudio]]
    images: torch.Tensor | None  # uint8 [views, size, size], pinned
    features: list[torch.Tensor]  # pinned
    done: torch.cuda.Event | None


class TorchCudaEngine(Engine):
    """See the module's docstring."""

    name = "torch"
    device = "cuda"

    def __init__(self, config: SpectrogramConfig):
        if not torch.cuda.is_available():
            raise UsageError(NO_CUDA)
        self.config = config
        self._transform = BatchTransform(config, "cuda")
        self._upload, self._compute, self._download = (torch.cuda.Stream() for _ in range(3))
        torch.cuda.current_stream().synchronize()  # the transform's tables

    def __call__(self, clips: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        made = [
            item
            for batch in batches((clip_of(clip, self.config) for clip in clips), self.config)
            for item in self._finish(self._start(batch))
        ]
        size = self.config.image_size
        outputs = [output for _, output in made if isinstance(output, ClipOutput)]
        full = np.stack([output.full for output in outputs]) if outputs else np.empty((0, size, size), np.uint8)
        features = [output.features for output in outputs if output.features is not None]
        return EngineOutput(full, [output.slices for output in outputs], features if self.config.features else None)

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """See `Engine.stream`."""
        flying: deque[_Batch] = deque()
        for batch in batches(self._decoded(sources, summed, limits), self.config):
            flying.append(self._start(batch))
            if len(flying) == IN_FLIGHT:
                yield from self._finish(flying.popleft())
        while flying:
            yield from self._finish(flying.popleft())

    def _decoded(self, sources: Iterable[Path | Segment], summed: bool, limits: Limits) -> Iterator[Clip | BadAudio]:
        """Decoded clips in order, enough of them ahead to keep the threads at work."""
        rest = iter(sources)
        waiting: deque[Future[Clip | BadAudio]] = deque()
        try:
            waiting.extend(_decoders().submit(self._read, source, summed, limits) for source in islice(rest, 2 * _cores()))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(_decoders().submit(self._read, source, summed, limits) for source in islice(rest, 1))
        finally:
            for future in waiting:
                future.cancel()

    def _read(self, source: Path | Segment, summed: bool, limits: Limits) -> Clip | BadAudio:
        try:
            decoded = decode_source(source, self.config.sample_rate, piece=PIECE, summed=summed, limits=limits)
        except BadAudio as error:
            return error
        return clip_of(decoded.samples, self.config)._replace(origin=decoded[1:])

    def _start(self, clips: list[tuple[int, Clip | BadAudio]]) -> _Batch:
        """Begin copying and computing; nothing here waits for the device."""
        good = [clip for _, clip in clips if isinstance(clip, Clip)]
        if not good:
            return _Batch(clips, None, [], None)
        hops = sum(extent(clip.samples, self.config) for clip in good)
        host = torch.empty(buffer_samples(hops, self.config), pin_memory=True)
        places = fill(host.numpy(), good, self.config)
        with torch.cuda.stream(self._upload):
            buffer = host.to("cuda", non_blocking=True)
        self._compute.wait_stream(self._upload)
        buffer.record_stream(self._compute)
        with torch.cuda.stream(self._compute):
            images, features = self._transform(buffer, places)
        self._download.wait_stream(self._compute)
        with torch.cuda.stream(self._download):
            copies = []
            for tensor in (images, *(features or [])):
                tensor.record_stream(self._download)
                copies.append(torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True))
            done = torch.cuda.Event()
            done.record()
        return _Batch(clips, copies[0], copies[1:], done)

    def _finish(self, batch: _Batch) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """Wait for a batch; its clips, in order."""
        if batch.done is not None:
            batch.done.synchronize()
        at, features = 0, iter(batch.features)
        for number, clip in batch.clips:
            if isinstance(clip, BadAudio):
                yield number, clip
                continue
            assert batch.images is not None
            views = 1 + len(self.config.slice_bounds(clip.samples))
            images = batch.images[at : at + views].numpy()
            at += views
            own = next(features).numpy() if self.config.features else None
            yield number, ClipOutput(images[0], images[1:], own, clip.samples, *clip.origin)


def clip_of(clip: np.ndarray, config: SpectrogramConfig) -> Clip:
    """Samples float32 [time] as the buffer takes them."""
    return Clip(*conditioned(fit_clip(clip, config), config.n_fft), len(clip), (config.sample_rate, 1, 0.0, None, None))


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), "decode")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def batches(clips: Iterable[Clip | BadAudio], config: SpectrogramConfig) -> Iterator[list[tuple[int, Clip | BadAudio]]]:
    """Numbered clips in groups of up to FRAMES frames and PIXELS pixels (one clip at least); what was not decoded goes along."""
    group: list[tuple[int, Clip | BadAudio]] = []
    frames = pixels = 0
    for number, clip in enumerate(clips):
        hops = area = 0
        if isinstance(clip, Clip):
            hops = extent(clip.samples, config)
            area = (1 + len(config.slice_bounds(clip.samples))) * config.image_size**2
        if group and (frames + hops > FRAMES or pixels + area > PIXELS):
            yield group
            group, frames, pixels = [], 0, 0
        group.append((number, clip))
        frames, pixels = frames + hops, pixels + area
    if group:
        yield group


def fill(buffer: np.ndarray, clips: Sequence[Clip], config: SpectrogramConfig) -> list[Place]:
    """Lay the clips into the buffer, one after the other."""
    places, at = [], 0
    for clip in clips:
        lay(buffer[at * config.hop_length :], clip.conditioned, config)
        places.append(Place(at, clip.samples, clip.exponent))
        at += extent(clip.samples, config)
    return places
