"""Preview of a build (`shard --dry-run`): sizes, settings, and the time, measured on a few of the clips."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from shardwave.common.environment import cores
from shardwave.common.messages import say
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.numba.numba_cache import holds_engine
from shardwave.shards.build import folder, size_estimate
from shardwave.shards.build.builder import check_layout, chosen_engine
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.plan import Plan
from shardwave.shards.build.preparation import Inputs, find_inputs, make_plan
from shardwave.shards.build.shard_task import ShardTask
from shardwave.shards.build.worker import Builder, BuildSpec, identity
from shardwave.shards.format.layout import BUILD
from shardwave.shards.storage import scratch
from shardwave.shards.storage.any_path import as_path

SECONDS = 1.0  # duration of the measurement
MOST, ROOM = 200, 100e6  # maximum number of measured clips, and of bytes of their samples
START = 3.0  # seconds to start the building processes and to finish the set


def preview(
    audio: Path | str, out: Path | str, config: SpectrogramConfig | AutoConfig, options: BuildOptions
) -> tuple[size_estimate.Summary, list[str]]:
    """Summarize the build that `builder.build` would do with the same arguments, without writing to `out`.

    The time is only estimated for builds on this machine's CPU from files on disk. To measure it, some
    samples are written to a temporary folder.

    Args:
        audio: Folder or URL of the audio files.
        out: Folder or URL of the set.
        config: Spectrogram configuration.
        options: Other options.

    Returns:
        The summary, and lines of text that describe it.

    Raises:
        UsageError: An error that the build would raise before it writes.
    """
    target = as_path(out)
    state = folder.examine(target)
    inputs = find_inputs(as_path(audio), config, options)
    engine, device = (
        (options.engine, options.device) if options.address else chosen_engine(options, state, None)
    )
    check_layout(options.layout, inputs.config, engine)
    planned = make_plan(inputs, options, engine, device)
    summary = size_estimate.summarize(planned, inputs.survey, inputs.config, inputs.chosen)
    if isinstance(inputs.audio, Path) and device == "cpu" and not options.address:
        spec = BuildSpec(inputs.audio, Path(), inputs.config, engine, device, options.limits, options.layout)
        seconds = _seconds(spec, inputs, planned, summary, options.workers or cores())
        summary = dataclasses.replace(summary, seconds=seconds)
    remedies = size_estimate.smaller(planned, inputs.survey, inputs.config)
    warnings = size_estimate.warnings(summary, size_estimate.free_bytes(target), remedies)
    return summary, [*size_estimate.describe(summary), *warnings]


def _seconds(
    spec: BuildSpec, inputs: Inputs, planned: Plan, summary: size_estimate.Summary, workers: int
) -> float | None:
    """Estimate the duration of a build in seconds from some of its clips; None if no header is readable."""
    rows = inputs.survey.rows[inputs.survey.readable]
    if not len(rows):
        return None
    if spec.engine == "numba" and not holds_engine():
        say("compiling the engine: some ten seconds, once for each version and processor")
    with scratch.folder() as name:
        (name / BUILD).mkdir()
        builder = Builder(dataclasses.replace(spec, folder=name))
        builder.warm_up()
        identity(spec.engine, spec.device)
        order = np.random.default_rng(0).permutation(rows).tolist()

        def build(index: int, numbers: list[int]) -> float:
            started = time.perf_counter()
            task = ShardTask("train", index, [(number, planned.clips[number]) for number in numbers])
            builder.build(task)
            return time.perf_counter() - started

        max_clips = int(ROOM * summary.images["full"] / summary.bytes)
        count = max(1, min(MOST, round(SECONDS / build(0, order[:1])), max_clips))
        each = build(1, order[-count:]) / len(order[-count:])
    return START + each * len(planned.clips) / min(workers, cores(), len(planned.shards()))
