"""Builds on a GPU in which a copy replaces the transform, to measure decoding and writing alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from shardwave.common.errors import BadAudio
from shardwave.preprocess.config import DEFAULTS, Limits, SpectrogramConfig
from shardwave.preprocess.engines.base import ClipOutput, Engine, Segment
from shardwave.preprocess.engines.torch import TorchEngine
from shardwave.shards.build import worker
from shardwave.shards.build.executors import LocalExecutor
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.preparation import find_inputs, make_plan
from shardwave.shards.build.shard_task import ShardTasks
from shardwave.shards.build.worker import BuildSpec
from shardwave.shards.format.layout import BUILD


class CopyingEngine(TorchEngine):
    """Engine whose images are copies of the same images of noise; decodes in threads on every device."""

    _images: torch.Tensor | None = None

    def compute(
        self, samples: torch.Tensor, exponent: int, bounds: list[tuple[int, int]]
    ) -> list[torch.Tensor]:
        """Copy the images of noise, as many as there are views."""
        return [self._noise(1 + len(bounds)).clone()]

    def stream(
        self, sources: Iterable[Path | Segment], summed: bool = False, limits: Limits = DEFAULTS
    ) -> Iterator[tuple[int, ClipOutput | BadAudio]]:
        """Decode files in threads, see `Engine.stream`."""
        return enumerate(self.pipelined(sources, summed, limits))

    def _noise(self, count: int) -> torch.Tensor:
        if self._images is None or len(self._images) != count:
            shape = count, self.config.image_size, self.config.image_size
            self._images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        return self._images


def seconds(audio: Path, out: Path, device: str, threads: int, config: SpectrogramConfig) -> float:
    """Return the seconds in which threads write the shards of a folder of clips, without planning.

    Args:
        audio: Folder of the clips.
        out: New folder of the shards.
        device: `cpu` or `cuda`.
        threads: Threads that build shards.
        config: Spectrogram configuration without features.
    """
    (out / BUILD).mkdir(parents=True)
    options = BuildOptions(val_fraction=0)
    tasks = ShardTasks(make_plan(find_inputs(audio, config, options, None), options, "torch", device))
    with (
        _copying(),
        contextlib.closing(
            LocalExecutor(BuildSpec(audio, out, config, "torch", device), threads, threads=True)
        ) as executor,
    ):
        start = time.perf_counter()
        executor.run(tasks, lambda *_: None)
        return time.perf_counter() - start


@contextlib.contextmanager
def _copying() -> Iterator[None]:
    """Make the builders of this process create a `CopyingEngine`."""
    before: Callable[..., Engine] = vars(worker)["make_engine"]

    def make_engine(engine: str, device: str, config: SpectrogramConfig) -> Engine:
        return CopyingEngine(config, device)

    vars(worker)["make_engine"] = make_engine
    try:
        yield
    finally:
        vars(worker)["make_engine"] = before
