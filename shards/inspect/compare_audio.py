"""Samples against the audio they came from: made anew through the engine and compared pixel by pixel."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import muted, say
from shardwave.common.printable import one_line
from shardwave.shards.clip import Clip, clip_of_sample
from shardwave.shards.inspect.lookup import find_clip
from shardwave.shards.quarantine import quarantined
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View
from shardwave.shards.storage import scratch

PARITY = (0.999, 4)  # share of pixels within 1 level, and the most levels any may be off (DESIGN §2, spectrogram)


def against(set_path: Path | str, audio: Path | str, key: str | None = None, clips: int = 12) -> dict[str, Any]:
    """Compute samples anew from `audio` and compare them with the stored ones, pixel level by pixel level.

    One sample's clip (`key`: its key or path), or `clips` of them spread evenly over the set. The engine is the one the set was
    built with, or where that is not here the one that `auto` stands for, which `engine` names. Returns clips, samples, identical
    (samples), within_1 (share of pixels), worst (levels, key), missing (paths), verdict (`identical`, `within tolerance`,
    `different`) and what was `compared_with`.
    """
    opened, audio = open_set(set_path), Path(audio)
    if opened.config is None:
        raise UsageError(f"{set_path} was not made from audio: there is nothing to compare")
    if not audio.is_dir():
        raise UsageError(f"--against must name the folder of audio the set was built from, got {audio}")
    chosen = [find_clip(opened, key)] if key is not None else _spread_over(opened, clips)
    metas = [view.meta(row) for view, row in chosen]
    for meta in metas:
        if PurePosixPath(meta["path"]).is_absolute() or ".." in PurePosixPath(meta["path"]).parts:
            raise ShardwaveError(
                f"{set_path}: a sample's path must lie below the folder of audio, got {meta['path']}: run verify"
            )
    missing = [meta["path"] for meta in metas if not (audio / meta["path"]).exists()]
    if len(missing) == len(metas):
        raise UsageError(f"--against {audio}: {missing[0]} is not there; give the folder the set was built from")
    present = [(view, row, meta) for (view, row), meta in zip(chosen, metas, strict=True) if meta["path"] not in missing]
    say(f"making {len(present)} clips anew from {audio}")
    with scratch.folder() as folder:
        anew, engine = _build_anew(opened, audio, [clip_of_sample(meta) for _, _, meta in present], folder)
        compared = _compare(opened, anew, {int(view.clip[row]): clip_of_sample(meta) for view, row, meta in present})
    compared["missing"] = missing
    share, most = PARITY
    tolerable = compared["worst"]["levels"] <= most and compared["within_1"] >= share and not compared["unlike"]
    same = compared["identical"] == compared["samples"] and not compared["unlike"]
    compared["verdict"] = "identical" if same else "within tolerance" if tolerable else "different"
    return {
        "clips": len(present),
        **compared,
        "compared_with": engine,
        "built_with": f"{opened.manifest['engine']} on {opened.manifest['device']}",
    }


def _spread_over(opened: ShardSet, clips: int) -> list[tuple[View, int]]:
    """`clips` whole-clip samples, evenly spread over splits and shards."""
    view = opened.view(opened.splits, "full")
    return [(view, int(row)) for row in np.unique(np.linspace(0, len(view) - 1, min(clips, len(view))).astype(int))]


def _build_anew(opened: ShardSet, audio: Path, clips: list[Clip], folder: Path) -> tuple[ShardSet, str]:
    """A set of those clips alone, unlabelled, with the stored configuration; and the engine that made it."""
    from shardwave.preprocess.engines.registry import resolve
    from shardwave.shards.build.builder import BuildOptions, build

    engine, device = opened.manifest["engine"], opened.manifest["device"]
    try:
        engine, device = resolve(engine, device)
    except UsageError:  # built on a machine with other devices: the result names what it was compared with
        engine, device = resolve("auto", "auto")
    options = BuildOptions(engine=engine, device=device, min_shards=1, max_bad_fraction=1.0)
    assert opened.config is not None
    with muted():  # what it tells of its temporary set would only confuse
        build(audio, folder / "set", opened.config, options, clips)
    return open_set(folder / "set"), f"{engine} on {device}"


def _compare(opened: ShardSet, anew: ShardSet, clips: dict[int, Clip]) -> dict[str, Any]:
    """Levels of both sets' samples of the same clip and slice; `clips`: number in `opened` -> clip."""
    made: dict[tuple[Clip, int | None], tuple[View, int]] = {}
    for view_name in anew.views:
        view = anew.view(anew.splits, view_name)
        for number in range(len(view)):
            meta = view.meta(number)
            made[clip_of_sample(meta), meta["slice"]] = (view, number)
    samples = identical = 0
    pixels = np.zeros(256, np.int64)
    worst: dict[str, Any] = {"levels": 0, "key": None}
    unlike = []
    for view_name in opened.views:
        view = opened.view(opened.splits, view_name)
        for row in np.flatnonzero(np.isin(view.clip, list(clips))).tolist():
            found = made.pop((clips[int(view.clip[row])], view.meta(row)["slice"]), None)
            if found is None:
                unlike.append(view.key(row))
                continue
            stored, fresh = (v.gather([r])["npy"].astype(np.int16) for v, r in ((view, row), found))
            levels = np.abs(stored - fresh)
            samples += 1
            identical += int(not levels.any())
            pixels += np.bincount(levels.ravel(), minlength=256)
            if levels.max() > worst["levels"]:
                worst = {"levels": int(levels.max()), "key": view.key(row)}
    if not samples:
        raise ShardwaveError(f"none of the {len(clips)} clips could be made anew: {quarantined(anew.path)[:1]}")
    unlike += [f"{clip.name} slice {index}" for clip, index in made]
    within = float(pixels[:2].sum() / pixels.sum())
    return {"samples": samples, "identical": identical, "within_1": round(within, 6), "worst": worst, "unlike": unlike}


def report(found: dict[str, Any]) -> str:
    """What `against` returned as text for a terminal."""
    key = f" ({found['worst']['key']})" if found["worst"]["key"] else ""
    within = f"{100 * found['within_1']:.4f} % within 1 level of 255"
    lines = [
        f"{found['verdict']}: {found['clips']} clips, {found['samples']} samples, {found['identical']} of them identical",
        f"  compared     built with {found['built_with']}, made anew with {found['compared_with']}",
        f"  pixels       {within}; most off: {found['worst']['levels']}{key}",
    ]
    lines += [f"  missing      {one_line(path)}" for path in found["missing"][:5]]
    unlike = "only one side has this sample; the audio is not what it was"
    lines += [f"  unlike       {one_line(key)}: {unlike}" for key in found["unlike"][:5]]
    return "\n".join(lines)
