"""Prepare a build: find the clips, choose the open settings, and assign every clip to a shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shardwave.common.messages import is_muted
from shardwave.common.typed import Json
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards import sources
from shardwave.shards.build import plan, survey
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.build.survey import Survey
from shardwave.shards.clip import Clip, classes_of
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.sources import class_folders
from shardwave.shards.splits import assign
from shardwave.shards.storage.any_path import AnyPath


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Clips and settings of a build.

    Args:
        audio: Folder or URL of the audio files.
        clips: The clips, sorted by `Clip.identity`.
        survey: Headers of the clips, or of some of them.
        config: Spectrogram configuration.
        chosen: Text that names the settings chosen from the headers; empty if there are none.
    """

    audio: AnyPath
    clips: list[Clip]
    survey: Survey
    config: SpectrogramConfig
    chosen: str


def find_inputs(
    audio: AnyPath,
    config: SpectrogramConfig | AutoConfig,
    options: BuildOptions,
    given: Sequence[Clip] | None = None,
) -> Inputs:
    """Find the clips and choose the open settings. The result depends only on the files and the arguments.

    Args:
        audio: Folder or URL of the audio files.
        config: Spectrogram configuration; an AutoConfig leaves some parameters to be chosen from the clips.
        options: Options that determine labels, splits and classes.
        given: The clips; by default those of `options` and the folder.

    Raises:
        UsageError: The folder does not exist, or has no clips.
    """
    class_folders.check_folder(audio)
    clips = (
        sources.discover(audio, options) if given is None else sorted(given, key=lambda clip: clip.identity)
    )
    sliced = config.slice_seconds is not None or options.layout == STRIP  # lengths of all clips are needed
    if isinstance(config, SpectrogramConfig):  # headers only serve the summary or count slices
        headers = survey.EMPTY if is_muted() and not sliced else survey.read(audio, clips, complete=sliced)
        return Inputs(audio, clips, headers, config, "")
    headers = survey.read(audio, clips, complete=sliced)
    resolved = config.resolve(headers.seconds, headers.rates.tolist())
    return Inputs(audio, clips, headers, resolved, _chosen(config, resolved))


def make_plan(inputs: Inputs, options: BuildOptions, engine: str, device: str) -> plan.Plan:
    """Assign the clips to splits and shards.

    Args:
        inputs: Clips and settings.
        options: Options of the build.
        engine: Resolved engine.
        device: Resolved device.

    Raises:
        UsageError: The clips cannot be split as required, or have only one class.
    """
    splits = assign.assign(
        inputs.clips,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    names = (
        "seed",
        "shard_mb",
        "min_shards",
        "val_fraction",
        "test_fraction",
        "max_clip_minutes",
        "max_missing_seconds",
    )
    recorded: Json = {**dataclasses.asdict(inputs.config), "engine": engine, "device": device}
    recorded |= {name: getattr(options, name) for name in names}
    if options.layout != VIEWS:
        recorded["layout"] = options.layout
    return plan.make(
        inputs.clips, classes_of(inputs.clips), splits, inputs.audio, inputs.config, recorded, inputs.survey
    )


def _chosen(config: AutoConfig, resolved: SpectrogramConfig) -> str:
    """Return a text with the values of the open settings."""
    open_names = [
        name for name in ("sample_rate", "slices", "fit_seconds") if config.values.get(name, "auto") == "auto"
    ]
    texts = {
        "sample_rate": f"sample rate {resolved.sample_rate:,} Hz",
        "slices": f"{resolved.slices or 'no'} slices" if resolved.slice_seconds is None else "",
        "fit_seconds": f"clips fitted to {resolved.fit_seconds:g} s" if resolved.fit_seconds else "",
    }
    return ", ".join(texts[name] for name in open_names if texts[name])
