"""Builds a shard set, or finishes one: the only place where shards meet engines."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shardwave.common.environment import cores, environment
from shardwave.common.messages import is_muted, say
from shardwave.common.progress import bar
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.preprocess.engines.numba.numba_cache import holds_engine
from shardwave.preprocess.engines.registry import resolve
from shardwave.shards.build import executors, finish, folder, lock, plan, ray_cluster, ray_workers, set_storage, size_estimate
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.preparation import Inputs, find_inputs, make_plan
from shardwave.shards.build.table import build_table
from shardwave.shards.build.task import Job
from shardwave.shards.build.unit import Units
from shardwave.shards.clip import Clip
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
) -> dict[str, Any]:
    """Build a shard set from audio, or finish one that was begun; a finished one is left as it is.

    What `config` leaves to the clips is chosen by their headers and stored as numbers. With `options.address` the nodes of that
    Ray cluster build the set, to the same bytes; paths must then lie on storage that all of them share.

    Args:
        audio: The folder of audio, or its URL.
        out: The set's folder, or its URL.
        config: The spectrogram's parameters.
        options: All other options.
        clips: The clips to build from; None for those that `options.labels` or the folder's layout name.

    Returns:
        The manifest.

    Raises:
        UsageError: An option does not fit, or `out` holds something else.
        ShardwaveError: The set could not be finished; the same command goes on from there.
        TooManyBadInputs: It is finished, but more clips than `options.max_bad_fraction` were quarantined.
    """
    with ray_cluster.connected(options.address) as ray:
        return _build(as_path(audio), as_path(out), config, options, ray, clips)


def _build(
    audio: AnyPath,
    out: AnyPath,
    config: SpectrogramConfig | AutoConfig,
    options: BuildOptions,
    ray: Any,
    given: Sequence[Clip] | None,
) -> dict[str, Any]:
    state = folder.examine(out)
    engine, device = chosen_engine(options, state, ray)
    if ray is not None:  # its workers stand elsewhere
        audio, out = audio.absolute(), out.absolute()
    inputs = find_inputs(audio, config, options, given)
    names = feature_names(inputs.config)
    job = Job(inputs.audio, out, inputs.config, engine, device, len(names), options.limits)
    workers = _workers(job, options, ray)
    with contextlib.closing(workers):
        if state.manifest is None or options.overwrite:
            workers.warm_up()  # they load their libraries while this process plans
            environment()  # kept for the manifest: asking Git and the packages takes a while, and now nobody waits
        planned, classes = make_plan(inputs, options, engine, device)
        made = None if options.overwrite else folder.finished(out, state, planned, inputs.audio)
        if made is None:
            with folder.clear_errors(out):
                any_path.make_folder(out)
                with lock.hold(out, break_lock=options.break_lock):
                    made = folder.prepare(out, planned, inputs.audio, overwrite=options.overwrite)
                    if made is None:
                        if not is_muted():
                            _say_summary(inputs, planned, len(names), out)
                        made = _run(job, workers, planned, classes, names)
        else:
            say(f"{out} is finished already: nothing to do")
    finish.check_bad(made, options.max_bad_fraction, out)
    return made


def _say_summary(inputs: Inputs, planned: plan.Plan, feature_count: int, out: AnyPath) -> None:
    """Say how large the set will be, and what in it the user may not want."""
    made = size_estimate.summarize(planned, inputs.found, inputs.config, inputs.chosen, feature_count)
    remedies = size_estimate.smaller(planned, inputs.found, inputs.config, feature_count)
    for line in [*size_estimate.brief(made), *size_estimate.warnings(made, size_estimate.free_bytes(out), remedies)]:
        say(line)


def _workers(job: Job, options: BuildOptions, ray: Any) -> executors.Workers:
    """Who builds: processes here, threads that share the GPU here, or a cluster."""
    if ray is not None:
        return ray_workers.RayWorkers(ray, job, options.workers or ray_workers.cores(ray, job.device))
    if job.device == "cuda":
        return executors.LocalWorkers(job, executors.gpu_threads(), threads=True)
    return executors.LocalWorkers(job, options.workers or cores())


def _run(job: Job, workers: executors.Workers, planned: plan.Plan, classes: list[str], names: list[str]) -> dict[str, Any]:
    out, started = job.folder, time.monotonic()
    units = Units(planned)
    say(
        f"building {out}: {len(planned.clips)} clips, {len(units)} shards per view, engine {job.engine} on {job.device}, "
        f"{min(workers.count, len(units))} workers"
    )
    if job.engine == "numba" and len(workers.slots) and not holds_engine():
        say("the engine's code is compiled first, once for this version on this processor: some ten seconds")
    try:
        with Meter(len(planned.clips)) as meter:
            records = workers.run(units, meter.show)
    finally:
        workers.close()
        folder.clean_temporaries(out)  # of workers that were lost, or ended
    set_storage.check_written(out, records)
    manifest = finish.finish(out, planned, records, config=dataclasses.asdict(job.config), classes=classes, feature_names=names)
    seconds, audio_minutes = time.monotonic() - started, manifest["audio_seconds"] / 60
    _say_unused(manifest)
    aside = f"; {manifest['quarantined']} quarantined, see quarantine.jsonl" if manifest["quarantined"] else ""
    aside += f"; {manifest['remarks']} used with a remark, see remarks.jsonl" if manifest["remarks"] else ""
    say(f"built {out}: {manifest['clips']} clips, {audio_minutes:.1f} min of audio in {seconds:.1f} s{aside}")
    kinds = {json.dumps({**builder, "device_name": None}) for builder in manifest["builders"]}
    if len(kinds) > 1:
        say(f"{len(kinds)} kinds of machine or of library versions built it (`builders` in the manifest): bytes depend on them")
    return manifest


def _say_unused(manifest: dict[str, Any]) -> None:
    """Say how much of the audio no image shows."""
    for view, option in (("full", "--fit crop"), ("slice", "--slice-seconds")):
        seconds, total = manifest["unused_seconds"][view], manifest["audio_seconds"]
        if seconds > 0:
            what = "no image of a whole clip" if view == "full" else "no slice"
            say(f"{seconds:,.1f} s of audio ({100 * seconds / total:.2g} %), at the ends of clips, are in {what} ({option})")


def cuda_driver() -> bool:
    """Whether a CUDA driver can be loaded at all; where it cannot, asking torch would only cost its import."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        _log.info("device auto: cpu, there is no CUDA driver (libcuda.so.1) here")
        return False
    return True


def chosen_engine(options: BuildOptions, state: folder.State, ray: Any) -> tuple[str, str]:
    """Engine and device. `auto` is what a finished set was built with: running again does nothing, on any machine."""
    engine, device = options.engine, options.device
    if state.manifest is not None and not options.overwrite:
        engine = state.manifest["engine"] if engine == "auto" else engine
        device = state.manifest["device"] if device == "auto" else device
    if state.manifest is not None and (engine, device) == (state.manifest["engine"], state.manifest["device"]):
        return engine, device
    if ray is not None:
        return ray_workers.resolve(ray, engine, device)
    return resolve(engine, device if device != "auto" or cuda_driver() else "cpu")


class Meter:
    """The progress bar of a build: clips/s, how many times real time, clips quarantined, time left."""

    def __init__(self, clips: int):
        self._bar = bar(total=clips, unit="clip", desc="shards")
        self._started, self._clips = time.monotonic(), clips

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, clips: int, seconds: float, bad: int, kept: int) -> None:
        """Show that so many clips are done, seconds of audio together, `bad` of them quarantined; `kept` were done before."""
        rate = seconds / max(1e-9, time.monotonic() - self._started)
        self._bar.set_postfix_str(f"{rate:,.0f} x real time" + (f", {bad} quarantined" if bad else ""), refresh=False)
        self._bar.total = self._clips - kept
        self._bar.update(clips - self._bar.n)
