"""Reads every byte and every sample of a set and holds them against its manifest and indexes; names the bad shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3

from shardwave.common import typed
from shardwave.common.errors import ShardwaveError
from shardwave.common.progress import bar
from shardwave.shards.format import index
from shardwave.shards.format.decode_sample import decode_field
from shardwave.shards.format.digest import file_digest
from shardwave.shards.format.layout import INDEX, TAR
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.format.shard_writer import files_of
from shardwave.shards.format.tar_reader import members
from shardwave.shards.read.shardset import ShardSet


def verify(opened: ShardSet) -> dict[str, Any]:
    """Check every byte of a set; returns {set, fingerprint, set_id, shards, samples, bytes, clips}.

    Raises ShardwaveError, naming the shard and what is wrong: a missing or changed file, a sample or a field that is missing,
    damaged or not as the manifest says, an index that points elsewhere, a key that is there twice, a group in two splits.
    """
    opened.ensure_all_local()
    found = opened.manifest
    shards = [
        _Shard(opened.path, split, view, entry, found)
        for split, views in found["splits"].items()
        for view, entries in views.items()
        for entry in entries
    ]
    seen = _Seen(set(), {}, {})
    total = sum(shard.entry["bytes"] for shard in shards)
    with bar(total=total, unit="B", unit_scale=True, desc="verify") as progress:
        for shard in shards:
            shard.check(seen)
            progress.update(shard.entry["bytes"])
    if len(seen.clips) != found["clips"]:
        raise ShardwaveError(f"{opened.location}: the shards hold {len(seen.clips)} clips, the manifest says {found['clips']}")
    samples = sum(shard.entry["samples"] for shard in shards)
    counts = {"shards": len(shards), "samples": samples, "bytes": total, "clips": len(seen.clips)}
    return {"set": opened.location, "fingerprint": found["fingerprint"], "set_id": found["set_id"], **counts}


class _Seen(NamedTuple):
    """What the shards checked so far hold."""

    keys: set[str]
    groups: dict[str, str]  # group -> split
    clips: dict[int, tuple[str, str]]  # number -> path, split


class _Shard:
    """One tar with its indexes, against its entry in the manifest."""

    def __init__(self, folder: Path, split: str, view: str, entry: Mapping[str, Any], found: Mapping[str, Any]):
        self.path = folder / entry["file"]
        self.split, self.view, self.entry, self.found = split, view, entry, found
        self.fields = found["fields"]

    def check(self, seen: _Seen) -> None:
        """Raise ShardwaveError at the first thing that is wrong; adds what the shard holds to `seen`."""
        for name, digest in files_of(self.entry):
            file = self.path.with_name(name)
            if not file.exists():
                raise ShardwaveError(f"{file}: missing")
            if file_digest(file, blake3.AUTO) != digest:
                raise ShardwaveError(f"{file}: its bytes are not those that the manifest names (BLAKE3 differs)")
        places = index.read(self.path.with_name(self.path.name.removesuffix(TAR) + INDEX))
        number, current = -1, ""
        fields: dict[str, bytes] = {}
        with open(self.path, "rb") as file:
            for member in members(file, str(self.path)):
                key, _, name = member.name.partition(".")
                if key != current:
                    if number >= 0:
                        self._sample(number, current, fields, places, seen)
                    number, current, fields = number + 1, key, {}
                    if key in seen.keys:
                        self._bad(f"key {key} is there twice")
                    seen.keys.add(key)
                if name not in self.fields or name in fields:
                    self._bad(f"{member.name} is not a field of the set, or is there twice")
                place = (places.offset[name][number], places.length[name][number]) if number < len(places) else None
                if place != (member.offset, len(member.data)):
                    self._bad(f"the index does not point at {member.name}")
                fields[name] = member.data
        if number >= 0:
            self._sample(number, current, fields, places, seen)
        if number + 1 != self.entry["samples"] or len(places) != self.entry["samples"]:
            self._bad(f"{number + 1} samples, {len(places)} in the index, where the manifest says {self.entry['samples']}")

    def _sample(self, number: int, key: str, fields: dict[str, bytes], places: index.Index, seen: _Seen) -> None:
        missing = [name for name in self.fields if name not in fields]
        if missing:
            self._bad(f"sample {key} lacks {', '.join(missing)}")
        for name, data in fields.items():
            value = decode_field(name, data, f"{self.path}: {key}")
            if isinstance(value, np.ndarray):
                is_, declared = f"{value.dtype} {list(value.shape)}", f"{self.fields[name]['dtype']} {self.fields[name]['shape']}"
                if is_ != declared:
                    self._bad(f"{key}.{name} is {is_}, the manifest says {declared}")
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    self._bad(f"{key}.{name} holds NaN or infinite values")
        where = f"{self.path}: the json field of {key}"
        meta = typed.check(typed.parse(fields["json"], where), SampleMeta, where)
        self._meta(number, key, meta, int(fields["cls"]), places, seen)

    def _meta(self, number: int, key: str, meta: SampleMeta, cls: int, places: index.Index, seen: _Seen) -> None:
        label = None if cls == -1 else self.found["classes"][cls] if 0 <= cls < len(self.found["classes"]) else False
        if label != meta["label"] or cls != places.cls[number]:
            self._bad(f"the class of {key} is {cls}, its label {meta['label']!r}, in the index {places.cls[number]}")
        if meta["view"] != self.view:
            self._bad(f"{key} is of view {meta['view']}")
        clip = int(places.clip[number])
        if seen.clips.setdefault(clip, (meta["path"], self.split)) != (meta["path"], self.split):
            self._bad(f"{key} is clip {clip}, as is {seen.clips[clip][0]} in {seen.clips[clip][1]}")
        group = f"group {meta['group']}" if meta["group"] is not None else f"path {meta['path']}"
        if seen.groups.setdefault(group, self.split) != self.split:
            self._bad(f"{group} lies in {seen.groups[group]} and {self.split}")

    def _bad(self, what: str) -> None:
        raise ShardwaveError(f"{self.path}: {what}")
