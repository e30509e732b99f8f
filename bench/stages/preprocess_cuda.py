"""The precompute on a GPU: files to images and to shards, decoding included, and the GPU's part alone beside its
memory-bandwidth floor."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench import floor, process
from bench.audio import RATE, SECONDS, repeat_clips
from bench.record import Record
from bench.scope import Scope, missing
from bench.stages.preprocess import SETS, STAGE, UNIT, parameters, streaming
from bench.timing import Case, timed
from preprocess.config import SpectrogramConfig

ROUNDS = 20  # batches queued on the GPU at once, so that the start of the first does not count


def run_cuda(scope: Scope) -> Iterator[Record]:
    """The GPU's part alone on clips that lie in its memory; every engine and set of views, one process; whole builds."""
    yield from _alone(scope)
    paths = repeat_clips(scope.audio, scope.room("cuda") / "audio", scope.pick(100, 1_000))
    for engine in ("torch", "dali"):
        absent = missing("nvidia.dali", "dali") if engine == "dali" else None
        if absent:
            yield from (Record(STAGE, f"{engine} cuda: {name}", "ours", UNIT, skipped=absent) for name in SETS)
            continue
        cases = []
        some = paths[: len(paths) // 10] if engine == "dali" else paths
        for name, config in SETS.items():
            work = streaming(engine, "cuda", config)
            params = {**parameters(scope, len(some)), "workers": 1, "group": "GPU: files to images"}
            cases.append(Case(f"{engine} cuda: {name}", "ours", functools.partial(work, some), len(some) * SECONDS, params))
        yield from timed(STAGE, UNIT, cases, scope.plan)
    yield from _builds(scope, paths)


def _alone(scope: Scope) -> Iterator[Record]:
    """A batch of clips in the GPU's memory to images there, beside the time that the bytes alone need."""
    import torch

    from preprocess.batch import CHUNK, BatchTransform, buffer_samples, extent
    from preprocess.decode import decode
    from preprocess.engine_torch_cuda import clip_of, fill

    within, moved = floor.copy("cuda", 1 << 30)
    for name, config in SETS.items():
        clips = [clip_of(decode(path, RATE).samples, config) for path in scope.audio]
        clips = clips[: CHUNK // extent(clips[0].samples, config)]
        buffer = torch.zeros(buffer_samples(sum(extent(clip.samples, config) for clip in clips), config))
        places = fill(buffer.numpy(), clips, config)
        transform, on_device = BatchTransform(config, "cuda"), buffer.cuda()
        needed = sum(bytes_moved(config, clip.samples) for clip in clips)
        group = f"GPU, its part alone: {name}"
        params = {**parameters(scope, len(clips)), "bytes_a_clip": needed / len(clips), "group": group}

        def work(transform=transform, on_device=on_device, places=places) -> None:
            for _ in range(ROUNDS):
                transform(on_device, places)

        seconds = len(clips) * SECONDS
        cases = [
            Case(f"{group}: torch cuda", "ours", work, ROUNDS * seconds, params),
            Case(f"{group}: memory bandwidth", "floor", within, moved / needed * seconds, params),
        ]
        yield from timed(STAGE, UNIT, cases, scope.plan)


def _builds(scope: Scope, clips: list[Path]) -> Iterator[Record]:
    """Files to shards, eleven views a clip: in a process that has started, and by the command line."""
    from shards.build import build
    from shards.build_options import BuildOptions

    audio, out = clips[0].parent.parent, scope.room("cuda") / "set"
    options = BuildOptions(engine="torch", device="cuda", val_fraction=0.0)
    command = [*process.CLI, "shard", str(audio), "--out", str(out), "--engine", "torch", "--device", "cuda"]
    clear = functools.partial(shutil.rmtree, out, ignore_errors=True)
    params = {**parameters(scope, len(clips)), "workers": 1, "group": "GPU: files to shards"}
    seconds, config = len(clips) * SECONDS, SETS["whole + 10 slices"]
    cases = [
        Case("torch cuda: files to shards", "ours", lambda: build(audio, out, config, options), seconds, params, clear),
        Case(
            "torch cuda: shard command", "ours", lambda: process.watch([*command, "--val-fraction", "0"], lambda: False),
            seconds, params, clear,
        ),
    ]  # fmt: skip
    yield from timed(STAGE, UNIT, cases, scope.plan, minimum=scope.pick(1, 3))
    clear()


def bytes_moved(config: SpectrogramConfig, samples: int) -> int:
    """Bytes that a clip must move in the GPU's memory: samples read, spectrum (complex64) written and read, images written."""
    frames = config.frames(samples)
    images = 1 + len(config.slice_bounds(samples))
    return 4 * samples + 2 * 8 * config.bins * frames + images * config.image_size**2
