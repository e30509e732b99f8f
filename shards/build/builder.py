"""Build a shard set from audio, or continue an interrupted build."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.common.environment import cores, environment
from shardwave.common.errors import require
from shardwave.common.messages import is_muted, say
from shardwave.common.progress import bar
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.engines.numba.numba_cache import holds_engine
from shardwave.preprocess.engines.registry import check_strips, resolve
from shardwave.shards.build import (
    executors,
    finish,
    folder,
    lock,
    plan,
    ray_cluster,
    ray_executor,
    set_storage,
    size_estimate,
)
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.preparation import Inputs, find_inputs, make_plan
from shardwave.shards.build.shard_task import ShardTasks
from shardwave.shards.build.table import build_table
from shardwave.shards.build.worker import BuildSpec
from shardwave.shards.clip import Clip
from shardwave.shards.format.layouts import STRIP
from shardwave.shards.format.manifest import Manifest
from shardwave.shards.storage import any_path
from shardwave.shards.storage.any_path import AnyPath, as_path

_log = logging.getLogger(__name__)
__all__ = ["BuildOptions", "build", "build_table"]


def build(
    audio: Path | str,
    out: Path | str,
    config: SpectrogramConfig | AutoConfig,
    options: BuildOptions,
    clips: Sequence[Clip] | None = None,
) -> Manifest:
    """Build a shard set from audio, or continue an interrupted build. Does nothing if the set is finished.

    With `options.address`, the nodes of a Ray cluster build the set, with the same bytes. Paths must then be
    on storage that all nodes share.

    Args:
        audio: Folder or URL of the audio files.
        out: Folder or URL of the set.
        config: Spectrogram configuration. Parameters that an AutoConfig leaves open are chosen from the
            clips' headers and stored as numbers.
        options: Other options.
        clips: The clips; by default those of `options.labels`, or of the audio folder.

    Returns:
        The manifest.

    Raises:
        UsageError: An option is not valid, or `out` holds something else or a set of other inputs or options.
        ShardwaveError: The set could not be finished. Another call with the same arguments continues the
            build.
        TooManyBadInputs: The set is finished, but more clips than `options.max_bad_fraction` were
            quarantined.
    """
    source, target = as_path(audio), as_path(out)
    state = folder.examine(target)
    with contextlib.ExitStack() as stack:
        ray = stack.enter_context(ray_cluster.connected(options.address))
        if ray is not None:  # its workers have another working directory
            source, target = source.absolute(), target.absolute()
        engine, device = chosen_engine(options, state, ray)
        inputs = find_inputs(source, config, options, clips)
        check_layout(options.layout, inputs.config, engine)
        spec = BuildSpec(source, target, inputs.config, engine, device, options.limits, options.layout)
        if state.manifest is None or options.overwrite:
            registry.check(inputs.config.embedding_entries)
        executor = stack.enter_context(contextlib.closing(_executor(spec, options, ray)))
        if state.manifest is None or options.overwrite:
            executor.warm_up()  # workers load their libraries while this process plans
            environment()  # cached for the manifest: it takes a while, and the workers are not ready yet
        planned = make_plan(inputs, options, engine, device)
        contents = None if options.overwrite else folder.finished(target, state, planned, source)
        if contents is not None:
            say(f"{target} is finished already: nothing to do")
        else:
            stack.enter_context(folder.clear_errors(target))
            any_path.make_folder(target)
            stack.enter_context(lock.hold(target, break_lock=options.break_lock))
            contents = folder.prepare(target, planned, source, overwrite=options.overwrite)
            if contents is None:
                _say_summary(inputs, planned, target)
                contents = _run(spec, executor, planned)
    finish.check_bad(contents, options.max_bad_fraction, target)
    return contents


def _say_summary(inputs: Inputs, planned: plan.Plan, out: AnyPath) -> None:
    """Print the estimated size of the set, and warnings."""
    if not is_muted():
        summary = size_estimate.summarize(planned, inputs.survey, inputs.config, inputs.chosen)
        remedies = size_estimate.smaller(planned, inputs.survey, inputs.config)
        free = size_estimate.free_bytes(out)
        for line in [*size_estimate.brief(summary), *size_estimate.warnings(summary, free, remedies)]:
            say(line)


def _executor(spec: BuildSpec, options: BuildOptions, ray: Any) -> executors.BuildExecutor:
    """Return the executor of a build: on the cluster, in threads that share the GPUs, or in processes."""
    if ray is not None:
        return ray_executor.RayExecutor(ray, spec, options.workers or ray_executor.cores(ray, spec.device))
    if spec.device == "cuda":
        return executors.LocalExecutor(spec, options.workers or executors.gpu_threads(), threads=True)
    return executors.LocalExecutor(spec, options.workers or cores())


def _run(spec: BuildSpec, executor: executors.BuildExecutor, planned: plan.Plan) -> Manifest:
    out, started = spec.folder, time.monotonic()
    tasks = ShardTasks(planned)
    say(
        f"building {out}: {len(planned.clips)} clips, {len(tasks)} shards per view, engine {spec.engine} on "
        f"{spec.device}, {min(executor.count, len(tasks))} workers"
    )
    if spec.engine == "numba" and len(executor.slots) and not holds_engine():
        say("compiling the engine: some ten seconds, once for each version and processor")

    def show(clips: int, audio_seconds: float, bad: int, kept: int) -> None:
        rate = audio_seconds / max(1e-9, time.monotonic() - started)
        progress.set_postfix_str(
            f"{rate:,.0f} x real time" + (f", {bad} quarantined" if bad else ""), refresh=False
        )
        progress.total = len(planned.clips) - kept
        progress.update(clips - progress.n)

    try:
        with bar(total=len(planned.clips), unit="clip", desc="shards") as progress:
            records = executor.run(tasks, show)
    finally:
        executor.close()
        folder.clean_temporaries(out)  # of workers that were lost or stopped
    set_storage.check_written(out, records)
    manifest = finish.finish(out, planned, records, spec.config)
    seconds, audio_minutes = time.monotonic() - started, manifest["audio_seconds"] / 60
    _say_unused(manifest)
    notes = (
        f"; {manifest['quarantined']} quarantined, see quarantine.jsonl" if manifest["quarantined"] else ""
    )
    notes += f"; {manifest['remarks']} used with a remark, see remarks.jsonl" if manifest["remarks"] else ""
    say(f"built {out}: {manifest['clips']} clips, {audio_minutes:.1f} min of audio in {seconds:.1f} s{notes}")
    kinds = {json.dumps({**builder, "device_name": None}) for builder in manifest["builders"]}
    if len(kinds) > 1:
        say(
            f"{len(kinds)} different machines or library versions built the set (`builders` in the "
            "manifest): its bytes depend on them"
        )
    return manifest


def _say_unused(manifest: Manifest) -> None:
    """Print the length of audio that is in no image, by view."""
    for view, option in (("full", "--fit crop"), ("slice", "--slice-seconds")):
        seconds, total = manifest["unused_seconds"][view], manifest["audio_seconds"]
        if seconds > 0:
            images = "no image of a whole clip" if view == "full" else "no slice"
            share = 100 * seconds / total
            say(
                f"{seconds:,.1f} s of audio ({share:.2g} %), at the ends of clips, are in {images} ({option})"
            )


def check_layout(layout: str, config: SpectrogramConfig, engine: str) -> None:
    """Raise UsageError if a layout cannot be built with a configuration and an engine.

    Args:
        layout: One of `layouts.LAYOUTS`.
        config: Spectrogram configuration.
        engine: Resolved engine.
    """
    if layout == STRIP:
        check_strips(engine)
        require(
            config.fit == "stretch",
            "layout strip stores whole clips and needs --fit stretch (train on slices of one length with "
            "--slice-seconds)",
            config.fit,
        )


def cuda_driver() -> bool:
    """Return whether a CUDA driver can be loaded, without the slow import of torch."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        _log.info("device auto: cpu, as this machine has no CUDA driver (libcuda.so.1)")
        return False
    return True


def chosen_engine(options: BuildOptions, state: folder.State, ray: Any) -> tuple[str, str]:
    """Return the engine and the device of a build.

    If a set is finished, `auto` stands for its engine and device, so that a second build does nothing on any
    machine.

    Args:
        options: Options of the build.
        state: State of the output folder.
        ray: The package ray, connected to a cluster; None for this machine.

    Raises:
        UsageError: The engine or device is not available.
    """
    engine, device = options.engine, options.device
    built = (state.manifest["engine"], state.manifest["device"]) if state.manifest is not None else None
    if built is not None and not options.overwrite:
        engine = built[0] or engine if engine == "auto" else engine
        device = built[1] or device if device == "auto" else device
    if (engine, device) == built:
        return engine, device
    if ray is not None:
        return ray_executor.resolve(ray, engine, device)
    return resolve(engine, device if device != "auto" or cuda_driver() else "cpu")
