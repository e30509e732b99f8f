"""Search for a sample of a shard set and its description."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.common.printable import one_line
from shardwave.shards.clip import clip_of_sample
from shardwave.shards.format import manifest
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View


def find(opened: ShardSet, key: str) -> tuple[View, int]:
    """Find a sample.

    Args:
        opened: The set.
        key: Key of the sample, or the path of a clip relative to the audio folder, which selects its full
            view.

    Returns:
        The view that contains the sample, and its row in the view.

    Raises:
        UsageError: There is no such sample, or the path is of a file with several labelled segments.
    """
    segments = []
    for split in opened.splits:
        for name in opened.views_of(split):
            view = opened.view(split, name)
            for row in range(len(view)):
                if view.key(row) == key:
                    return view, row
                if name == "full" and view.meta(row).get("path") == key:
                    segments.append((view, row, clip_of_sample(view.meta(row))))
    if len(segments) > 1:
        examples = [f"{view.key(row)} for {clip.name}" for view, row, clip in segments[:5]]
        more = ", ..." if len(segments) > 5 else ""
        raise UsageError(
            f"{opened.path}: {key} has {len(segments)} segments; give the key of one: "
            f"{', '.join(examples)}{more}"
        )
    if segments:
        return segments[0][:2]
    example = opened.view(opened.splits[0], "full")
    raise UsageError(
        f"{opened.path} has no sample {key}; keys look like {example.key(0)}, or give a path such as "
        f"{example.meta(0)['path']}"
    )


def find_clip(opened: ShardSet, key: str) -> tuple[View, int]:
    """Find the full view of the clip of a sample, given as for `find`; returns the view and the row in it."""
    view, row = find(opened, key)
    clip = int(view.clip[row])
    full = opened.view(view.split_and_shard(row)[0], "full")
    return full, int(np.flatnonzero(full.clip == clip)[0])


class FieldValues(TypedDict):
    """Type, shape and extreme values of an array field of a sample; values are None if it is empty."""

    dtype: str
    shape: list[int]
    min: float | None
    mean: float | None
    max: float | None


class SampleDetails(SampleMeta):
    """Description of a sample: its json field, its place in the set and its values."""

    key: str
    split: str
    cls: int
    clip: int
    shard: str
    slices: int  # number of slices of the clip
    values: dict[str, FieldValues]  # by array field


def sample(set_path: Path | str, key: str) -> SampleDetails:
    """Describe one sample.

    Args:
        set_path: The set's folder or URL.
        key: Key of the sample, or the path of a clip, which selects its full view.

    Raises:
        UsageError: There is no such sample, or the path is of a file with several labelled segments.
    """
    opened = open_set(set_path)
    view, row = find(opened, key)
    split, shard = view.split_and_shard(row)
    clip = int(view.clip[row])
    slices = opened.view(split, "slice") if "slice" in opened.views_of(split) else None
    values: dict[str, FieldValues] = {}
    for name in opened.fields:
        if name not in manifest.OWN_FIELDS:
            array = view.gather([row], [name])[name][0]
            least, mean, most = (
                (float(f(array)) for f in (np.min, np.mean, np.max)) if array.size else (None,) * 3
            )
            values[name] = {
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "min": least,
                "mean": mean,
                "max": most,
            }
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


def describe_sample(details: SampleDetails) -> str:
    """Format the result of `sample` as text for a terminal."""
    lines = [one_line(details["key"])]
    plain = {name: value for name, value in details.items() if name not in ("key", "values")}
    width = max(map(len, [*plain, *details["values"]]))
    lines += [
        f"  {name.ljust(width)}  {'-' if value is None else one_line(str(value))}"
        for name, value in plain.items()
    ]
    for name, field in details["values"].items():
        shape = " x ".join(map(str, field["shape"]))
        spread = (
            ""
            if field["min"] is None
            else f", {field['min']:.4g} to {field['max']:.4g}, mean {field['mean']:.4g}"
        )
        lines.append(f"  {name.ljust(width)}  {field['dtype']} {shape}{spread}")
    return "\n".join(lines)
