"""Comparison of stored samples with samples that are recomputed from the audio, pixel by pixel."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TypedDict

import numpy as np

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import muted, say
from shardwave.common.printable import one_line
from shardwave.shards.clip import Clip, clip_of_sample
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.inspect.lookup import find_clip
from shardwave.shards.quarantine import quarantined
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View
from shardwave.shards.storage import scratch

PARITY = (0.999, 4)  # required fraction of pixels within 1 level, maximum difference in levels


class Worst(TypedDict):
    """The sample with the largest difference."""

    levels: int
    key: str | None  # None: no sample differs


class Differences(TypedDict):
    """Differences between the samples of two sets."""

    samples: int  # number compared
    identical: int  # number of samples
    within_1: float  # fraction of pixels that differ by at most 1 level of 255
    worst: Worst
    unlike: list[str]  # keys and names of samples that only one side has


class Comparison(Differences):
    """Comparison of a set with its audio."""

    clips: int  # number compared
    missing: list[str]  # paths of missing files
    verdict: str  # `identical`, `within tolerance` or `different`
    compared_with: str  # engine and device
    built_with: str  # engine and device


def compare(set_path: Path | str, audio: Path | str, key: str | None = None, clips: int = 12) -> Comparison:
    """Recompute samples from the audio and compare them with the stored ones, pixel by pixel.

    The engine is that of the set; if it is not available on this machine, it is the engine selected by
    `auto`.

    Args:
        set_path: The set's folder or URL.
        audio: The audio folder that the set was built from.
        key: Key or path of a clip; None compares several clips.
        clips: Number of clips to compare, evenly spread over the set, if `key` is None.

    Raises:
        UsageError: The set was not built from audio, the audio folder or all selected files are missing, or
            there is no such clip.
        ShardwaveError: A path of the set is not below the audio folder, or no clip can be recomputed.
    """
    opened, audio = open_set(set_path), Path(audio)
    if opened.config is None:
        raise UsageError(f"{set_path} was not built from audio: only sets of spectrograms can be compared")
    if not audio.is_dir():
        raise UsageError(f"--against must be the audio folder that the set was built from, got {audio}")
    chosen = [find_clip(opened, key)] if key is not None else _spread_over(opened, clips)
    metas = [view.meta(row) for view, row in chosen]
    for meta in metas:
        if PurePosixPath(meta["path"]).is_absolute() or ".." in PurePosixPath(meta["path"]).parts:
            raise ShardwaveError(
                f"{set_path}: the path of a sample must be below the audio folder, got {meta['path']}: "
                "run verify"
            )
    missing = [meta["path"] for meta in metas if not (audio / meta["path"]).exists()]
    if len(missing) == len(metas):
        raise UsageError(
            f"--against {audio}: the folder does not contain {missing[0]}; give the folder that the set was "
            "built from"
        )
    present = [
        (view, row, meta)
        for (view, row), meta in zip(chosen, metas, strict=True)
        if meta["path"] not in missing
    ]
    say(f"recomputing {len(present)} clips from {audio}")
    with scratch.folder() as folder:
        recomputed, engine = _recompute(
            opened, audio, [clip_of_sample(meta) for _, _, meta in present], folder
        )
        compared = _compare(
            opened, recomputed, {int(view.clip[row]): clip_of_sample(meta) for view, row, meta in present}
        )
    share, most = PARITY
    tolerable = (
        compared["worst"]["levels"] <= most and compared["within_1"] >= share and not compared["unlike"]
    )
    same = compared["identical"] == compared["samples"] and not compared["unlike"]
    return {
        "clips": len(present),
        **compared,
        "missing": missing,
        "verdict": "identical" if same else "within tolerance" if tolerable else "different",
        "compared_with": engine,
        "built_with": f"{opened.manifest['engine']} on {opened.manifest['device']}",
    }


def _spread_over(opened: ShardSet, clips: int) -> list[tuple[View, int]]:
    """Select full views of `clips` clips, evenly spread over splits and shards."""
    view = opened.view(opened.splits, "full")
    return [
        (view, int(row))
        for row in np.unique(np.linspace(0, len(view) - 1, min(clips, len(view))).astype(int))
    ]


def _recompute(opened: ShardSet, audio: Path, clips: list[Clip], folder: Path) -> tuple[ShardSet, str]:
    """Build a set of the given clips with the stored configuration; returns it and its engine and device."""
    from shardwave.preprocess.engines.registry import resolve
    from shardwave.shards.build.builder import BuildOptions, build

    engine, device = opened.manifest["engine"] or "auto", opened.manifest["device"] or "auto"
    try:
        engine, device = resolve(engine, device)
    except UsageError:  # engine or device of the set is not available here
        engine, device = resolve("auto", "auto")
    layout = STRIP if opened.is_strip else VIEWS
    options = BuildOptions(layout=layout, engine=engine, device=device, min_shards=1, max_bad_fraction=1.0)
    assert opened.config is not None
    with muted():  # messages about the temporary set would be confusing
        build(audio, folder / "set", opened.config, options, clips)
    return open_set(folder / "set"), f"{engine} on {device}"


def _compare(opened: ShardSet, recomputed: ShardSet, clips: dict[int, Clip]) -> Differences:
    """Compare the samples of two sets by clip and slice; `clips` maps clip numbers of `opened` to clips."""
    samples_by_slice: dict[tuple[Clip, int | None], tuple[View, int]] = {}
    for view_name in recomputed.views:
        view = recomputed.view(recomputed.splits, view_name)
        for number in range(len(view)):
            meta = view.meta(number)
            samples_by_slice[clip_of_sample(meta), meta["slice"]] = (view, number)
    samples = identical = 0
    pixels = np.zeros(256, np.int64)
    worst: Worst = {"levels": 0, "key": None}
    unlike = []
    for view_name in opened.views:
        view = opened.view(opened.splits, view_name)
        for row in np.flatnonzero(np.isin(view.clip, list(clips))).tolist():
            sample = samples_by_slice.pop((clips[int(view.clip[row])], view.meta(row)["slice"]), None)
            if sample is None:
                unlike.append(view.key(row))
                continue
            stored, new = (v.gather([r])["npy"].astype(np.int16) for v, r in ((view, row), sample))
            levels = np.abs(stored - new)
            samples += 1
            identical += int(not levels.any())
            pixels += np.bincount(levels.ravel(), minlength=256)
            if levels.max() > worst["levels"]:
                worst = {"levels": int(levels.max()), "key": view.key(row)}
    if not samples:
        raise ShardwaveError(
            f"none of the {len(clips)} clips could be recomputed: {quarantined(recomputed.path)[:1]}"
        )
    unlike += [f"{clip.name} slice {index}" for clip, index in samples_by_slice]
    within = float(pixels[:2].sum() / pixels.sum())
    return {
        "samples": samples,
        "identical": identical,
        "within_1": round(within, 6),
        "worst": worst,
        "unlike": unlike,
    }


def describe(comparison: Comparison) -> str:
    """Format the result of `compare` as text for a terminal."""
    worst, samples = (
        comparison["worst"],
        f"{comparison['samples']} samples, {comparison['identical']} of them identical",
    )
    key = f" ({worst['key']})" if worst["key"] else ""
    within = f"{100 * comparison['within_1']:.4f} % within 1 level of 255"
    lines = [
        f"{comparison['verdict']}: {comparison['clips']} clips, {samples}",
        f"  compared     built with {comparison['built_with']}, "
        f"recomputed with {comparison['compared_with']}",
        f"  pixels       {within}; largest difference: {worst['levels']}{key}",
    ]
    lines += [f"  missing      {one_line(path)}" for path in comparison["missing"][:5]]
    unlike = "only one side has this sample, because the audio has changed"
    lines += [f"  unlike       {one_line(key)}: {unlike}" for key in comparison["unlike"][:5]]
    return "\n".join(lines)
