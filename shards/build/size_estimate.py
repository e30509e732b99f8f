"""Size and settings of a set before it is built, estimated from headers without decoding."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from shardwave.preprocess.auto_config import SHORTEST_SLICE
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.plan import Plan
from shardwave.shards.build.shard_task import array_fields, sample_meta
from shardwave.shards.build.survey import Survey
from shardwave.shards.format.layout import BLOCK, NPY_HEADER, clip_key, padded, slice_key
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.storage.any_path import AnyPath

# A set larger than LARGE bytes and LARGE_SHARE times the audio gets a warning.
LARGE, LARGE_SHARE = 100e6, 10
SMALL = 128  # image size suggested in this warning, pixels
SPREAD = 10  # 95 % / 5 % quantile of lengths above which one image width distorts the time scale
# Bytes of a shard without samples: end of the tar and head of the index; head of the DALI index.
SHARD = (1_024 + 256, 16)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Summary of the input and output of a build.

    If `headers` is less than `clips`, the values that depend on lengths are estimates from these headers.

    Attributes:
        config: Settings of the spectrogram.
        chosen: Description of the settings that depend on the clips; may be empty.
        clips: Number of clips.
        headers: Number of headers read.
        unreadable: Number of these that are unreadable.
        too_long: Number of clips longer than `max_minutes`.
        max_minutes: Limit of the length of a clip, in minutes.
        audio_bytes: Size of the audio files.
        lengths: Shortest, median and longest length in seconds; None if no header is readable.
        spread: Ratio of the 95 % quantile to the 5 % quantile of the lengths.
        audio_seconds: Length of all clips, in seconds.
        rates: Number of headers by sample rate in Hz.
        images: Number of images by view.
        slice_length: Median length of a slice in seconds; None without slices.
        shards: Number of shards of all views.
        bytes: Size of the tar files and indexes.
        unused_seconds: Seconds of audio that are in no image, by view.
        seconds: Duration of the build in seconds; None if it was not measured.
    """

    config: SpectrogramConfig
    chosen: str
    clips: int
    headers: int
    unreadable: int
    too_long: int
    max_minutes: float
    audio_bytes: int
    lengths: tuple[float, float, float] | None
    spread: float
    audio_seconds: float
    rates: dict[int, int]
    images: dict[str, int]
    slice_length: float | None
    shards: int
    bytes: int
    unused_seconds: dict[str, float]
    seconds: float | None = None


def summarize(planned: Plan, found: Survey, config: SpectrogramConfig, chosen: str) -> Summary:
    """Summarise a planned build; clips with unreadable headers are counted as quarantined.

    Args:
        planned: The plan.
        found: Headers of the clips.
        config: Settings of the spectrogram.
        chosen: Description of the settings that depend on the clips.
    """
    readable, seconds, samples = found.rows[found.readable], found.seconds, found.samples(config)
    scale = found.clips / max(1, len(found.rows))  # clips for each header
    slices = found.slices(config)
    sizes = _bytes(planned, readable.tolist(), samples, slices, config)
    views = 2 if config.sliced and planned.options.get("layout") != STRIP else 1
    shards = views * len(set(zip(planned.clips.splits, planned.clips.numbers[:, 1].tolist(), strict=True)))
    unused = (
        np.array([config.unused(count) for count in samples]).reshape(-1, 2).sum(axis=0)
        / config.sample_rate
        * scale
    )
    bounds = [config.slice_bounds(count) for count in samples]
    frames = [np.mean([stop - start for start, stop in parts]) for parts in bounds if parts]
    slice_length = float(np.median(frames)) * config.hop_length / config.sample_rate if frames else None
    short, long = np.quantile(seconds, (0.05, 0.95)) if len(seconds) else (1.0, 1.0)
    return Summary(
        config=config,
        chosen=chosen,
        clips=found.clips,
        headers=len(found.rows),
        unreadable=len(found.rows) - len(readable),
        too_long=round(int((seconds > 60 * planned.options["max_clip_minutes"]).sum()) * scale),
        max_minutes=planned.options["max_clip_minutes"],
        audio_bytes=int(np.maximum(planned.clips.numbers[:, 3], 0).sum()),
        lengths=(float(seconds.min()), float(np.median(seconds)), float(seconds.max()))
        if len(seconds)
        else None,
        spread=float(long / short),
        audio_seconds=float(seconds.sum() * scale),
        rates=dict(Counter(found.rates.tolist()).most_common()),
        images={"full": round(len(readable) * scale), "slice": round(slices.sum() * scale)},
        slice_length=slice_length,
        shards=shards,
        bytes=round(sizes * scale) + shards * sum(SHARD),
        unused_seconds={"full": float(unused[0]), "slice": float(unused[1])},
    )


def _bytes(
    planned: Plan, rows: list[int], samples: list[int], slices: np.ndarray, config: SpectrogramConfig
) -> float:
    """Compute the bytes of the samples of clips `rows` in tar files and indexes."""
    layout = planned.options.get("layout", VIEWS)
    fields = array_fields(config, layout)
    arrays = [
        padded(NPY_HEADER + np.dtype(kind).itemsize * math.prod(length or 1 for length in shape))
        for kind, shape in fields.values()
    ]
    members = [*fields, "cls", "json"]
    tar = sum(arrays) + BLOCK * (len(members) + 1)  # a header per member, and the class
    index = 8 * (2 + 2 * len(members))  # class and clip, offset and length of each member
    place = len(f" {config.image_size**2} 123456789  .")  # offset of nine digits, length and separators
    total = 0.0
    strips = np.zeros(len(rows))  # bytes of the frames and vectors of each clip
    if layout == STRIP:
        frames = np.array([config.frames(count) for count in samples])
        vectors = sum(4 * shape[1] for name, (_, shape) in fields.items() if name != "npy" and shape[1])
        strips, slices = config.image_size * frames + slices * vectors, np.zeros(len(rows))
    for row, count in zip(rows, slices.tolist(), strict=True):
        clip = planned.clips.clips[row]
        key = clip_key(row, clip.path)
        for name, view, many in ((key, "full", 1), (slice_key(key, 0), "slice", count)):
            index_of = 0 if view == "slice" else None
            meta = sample_meta(
                clip, view=view, index=index_of, start=1.234567, length=1.234567, source_rate=44_100
            )
            text = len(json.dumps(meta))
            dali = sum(place + len(name) + 2 * len(member) for member in members)
            total += many * (tar + padded(text) + index + dali)
    return total + float(strips.sum())


def smaller(planned: Plan, found: Survey, config: SpectrogramConfig) -> dict[str, int]:
    """Estimate the size of the set for options that make it smaller.

    Args:
        planned: The plan.
        found: Headers of the clips.
        config: Settings of the spectrogram.

    Returns:
        Bytes of the set by option, such as `--slices 0`; empty if there is no such option.
    """
    unsliced = dataclasses.replace(config, slices=0, slice_seconds=None, slice_overlap=0.0)
    configs: dict[str, SpectrogramConfig] = {}
    if planned.options.get("layout") != STRIP and config.sliced:
        configs["--slices 0"] = unsliced
    if config.image_size > SMALL:
        configs[f"--image-size {SMALL}"] = dataclasses.replace(config, image_size=SMALL)
    if len(configs) == 2:
        configs[" ".join(configs)] = dataclasses.replace(unsliced, image_size=SMALL)
    return {option: summarize(planned, found, changed, "").bytes for option, changed in configs.items()}


def describe(summary: Summary) -> list[str]:
    """Format a summary as lines for a terminal."""
    config = summary.config
    about = "" if summary.headers == summary.clips else "about "
    count = "" if not about else f", by the headers of {summary.headers:,} of them"
    lines = [f"audio     {_clips(summary.clips)}, {_bytes_text(summary.audio_bytes)}{count}"]
    if summary.lengths is not None:
        shortest, median, longest = (f"{value:.3g}" for value in summary.lengths)
        spread = (
            f"{median} s each" if shortest == longest else f"{shortest} to {longest} s, median {median} s"
        )
        lines.append(f"lengths   {spread}; {about}{_time(summary.audio_seconds)} in all")
        rates = list(summary.rates.items())
        more = f", and {len(rates) - 4} others" if len(rates) > 4 else ""
        lines.append(
            f"rates     {', '.join(f'{rate:,} Hz: {headers:,}' for rate, headers in rates[:4])}{more}"
        )
    if summary.unreadable:
        lines.append(
            f"headers   {summary.unreadable:,} of {summary.headers:,} are unreadable: these clips will be "
            "quarantined"
        )
    if config.slice_seconds is None:
        sliced = f"{config.slices} slices" if config.slices else "no slices"
    else:
        overlap = f" that overlap by {100 * config.slice_overlap:g} %" if config.slice_overlap else ""
        sliced = f"slices of {config.slice_seconds:g} s{overlap}"
    fit = "" if config.fit_seconds is None else f", fit {config.fit} to {config.fit_seconds:g} s"
    window = (
        f"{config.sample_rate:,} Hz, window {config.n_fft}, hop {config.hop_length}, "
        f"{config.frequency_scale} frequency"
    )
    pixels = f"{config.image_size} x {config.image_size} pixels"
    vectors = ["features"] if config.features else []
    vectors += [f"embedding {entry}" for entry in config.embedding_entries]
    lines.append(f"settings  {', '.join([window, pixels, f'{sliced}{fit}', *vectors])}")
    if summary.chosen:
        lines.append(f"          chosen by the clips: {summary.chosen}")
    slices = f" and {summary.images['slice']:,} of slices" if summary.images["slice"] else ""
    times = f", {_times(summary)} the audio's bytes" if summary.audio_bytes else ""
    lines.append(f"images    {about}{summary.images['full']:,} of whole clips{slices}")
    lines.append(f"set       about {_bytes_text(summary.bytes)}{times}, in {summary.shards} shards")
    for view, what in (("full", "image of a whole clip"), ("slice", "slice")):
        unused = summary.unused_seconds[view]
        if unused > 0:
            share = 100 * unused / summary.audio_seconds
            lines.append(
                f"unused    {about}{_time(unused)} ({share:.2g} %) at the ends of clips are in no {what}"
            )
    if summary.seconds is not None:
        lines.append(f"time      about {_time(round(summary.seconds))} to build here")
    return lines


def brief(summary: Summary) -> list[str]:
    """Format a summary in one or two lines."""
    lengths = ""
    if summary.lengths is not None:
        shortest, median, longest = (f"{value:.3g}" for value in summary.lengths)
        lengths = (
            f" of {median} s" if shortest == longest else f" of {shortest} to {longest} s (median {median} s)"
        )
        rates = list(summary.rates)
        lengths += f", {rates[0]:,} Hz" if len(rates) == 1 else f", {min(rates):,} to {max(rates):,} Hz"
    images = sum(summary.images.values())
    times = f" ({_times(summary)} the audio)" if summary.audio_bytes else ""
    size = summary.config.image_size
    lines = [
        f"{_clips(summary.clips)}{lengths}: {images:,} images of {size} x {size}, "
        f"about {_bytes_text(summary.bytes)}{times}"
    ]
    if summary.chosen:
        lines.append(f"chosen by the clips: {summary.chosen}")
    return lines


def warnings(summary: Summary, free: int | None, remedies: dict[str, int]) -> list[str]:
    """Return warnings on unfavourable settings and sizes, each with the options that help.

    Args:
        summary: The summary of the build.
        free: Free bytes at the location of the set; None if unknown.
        remedies: Result of `smaller`.
    """
    config, messages = summary.config, []
    low = sum(headers for rate, headers in summary.rates.items() if rate < config.sample_rate)
    if low * 10 > sum(summary.rates.values()):
        rate = max(rate for rate in summary.rates if rate < config.sample_rate)
        black = f": {100 * (1 - rate / config.sample_rate):.0f} % of each image is black"
        share = black if config.frequency_scale == "linear" else ""
        messages.append(
            f"{low:,} of {sum(summary.rates.values()):,} clips are recorded at {rate:,} Hz or less and are "
            f"silent above {rate // 2:,} Hz{share}: use --sample-rate auto, or {rate}"
        )
    if summary.too_long:
        messages.append(
            f"{_clips(summary.too_long)} longer than {summary.max_minutes:g} minutes will be quarantined: "
            "use a larger --max-clip-minutes, or columns start and end in --labels"
        )
    window = config.n_fft / config.sample_rate
    if (
        summary.lengths is not None
        and config.fitted(round(summary.lengths[1] * config.sample_rate)) < config.n_fft
    ):
        messages.append(
            f"half of the clips are shorter than a window of {window:.3g} s: use a smaller --n-fft (and "
            "--hop-length)"
        )
    elif summary.slice_length is not None and summary.slice_length < max(window, SHORTEST_SLICE) * 0.95:
        than = f"a window ({window:.3g} s)" if summary.slice_length < window else f"{SHORTEST_SLICE:g} s"
        messages.append(
            f"slices of {summary.slice_length:.2g} s are shorter than {than}: use --slices auto, or 0"
        )
    if config.fit == "stretch" and summary.lengths is not None and summary.spread > SPREAD:
        messages.append(
            f"clips of {summary.lengths[0]:.2g} to {summary.lengths[2]:.3g} s are stretched to one width: "
            "use --slice-seconds or --fit crop for one time scale"
        )
    if summary.bytes > max(LARGE, LARGE_SHARE * summary.audio_bytes) and remedies:
        options = ", ".join(f"{option} ({_bytes_text(size)})" for option, size in remedies.items())
        messages.append(
            f"the set is {_times(summary)} as large as the audio, about {_bytes_text(summary.bytes)}: use "
            f"{options}"
        )
    if free is not None and summary.bytes > free:
        messages.append(
            f"the set needs about {_bytes_text(summary.bytes)}, and {_bytes_text(free)} are free: choose "
            "another --out"
        )
    return [f"warning: {message}" for message in messages]


def free_bytes(out: AnyPath) -> int | None:
    """Return the free bytes of the file system of `out`, which need not exist; None for an object store."""
    if not isinstance(out, Path):
        return None
    out = out.absolute()
    return shutil.disk_usage(next(folder for folder in (out, *out.parents) if folder.exists())).free


def _clips(count: int) -> str:
    return f"{count:,} clip{'' if count == 1 else 's'}"


def _times(summary: Summary) -> str:
    times = summary.bytes / summary.audio_bytes
    return f"{times:.2g} times" if times < 100 else f"{times:,.0f} times"


def _bytes_text(size: float) -> str:
    return (
        f"{size / 1e9:.3g} GB"
        if size >= 1e9
        else f"{size / 1e6:.3g} MB"
        if size >= 1e6
        else f"{size / 1e3:.3g} kB"
    )


def _time(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.1f} min"
        if seconds >= 90
        else f"{seconds:.3g} s"
    )
