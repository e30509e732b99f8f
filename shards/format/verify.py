"""Check every byte and every sample of a shard set against its manifest and indexes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from blake3 import blake3

from shardwave.common import typed
from shardwave.common.errors import ShardwaveError
from shardwave.common.progress import bar
from shardwave.shards.format import index
from shardwave.shards.format.decode_sample import decode_field
from shardwave.shards.format.digest import file_digest
from shardwave.shards.format.layout import INDEX, TAR
from shardwave.shards.format.manifest import Manifest, ShardEntry, is_fortran
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.format.shard_writer import files_of, fits
from shardwave.shards.format.tar_reader import members
from shardwave.shards.read.shardset import ShardSet


class Verified(TypedDict):
    """Identity and size of a set in which every byte was checked."""

    set: str  # folder or URL
    fingerprint: str
    set_id: str
    shards: int
    samples: int
    bytes: int
    clips: int


def verify(opened: ShardSet) -> Verified:
    """Check every file, sample and field of a set.

    Args:
        opened: The set; files of a set at a URL that are missing in the cache are fetched.

    Raises:
        ShardwaveError: A file is missing or changed; a sample or field is missing, duplicated, damaged or
            differs from the manifest or the index; or a group is in two splits. The message names the shard.
    """
    opened.ensure_all_local()
    if opened.is_strip:
        opened.view(opened.splits)  # compares the lengths of strips and vectors
    contents = opened.manifest
    shards = [
        _Shard(opened.path, split, view, entry, contents)
        for split, views in contents["splits"].items()
        for view, entries in views.items()
        for entry in entries
    ]
    seen = _Seen(set(), {}, {})
    total = sum(shard.entry["bytes"] for shard in shards)
    with bar(total=total, unit="B", unit_scale=True, desc="verify") as progress:
        for shard in shards:
            shard.check(seen)
            progress.update(shard.entry["bytes"])
    if len(seen.clips) != contents["clips"]:
        raise ShardwaveError(
            f"{opened.location}: the shards hold {len(seen.clips)} clips, but the manifest says "
            f"{contents['clips']}: build the set again"
        )
    samples = sum(shard.entry["samples"] for shard in shards)
    return {
        "set": opened.location,
        "fingerprint": contents["fingerprint"],
        "set_id": contents["set_id"],
        "shards": len(shards),
        "samples": samples,
        "bytes": total,
        "clips": len(seen.clips),
    }


class _Seen(NamedTuple):
    """Keys, groups and clips of the shards checked so far."""

    keys: set[str]
    groups: dict[str, str]  # group -> split
    clips: dict[int, tuple[str, str]]  # number -> path, split


class _Shard:
    """A shard to be checked against its entry in the manifest."""

    def __init__(self, folder: Path, split: str, view: str, entry: ShardEntry, contents: Manifest) -> None:
        self.path = folder / entry["file"]
        self.split, self.view, self.entry, self.manifest = split, view, entry, contents
        self.fields = contents["fields"]

    def check(self, seen: _Seen) -> None:
        """Check the shard and add its keys, groups and clips to `seen`.

        Raises:
            ShardwaveError: The first error in the shard.
        """
        for name, digest in files_of(self.entry):
            file = self.path.with_name(name)
            if not file.exists():
                raise ShardwaveError(f"{file}: missing: restore it, or build the set again")
            if file_digest(file, blake3.AUTO) != digest:
                raise ShardwaveError(
                    f"{file}: the BLAKE3 digest differs from the manifest: restore it, or build the set again"
                )
        positions = index.read(self.path.with_name(self.path.name.removesuffix(TAR) + INDEX))
        number, current = -1, ""
        fields: dict[str, bytes] = {}
        with open(self.path, "rb") as tar:
            for member in members(tar, str(self.path)):
                key, _, name = member.name.partition(".")
                if key != current:
                    if number >= 0:
                        self._sample(number, current, fields, positions, seen)
                    number, current, fields = number + 1, key, {}
                    if key in seen.keys:
                        self._fail(f"key {key} is there twice")
                    seen.keys.add(key)
                if name not in self.fields or name in fields:
                    self._fail(f"{member.name} is not a field of the set, or is there twice")
                position = (
                    (positions.offset[name][number], positions.length[name][number])
                    if number < len(positions)
                    else None
                )
                if position != (member.offset, len(member.data)):
                    self._fail(f"the index does not point at {member.name}")
                fields[name] = member.data
        if number >= 0:
            self._sample(number, current, fields, positions, seen)
        if number + 1 != self.entry["samples"] or len(positions) != self.entry["samples"]:
            self._fail(
                f"{number + 1} samples, {len(positions)} in the index, but the manifest says "
                f"{self.entry['samples']}"
            )

    def _sample(
        self, number: int, key: str, fields: dict[str, bytes], positions: index.Index, seen: _Seen
    ) -> None:
        missing = [name for name in self.fields if name not in fields]
        if missing:
            self._fail(f"sample {key} lacks {', '.join(missing)}")
        for name, data in fields.items():
            value = decode_field(name, data, f"{self.path}: {key}")
            if isinstance(value, np.ndarray):
                field = self.fields[name]
                actual = f"{value.dtype} {list(value.shape)}"
                if value.dtype != field["dtype"] or not fits(value.shape, field["shape"]):
                    self._fail(
                        f"{key}.{name} is {actual}, but the manifest says {field['dtype']} {field['shape']}"
                    )
                if is_fortran(field["shape"]) and not value.flags.f_contiguous:
                    self._fail(f"{key}.{name} is not in Fortran order")
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    self._fail(f"{key}.{name} holds NaN or infinite values")
        where = f"{self.path}: the json field of {key}"
        meta = typed.check(typed.parse(fields["json"], where), SampleMeta, where)
        self._meta(number, key, meta, int(fields["cls"]), positions, seen)

    def _meta(
        self, number: int, key: str, meta: SampleMeta, cls: int, positions: index.Index, seen: _Seen
    ) -> None:
        classes = self.manifest["classes"]
        label = None if cls == -1 else classes[cls] if 0 <= cls < len(classes) else False
        if label != meta["label"] or cls != positions.cls[number]:
            self._fail(
                f"the class of {key} is {cls}, its label {meta['label']!r}, its class in the index "
                f"{positions.cls[number]}"
            )
        if meta["view"] != self.view:
            self._fail(f"{key} is of view {meta['view']}, but the shard of view {self.view}")
        clip = int(positions.clip[number])
        if seen.clips.setdefault(clip, (meta["path"], self.split)) != (meta["path"], self.split):
            self._fail(f"{key} is clip {clip}, as is {seen.clips[clip][0]} in {seen.clips[clip][1]}")
        group = f"group {meta['group']}" if meta["group"] is not None else f"path {meta['path']}"
        if seen.groups.setdefault(group, self.split) != self.split:
            self._fail(f"{group} is in {seen.groups[group]} and {self.split}")

    def _fail(self, problem: str) -> None:
        raise ShardwaveError(f"{self.path}: {problem}: build the set again, or restore the file")
