"""The torch engine on CUDA: files decoded by a pool of CPU threads, batches of clips computed by `batch`, images copied back
meanwhile.

Samples go through pinned memory; copies to the device, computation and copies from it run on streams of their own, a few batches
in flight, so that decoding, copying, computing and the caller's writing overlap. torch's caching allocators keep the pinned
memory that is handed out.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from preprocess.batch import CHUNK, BatchTransform, Place, mirrored
from preprocess.config import SpectrogramConfig
from preprocess.decode import decode
from preprocess.engine import NO_CUDA, ClipOutput, EngineOutput, conditioned
from preprocess.errors import BadAudio, UsageError

IN_FLIGHT = 3  # batches
PIXELS = 1 << 28  # of a batch's images: 93 clips of eleven views


class _Clip(NamedTuple):
    """A clip ready for the buffer."""

    padded: np.ndarray  # float32, whole hops
    samples: int
    exponent: int
    origin: tuple[int, int, float]  # rate, channels and seconds of the file


class _Batch(NamedTuple):
    """A batch on its way; the images are good once `done` has happened."""

    clips: list[tuple[int, _Clip | BadAudio]]
    images: torch.Tensor | None  # uint8 [views, size, size], pinned
    features: list[torch.Tensor]  # pinned
    done: torch.cuda.Event | None


class TorchCudaEngine:
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
        """See `preprocess.engine.Engine`."""
        made = [item for batch in batches(map(self._clip, clips), self.config) for item in self._finish(self._start(batch))]
        size = self.config.image_size
        outputs = [output for _, output in made if isinstance(output, ClipOutput)]
        full = np.stack([output.full for output in outputs]) if outputs else np.empty((0, size, size), np.uint8)
        features = [output.features for output in outputs if output.features is not None]
        return EngineOutput(full, [output.slices for output in outputs], features if self.config.features else None)

    def stream(self, paths: Iterable[Path]) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """See `preprocess.engine.stream`."""
        flying: deque[_Batch] = deque()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode") as pool:
            try:
                for batch in batches(self._decoded(pool, paths), self.config):
                    flying.append(self._start(batch))
                    if len(flying) == IN_FLIGHT:
                        yield from self._finish(flying.popleft())
                while flying:
                    yield from self._finish(flying.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _decoded(self, pool: ThreadPoolExecutor, paths: Iterable[Path]) -> Iterator[_Clip | BadAudio]:
        """Decoded clips in order, enough of them ahead to keep the pool at work."""
        rest = iter(paths)
        waiting: deque[Future[_Clip | BadAudio]] = deque(pool.submit(self._read, path) for path in islice(rest, 64))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(self._read, path) for path in islice(rest, 1))

    def _read(self, path: Path) -> _Clip | BadAudio:
        try:
            decoded = decode(path, self.config.sample_rate)
        except BadAudio as error:
            return error
        return self._clip(decoded.samples)._replace(origin=decoded[1:])

    def _clip(self, clip: np.ndarray) -> _Clip:
        samples, exponent = conditioned(clip, self.config.n_fft)
        return _Clip(mirrored(samples, self.config), len(clip), exponent, (self.config.sample_rate, 1, 0.0))

    def _start(self, clips: list[tuple[int, _Clip | BadAudio]]) -> _Batch:
        """Begin copying and computing; nothing here waits for the device."""
        good = [clip for _, clip in clips if isinstance(clip, _Clip)]
        if not good:
            return _Batch(clips, None, [], None)
        host = torch.empty(sum(len(clip.padded) for clip in good), pin_memory=True)
        places = fill(host.numpy(), good, self.config.hop_length)
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


def batches(clips: Iterable[_Clip | BadAudio], config: SpectrogramConfig) -> Iterator[list[tuple[int, _Clip | BadAudio]]]:
    """Numbered clips in groups of up to CHUNK frames and PIXELS pixels (one clip at least); what was not decoded goes along."""
    group: list[tuple[int, _Clip | BadAudio]] = []
    frames = pixels = 0
    for number, clip in enumerate(clips):
        extent = area = 0
        if isinstance(clip, _Clip):
            extent = len(clip.padded) // config.hop_length
            area = (1 + len(config.slice_bounds(clip.samples))) * config.image_size**2
        if group and (frames + extent > CHUNK or pixels + area > PIXELS):
            yield group
            group, frames, pixels = [], 0, 0
        group.append((number, clip))
        frames, pixels = frames + extent, pixels + area
    if group:
        yield group


def fill(buffer: np.ndarray, clips: Sequence[_Clip], hop: int) -> list[Place]:
    """Lay the clips into the buffer, one after the other."""
    places, at = [], 0
    for clip in clips:
        buffer[at : at + len(clip.padded)] = clip.padded
        places.append(Place(at // hop, clip.samples, clip.exponent))
        at += len(clip.padded)
    return places
