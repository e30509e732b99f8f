"""An engine in a worker process: files to finished uint8 in memory, as a shard build runs it but without its writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preprocess.config import SpectrogramConfig


def engine_setup(engine: str, device: str, settings: dict[str, Any]) -> Callable[[list[str]], int]:
    """`work(paths)`: decode the files and run the engine on them; the number of images made."""
    import torch

    from preprocess.config import SpectrogramConfig

    torch.set_num_threads(1)
    return streaming(engine, device, SpectrogramConfig(**settings))


def streaming(engine: str, device: str, config: SpectrogramConfig) -> Callable[[Sequence[str | Path]], int]:
    """`work(paths)`: the engine's stream over the files, as a build reads it, in this process; the number of images made."""
    from preprocess.engine import make_engine
    from preprocess.errors import BadAudio

    made = make_engine(engine, device, config)

    def work(paths: Sequence[str | Path]) -> int:
        images = 0
        for i, output in made.stream(map(Path, paths)):
            if isinstance(output, BadAudio):
                raise RuntimeError(f"{paths[i]}: {output}")
            images += 1 + len(output.slices)
        return images

    return work
