"""Size and settings of a set before it is built: from headers and the layout of samples, nothing is decoded."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.preprocess.auto_config import SHORTEST_SLICE
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.plan import Plan
from shardwave.shards.build.survey import Survey
from shardwave.shards.build.unit import array_fields, sample_meta
from shardwave.shards.format.layout import BLOCK, NPY_HEADER, clip_key, padded, slice_key
from shardwave.shards.storage.any_path import AnyPath

LARGE, LARGE_SHARE = 100e6, 10  # bytes of a set, and of it to the audio's, from which on remedies are named
SMALL = 128  # pixels; the image size that is named then
SPREAD = 10  # times as long as short clips (5 % are shorter) are long ones (5 % are longer): one width distorts them
SHARD = (1_024 + 256, 16)  # bytes of a shard beside its samples: end of the tar and head of the index, head of the DALI index


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a build takes and makes. Where `headers` is less than `clips`, figures on lengths are estimates from that many."""

    config: SpectrogramConfig
    chosen: str  # settings that the clips decided, in words
    clips: int
    headers: int  # read
    unreadable: int  # of these
    too_long: int  # clips longer than `max_minutes`
    max_minutes: float
    audio_bytes: int
    lengths: tuple[float, float, float] | None  # seconds: shortest, median, longest; None: no header is readable
    spread: float  # length that 5 % of clips exceed / length that 5 % fall below
    audio_seconds: float
    rates: dict[int, int]  # Hz -> headers
    images: dict[str, int]  # view -> images
    slice_length: float | None  # seconds, median
    shards: int  # of all views
    bytes: int  # of tars and indexes
    unused_seconds: dict[str, float]  # view -> seconds of audio that none of its images shows
    seconds: float | None = None  # of building, where that was measured


def summarize(planned: Plan, found: Survey, config: SpectrogramConfig, chosen: str) -> Summary:
    """Sum up a planned build. Clips whose headers are unreadable count as clips that will be quarantined."""
    readable, seconds, samples = found.rows[found.readable], found.seconds, found.samples(config)
    scale = found.clips / max(1, len(found.rows))  # clips for each header
    slices = found.slices(config)
    sizes = _bytes(planned, readable.tolist(), slices, config)
    views = 2 if config.slices or config.slice_seconds is not None else 1
    shards = views * len(set(zip(planned.clips.splits, planned.clips.numbers[:, 1].tolist(), strict=True)))
    unused = np.array([config.unused(count) for count in samples]).reshape(-1, 2).sum(axis=0) / config.sample_rate * scale
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
        lengths=(float(seconds.min()), float(np.median(seconds)), float(seconds.max())) if len(seconds) else None,
        spread=float(long / short),
        audio_seconds=float(seconds.sum() * scale),
        rates=dict(Counter(found.rates.tolist()).most_common()),
        images={"full": round(len(readable) * scale), "slice": round(slices.sum() * scale)},
        slice_length=slice_length,
        shards=shards,
        bytes=round(sizes * scale) + shards * sum(SHARD),
        unused_seconds={"full": float(unused[0]), "slice": float(unused[1])},
    )


def _bytes(planned: Plan, rows: list[int], slices: np.ndarray, config: SpectrogramConfig) -> float:
    """Bytes of the samples of these clips in tars and indexes, by the layout."""
    fields = array_fields(config)
    arrays = [padded(NPY_HEADER + np.dtype(kind).itemsize * math.prod(shape)) for kind, shape in fields.values()]
    members = [*fields, "cls", "json"]
    tar = sum(arrays) + BLOCK * (len(members) + 1)  # a header for each, and the class
    index = 8 * (2 + 2 * len(members))  # class and clip, offset and length of each
    place = len(f" {config.image_size**2} 123456789  .")  # an offset of nine digits, a length and what stands between
    total = 0.0
    for row, count in zip(rows, slices.tolist(), strict=True):
        clip = planned.clips.clips[row]
        key = clip_key(row, clip.path)
        for name, view, samples in ((key, "full", 1), (slice_key(key, 0), "slice", count)):
            index_of = 0 if view == "slice" else None
            meta = sample_meta(clip, view=view, index=index_of, start=1.234567, length=1.234567, source_rate=44_100)
            text = len(json.dumps(meta))
            dali = sum(place + len(name) + 2 * len(member) for member in members)
            total += samples * (tar + padded(text) + index + dali)
    return total


def smaller(planned: Plan, found: Survey, config: SpectrogramConfig) -> dict[str, int]:
    """Options that make the set smaller -> the bytes it would then have."""
    none = {"slices": 0, "slice_seconds": None, "slice_overlap": 0.0}
    changes: dict[str, dict[str, Any]] = {}
    if config.slices or config.slice_seconds is not None:
        changes["--slices 0"] = none
    if config.image_size > SMALL:
        changes[f"--image-size {SMALL}"] = {"image_size": SMALL}
    if len(changes) == 2:
        changes[" ".join(changes)] = {**none, "image_size": SMALL}
    return {
        option: summarize(planned, found, dataclasses.replace(config, **change), "").bytes for option, change in changes.items()
    }


def describe(summary: Summary) -> list[str]:
    """Lines for a terminal: the audio, the set, the settings."""
    config = summary.config
    about = "" if summary.headers == summary.clips else "about "
    count = "" if not about else f", by the headers of {summary.headers:,} of them"
    lines = [f"audio     {_clips(summary.clips)}, {_bytes_text(summary.audio_bytes)}{count}"]
    if summary.lengths is not None:
        shortest, median, longest = (f"{value:.3g}" for value in summary.lengths)
        spread = f"{median} s each" if shortest == longest else f"{shortest} to {longest} s, median {median} s"
        lines.append(f"lengths   {spread}; {about}{_time(summary.audio_seconds)} in all")
        rates = list(summary.rates.items())
        more = f", and {len(rates) - 4} others" if len(rates) > 4 else ""
        lines.append(f"rates     {', '.join(f'{rate:,} Hz: {headers:,}' for rate, headers in rates[:4])}{more}")
    if summary.unreadable:
        lines.append(f"headers   {summary.unreadable:,} of {summary.headers:,} are unreadable: such clips will be quarantined")
    if config.slice_seconds is None:
        sliced = f"{config.slices} slices" if config.slices else "no slices"
    else:
        overlap = f" that overlap by {100 * config.slice_overlap:g} %" if config.slice_overlap else ""
        sliced = f"slices of {config.slice_seconds:g} s{overlap}"
    fit = "" if config.fit_seconds is None else f", fit {config.fit} to {config.fit_seconds:g} s"
    window = f"{config.sample_rate:,} Hz, window {config.n_fft}, hop {config.hop_length}, {config.frequency_scale} frequency"
    pixels = f"{config.image_size} x {config.image_size} pixels"
    lines.append(f"settings  {window}, {pixels}, {sliced}{fit}{', features' if config.features else ''}")
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
            lines.append(f"unused    {about}{_time(unused)} ({share:.2g} %) at the ends of clips are in no {what}")
    if summary.seconds is not None:
        lines.append(f"time      about {_time(round(summary.seconds))} to build here")
    return lines


def brief(summary: Summary) -> list[str]:
    """The same in a line or two, for every build."""
    lengths = ""
    if summary.lengths is not None:
        shortest, median, longest = (f"{value:.3g}" for value in summary.lengths)
        lengths = f" of {median} s" if shortest == longest else f" of {shortest} to {longest} s (median {median} s)"
        rates = list(summary.rates)
        lengths += f", {rates[0]:,} Hz" if len(rates) == 1 else f", {min(rates):,} to {max(rates):,} Hz"
    images = sum(summary.images.values())
    times = f" ({_times(summary)} the audio)" if summary.audio_bytes else ""
    lines = [
        f"{_clips(summary.clips)}{lengths}: {images:,} images of {summary.config.image_size} x {summary.config.image_size}, "
        f"about {_bytes_text(summary.bytes)}{times}"
    ]
    if summary.chosen:
        lines.append(f"chosen by the clips: {summary.chosen}")
    return lines


def warnings(summary: Summary, free: int | None, remedies: dict[str, int]) -> list[str]:
    """What a user may not want, each with the options that help.

    Args:
        summary: Of the build.
        free: Bytes free where the set will lie, None if not known.
        remedies: What `smaller` returns.
    """
    config, told = summary.config, []
    low = sum(headers for rate, headers in summary.rates.items() if rate < config.sample_rate)
    if low * 10 > sum(summary.rates.values()):
        rate = max(rate for rate in summary.rates if rate < config.sample_rate)
        black = f": {100 * (1 - rate / config.sample_rate):.0f} % of each image is black"
        share = black if config.frequency_scale == "linear" else ""
        told.append(
            f"{low:,} of {sum(summary.rates.values()):,} clips are recorded at {rate:,} Hz or less, so that nothing lies above "
            f"{rate // 2:,} Hz{share}: --sample-rate auto, or {rate}"
        )
    if summary.too_long:
        told.append(
            f"{_clips(summary.too_long)} longer than {summary.max_minutes:g} minutes will be quarantined: a larger "
            "--max-clip-minutes, or start,end columns in --labels"
        )
    window = config.n_fft / config.sample_rate
    if summary.lengths is not None and config.fitted(round(summary.lengths[1] * config.sample_rate)) < config.n_fft:
        told.append(f"half of the clips are shorter than a window of {window:.3g} s: a smaller --n-fft (and --hop-length)")
    elif summary.slice_length is not None and summary.slice_length < max(window, SHORTEST_SLICE) * 0.95:
        than = f"a window ({window:.3g} s)" if summary.slice_length < window else f"{SHORTEST_SLICE:g} s"
        told.append(f"slices of {summary.slice_length:.2g} s are shorter than {than}: --slices auto, or 0")
    if config.fit == "stretch" and summary.lengths is not None and summary.spread > SPREAD:
        told.append(
            f"clips of {summary.lengths[0]:.2g} to {summary.lengths[2]:.3g} s are drawn into one width: --slice-seconds or "
            "--fit crop gives them one time scale"
        )
    if summary.bytes > max(LARGE, LARGE_SHARE * summary.audio_bytes) and remedies:
        options = ", ".join(f"{option} ({_bytes_text(size)})" for option, size in remedies.items())
        told.append(f"the set is {_times(summary)} as large as the audio, about {_bytes_text(summary.bytes)}: {options}")
    if free is not None and summary.bytes > free:
        told.append(f"the set needs about {_bytes_text(summary.bytes)}, and {_bytes_text(free)} are free there: another --out")
    return [f"take care: {line}" for line in told]


def free_bytes(out: AnyPath) -> int | None:
    """Bytes free where `out` lies, or will lie; None for an object store."""
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
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.3g} s"
