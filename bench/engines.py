"""An engine in a worker process: files to finished uint8 in memory, as a shard build runs it but without its writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def engine_setup(engine: str, device: str, settings: dict[str, Any]) -> Callable[[list[str]], int]:
    """`work(paths)`: decode the files and run the engine on them; the number of images made."""
    import torch

    from preprocess.config import SpectrogramConfig
    from preprocess.decode import decode
    from preprocess.engine import make_engine

    torch.set_num_threads(1)
    config = SpectrogramConfig(**settings)
    run = make_engine(engine, device, config)

    def work(paths: list[str]) -> int:
        output = run([decode(path, config.sample_rate).samples for path in paths])
        return len(output.full) + sum(len(part) for part in output.slices)

    return work
