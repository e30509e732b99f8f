"""The precompute on a GPU: files to images, decoding included, and the GPU's part alone beside its memory-bandwidth floor."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from bench import floor
from bench.audio import RATE, SECONDS, repeat_clips
from bench.engines import streaming
from bench.record import Record
from bench.scope import EXTRA, Scope, missing, skip
from bench.stages.preprocess import SETS, STAGE, UNIT, parameters
from bench.timing import Case, timed
from preprocess.config import SpectrogramConfig


def run_cuda(scope: Scope) -> Iterator[Record]:
    """Every engine and set of views on the GPU, one process; then the arithmetic alone on clips that are decoded already."""
    paths = repeat_clips(scope.audio, scope.room("cuda") / "audio", scope.pick(100, 1_000))
    for engine in ("torch", "dali"):
        absent = missing("nvidia.dali", EXTRA.format("dali")) if engine == "dali" else None
        if absent:
            yield from skip(STAGE, UNIT, [(f"{engine} cuda: {name}", "ours") for name in SETS], absent)
            continue
        cases = []
        for name, config in SETS.items():
            work = streaming(engine, "cuda", config)
            params = {**parameters(scope, len(paths)), "workers": 1, "group": "GPU: files to images"}
            cases.append(Case(f"{engine} cuda: {name}", "ours", functools.partial(work, paths), len(paths) * SECONDS, params))
        yield from timed(STAGE, UNIT, cases, scope.plan)
    yield from _alone(scope)


def _alone(scope: Scope) -> Iterator[Record]:
    """Decoded clips in host memory to images in host memory, beside the time that the bytes alone need in the GPU's memory."""
    from preprocess.decode import decode
    from preprocess.engine import make_engine

    clips = [decode(path, RATE).samples for path in scope.audio]
    within, moved = floor.copy("cuda", 1 << 30)
    for name, config in SETS.items():
        engine = make_engine("torch", "cuda", config)
        needed = sum(bytes_moved(config, len(clip)) for clip in clips)
        group = f"GPU, arithmetic alone: {name}"
        params = {**parameters(scope, len(clips)), "bytes_a_clip": needed / len(clips), "group": group}
        cases = [
            Case(f"{group}: torch cuda", "ours", functools.partial(engine, clips), len(clips) * SECONDS, params),
            Case(f"{group}: memory bandwidth", "floor", within, moved / needed * len(clips) * SECONDS, params),
        ]
        yield from timed(STAGE, UNIT, cases, scope.plan)


def bytes_moved(config: SpectrogramConfig, samples: int) -> int:
    """Bytes that a clip must move in the GPU's memory: samples read, spectrum (complex64) written and read, images written."""
    frames = config.frames(samples)
    images = 1 + len(config.slice_bounds(samples))
    return 4 * samples + 2 * 8 * config.bins * frames + images * config.image_size**2
