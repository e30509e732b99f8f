"""Find one sample of a shard set, and describe it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.printable import one_line
from shardwave.shards.clip import clip_of_sample
from shardwave.shards.format import manifest
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View


def find(opened: ShardSet, key: str) -> tuple[View, int]:
    """Find a sample.

    Args:
        opened: The set.
        key: The sample's key, or the path of a clip below the audio folder, which means the clip's full view.

    Returns:
        The view that holds the sample, and its row there.

    Raises:
        UsageError: There is no such sample, or the path is that of a file with several labelled segments.
    """
    segments = []
    for split in opened.splits:
        for name in opened.manifest["splits"][split]:
            view = opened.view(split, name)
            for row in range(len(view)):
                if view.key(row) == key:
                    return view, row
                if name == "full" and view.meta(row).get("path") == key:
                    segments.append((view, row, clip_of_sample(view.meta(row))))
    if len(segments) > 1:
        shown = [f"{view.key(row)} for {clip.name}" for view, row, clip in segments[:5]]
        more = ", ..." if len(segments) > 5 else ""
        raise UsageError(f"{opened.path}: {key} has {len(segments)} segments; give the key of one: {', '.join(shown)}{more}")
    if segments:
        return segments[0][:2]
    example = opened.view(opened.splits[0], "full")
    raise UsageError(
        f"{opened.path} has no sample {key}; keys look like {example.key(0)}, or give a path such as {example.meta(0)['path']}"
    )


def find_clip(opened: ShardSet, key: str) -> tuple[View, int]:
    """Find the full view of a clip, by a key or a path that `find` understands; returns the view and the row there."""
    view, row = find(opened, key)
    clip = int(view.clip[row])
    full = opened.view(view.split_and_shard(row)[0], "full")
    return full, int(np.flatnonzero(full.clip == clip)[0])


def sample(set_path: Path | str, key: str) -> dict[str, Any]:
    """Describe one sample.

    Args:
        set_path: The set's folder or URL.
        key: The sample's key, or the path of a clip, which means its full view.

    Returns:
        `key, split, cls, clip, shard, slices` (of the same clip), the sample's json field, and `values`: for each array field its
        dtype, shape and least, mean and greatest value.
    """
    opened = open_set(set_path)
    view, row = find(opened, key)
    split, shard = view.split_and_shard(row)
    clip = int(view.clip[row])
    slices = opened.view(split, "slice") if "slice" in opened.manifest["splits"][split] else None
    values = {}
    for name in opened.fields:
        if name not in manifest.OWN_FIELDS:
            array = view.gather([row], [name])[name][0]
            least, mean, most = (float(f(array)) for f in (np.min, np.mean, np.max)) if array.size else (None,) * 3
            values[name] = {"dtype": str(array.dtype), "shape": list(array.shape), "min": least, "mean": mean, "max": most}
    return {
        "key": view.key(row),
        "split": split,
        "cls": int(view.cls[row]),
        "clip": clip,
        "shard": shard,
        "slices": 0 if slices is None else int((slices.clip == clip).sum()),
        **view.meta(row),
        "values": values,
    }


def describe_sample(found: dict[str, Any]) -> str:
    """Format what `sample` returned as text for a terminal."""
    lines = [one_line(found["key"])]
    names = [name for name in found if name not in ("key", "values")]
    width = max(map(len, [*names, *found["values"]]))
    lines += [f"  {name.ljust(width)}  {'-' if found[name] is None else one_line(str(found[name]))}" for name in names]
    for name, about in found["values"].items():
        shape = " x ".join(map(str, about["shape"]))
        spread = "" if about["min"] is None else f", {about['min']:.4g} to {about['max']:.4g}, mean {about['mean']:.4g}"
        lines.append(f"  {name.ljust(width)}  {about['dtype']} {shape}{spread}")
    return "\n".join(lines)
