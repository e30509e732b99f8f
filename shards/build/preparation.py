"""From a folder to a plan: clips are found, settings that they decide are chosen, and every clip gets its place in a shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from shardwave.common.messages import is_muted
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards import sources
from shardwave.shards.build import plan, survey
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.survey import Survey
from shardwave.shards.clip import Clip, classes_of
from shardwave.shards.sources import class_folders
from shardwave.shards.splits import assign
from shardwave.shards.storage.any_path import AnyPath


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The clips of a build and the settings they are built with."""

    audio: AnyPath
    clips: list[Clip]  # sorted by path
    found: Survey
    config: SpectrogramConfig
    chosen: str  # what the clips decided, in words; empty: nothing


def find_inputs(
    audio: AnyPath,
    config: SpectrogramConfig | AutoConfig,
    options: BuildOptions,
    given: Sequence[Clip] | None = None,
) -> Inputs:
    """Find the clips and settle the settings; the same for the same files and options, wherever and however often it is done.

    Args:
        audio: The folder of audio.
        config: The spectrogram's settings, some of which may be left to the clips.
        options: Name the labels, splits and classes.
        given: The clips; None for those that `options` and the folder name.

    Raises:
        UsageError: There is no such folder, or nothing in it to build.
    """
    class_folders.check_folder(audio)
    clips = sources.discover(audio, options) if given is None else sorted(given, key=lambda clip: clip.identity)
    sliced = config.slice_seconds is not None
    if isinstance(config, SpectrogramConfig):  # headers only serve the summary, or the number of slices
        found = survey.NOTHING if is_muted() and not sliced else survey.take(audio, clips, whole=sliced)
        return Inputs(audio, clips, found, config, "")
    found = survey.take(audio, clips, whole=sliced)
    settled = config.resolve(found.seconds, found.rates.tolist())
    return Inputs(audio, clips, found, settled, _chosen(config, settled))


def make_plan(inputs: Inputs, options: BuildOptions, engine: str, device: str) -> plan.Plan:
    """The plan of a build."""
    splits = assign.assign(
        inputs.clips, val_fraction=options.val_fraction, test_fraction=options.test_fraction, seed=options.seed
    )
    names = ("seed", "shard_mb", "min_shards", "val_fraction", "test_fraction", "max_clip_minutes", "max_missing_seconds")
    deciding: dict[str, Any] = {**dataclasses.asdict(inputs.config), "engine": engine, "device": device}
    deciding |= {name: getattr(options, name) for name in names}
    return plan.make(inputs.clips, classes_of(inputs.clips), splits, inputs.audio, inputs.config, deciding, inputs.found)


def _chosen(config: AutoConfig, settled: SpectrogramConfig) -> str:
    """The numbers that were left to the clips."""
    open_ = [name for name in ("sample_rate", "slices", "fit_seconds") if config.values.get(name, "auto") == "auto"]
    words = {
        "sample_rate": f"sample rate {settled.sample_rate:,} Hz",
        "slices": f"{settled.slices or 'no'} slices" if settled.slice_seconds is None else "",
        "fit_seconds": f"clips fitted to {settled.fit_seconds:g} s" if settled.fit_seconds else "",
    }
    return ", ".join(words[name] for name in open_ if words[name])
