"""`shard --dry-run`: what a build would take and make, and its seconds, measured on a few of the clips."""

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
from shardwave.shards.build.builder import chosen_engine
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.plan import Plan
from shardwave.shards.build.preparation import Inputs, find_inputs, make_plan
from shardwave.shards.build.task import Builder, Job, identity
from shardwave.shards.build.unit import Unit
from shardwave.shards.format.layout import BUILD
from shardwave.shards.storage import scratch
from shardwave.shards.storage.any_path import as_path

SECONDS = 1.0  # of measuring
MOST, ROOM = 200, 100e6  # clips that are measured, and bytes that they may take in a temporary folder
START = 3.0  # seconds until building processes are at work, and of what is done after them


def preview(
    audio: Path | str, out: Path | str, config: SpectrogramConfig | AutoConfig, options: BuildOptions
) -> tuple[size_estimate.Summary, list[str]]:
    """The summary of the build that `shardwave.shards.build.builder.build` would do with the same arguments, and lines of text for it.

    Files are found and planned as there; what is measured is written to a temporary folder. Seconds are measured on the CPU of
    this machine alone, from local files.

    Raises:
        UsageError: What the build would refuse before it writes.
    """
    target = as_path(out)
    state = folder.examine(target)
    inputs = find_inputs(as_path(audio), config, options)
    engine, device = (options.engine, options.device) if options.address else chosen_engine(options, state, None)
    planned = make_plan(inputs, options, engine, device)
    made = size_estimate.summarize(planned, inputs.found, inputs.config, inputs.chosen)
    if isinstance(inputs.audio, Path) and device == "cpu" and not options.address:
        job = Job(inputs.audio, Path(), inputs.config, engine, device, options.limits)
        made = dataclasses.replace(made, seconds=_seconds(job, inputs, planned, made, options.workers or cores()))
    remedies = size_estimate.smaller(planned, inputs.found, inputs.config)
    return made, [*size_estimate.describe(made), *size_estimate.warnings(made, size_estimate.free_bytes(target), remedies)]


def _seconds(job: Job, inputs: Inputs, planned: Plan, made: size_estimate.Summary, workers: int) -> float | None:
    """Seconds that the build would take, by those of some of its clips; None where no header is readable."""
    rows = inputs.found.rows[inputs.found.readable]
    if not len(rows):
        return None
    if job.engine == "numba" and not holds_engine():
        say("the engine's code is compiled first, once for this version on this processor: some ten seconds")
    with scratch.folder() as name:  # of a killed process it is removed by the next one
        (name / BUILD).mkdir()
        builder = Builder(dataclasses.replace(job, folder=name))
        builder.warm_up()
        identity(job.engine, job.device)
        order = np.random.default_rng(0).permutation(rows).tolist()

        def build(index: int, numbers: list[int]) -> float:
            started = time.perf_counter()
            unit = Unit("train", index, [(number, planned.clips[number]) for number in numbers])
            builder.build(unit)
            return time.perf_counter() - started

        count = max(1, min(MOST, round(SECONDS / build(0, order[:1])), int(ROOM * made.images["full"] / made.bytes)))
        each = build(1, order[-count:]) / len(order[-count:])
    return START + each * len(planned.clips) / min(workers, cores(), len(planned.units()))
