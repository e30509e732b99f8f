"""The clips of a shard set as columns, for an audit."""

from __future__ import annotations

import dataclasses

import numpy as np

from shardwave.common.progress import bar
from shardwave.shards.clip import Clip, clip_of_sample
from shardwave.shards.read.shardset import ShardSet, View


@dataclasses.dataclass(frozen=True)
class AuditedSet:
    """The full samples of a set; row i of every column is sample i of `view`.

    Args:
        shards: The set.
        view: Its full samples, of all splits.
        clips: Path and segment of each clip.
        cls: Class index, -1 if unlabelled, int64 [clips].
        split: Index into `shards.splits`, int64 [clips].
        group: Name of the clip's group; of its file if it has no group.
        own_group: Whether the clip was given a group, bool [clips].
        seconds: Length in seconds, NaN if unknown (rows of a table), float64 [clips].
        rate: Sample rate of the file in Hz, 0 if unknown, int64 [clips].
    """

    shards: ShardSet
    view: View
    clips: list[Clip]
    cls: np.ndarray
    split: np.ndarray
    group: list[str]
    own_group: np.ndarray
    seconds: np.ndarray
    rate: np.ndarray

    def __len__(self) -> int:
        return len(self.clips)

    def label(self, i: int) -> str:
        """Return the class name of a clip; empty if it has none."""
        return self.shards.classes[self.cls[i]] if self.cls[i] >= 0 else ""

    def split_name(self, i: int) -> str:
        """Return the split of a clip."""
        return self.shards.splits[self.split[i]]


def audited_set(shards: ShardSet) -> AuditedSet:
    """Read the metadata of all full samples of a set."""
    view = shards.view(shards.splits, "full")
    sizes = [shards.clips_of(name) for name in shards.splits]
    clips, groups, own, seconds, rates = [], [], [], [], []
    with bar(total=len(view), desc="clips of the set", unit="clip", delay=2.0, leave=False) as progress:
        for i in range(len(view)):
            meta = view.meta(i)
            clip = dataclasses.replace(clip_of_sample(meta), group=meta["group"], fold=meta["fold"])
            clips.append(clip)
            groups.append(clip.effective_group)
            own.append(meta["group"] is not None)
            seconds.append(meta["length"] or np.nan)
            rates.append(meta["source_rate"] or 0)
            progress.update()
    return AuditedSet(
        shards,
        view,
        clips,
        view.cls,
        np.repeat(np.arange(len(sizes)), sizes),
        groups,
        np.array(own, bool),
        np.array(seconds, np.float64),
        np.array(rates, np.int64),
    )
