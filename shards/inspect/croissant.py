"""Metadata of a shard set in the Croissant format of MLCommons, written beside its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from shardwave.common.csv_text import csv_bytes
from shardwave.common.errors import UsageError
from shardwave.shards.format.layout import MANIFEST
from shardwave.shards.format.layouts import STRIP
from shardwave.shards.read.shardset import ShardSet
from shardwave.shards.storage import any_path, atomic

CROISSANT, CLIPS = "croissant.json", "clips.csv"
CLIP_FIELDS = ("key", "path", "start", "length", "label", "split", "group")


def write_croissant(
    shard_set: ShardSet, *, license: str | None = None, url: str | None = None, cite: str | None = None
) -> dict[str, str]:
    """Write `croissant.json` and `clips.csv` beside the manifest of a set.

    They describe the manifest, the shards of each split and view, the classes, and the clips: one record per
    clip with key, path, start and length in seconds, label, split and group. `mlcroissant` checks them.

    Args:
        shard_set: The set.
        license: Licence of the data, as text or URL.
        url: Page of the data set.
        cite: Publication to cite.

    Returns:
        `command`, `set` and `out`.

    Raises:
        UsageError: `mlcroissant` is not installed, or refuses a value.
    """
    try:
        import mlcroissant
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'shardwave[croissant]'") from None
    clips = csv_bytes([CLIP_FIELDS, *_clips(shard_set)])
    try:
        metadata = mlcroissant.Metadata(
            **_described(mlcroissant, shard_set, clips),
            license=None if license is None else [license],
            url=url,
            cite_as=cite,
        )
    except mlcroissant.ValidationError as error:
        raise UsageError(f"mlcroissant refuses the metadata of {shard_set.location}: {error}") from None
    out = shard_set.path / CROISSANT
    atomic.write_bytes(out.with_name(CLIPS), clips)
    atomic.write_json(out, metadata.to_json())
    return {"command": "croissant", "set": str(shard_set.location), "out": str(out)}


def _clips(shard_set: ShardSet) -> Iterator[tuple[object, ...]]:
    """Yield the values of `CLIP_FIELDS` of each clip."""
    for split in shard_set.splits:
        view = shard_set.view(split, "full")
        for i in range(len(view)):
            meta = view.meta(i)
            place = (view.key(i), meta["path"], meta["start"], meta["length"])
            yield (*place, meta["label"], split, meta["group"] or meta["path"])


def _described(library: Any, shard_set: ShardSet, clips: bytes) -> dict[str, Any]:
    """Return the fields of the metadata that follow from the set.

    Args:
        library: The module `mlcroissant`.
        shard_set: The set.
        clips: Content of the file of clips.
    """
    manifest = shard_set.manifest
    content = any_path.read_bytes(shard_set.path / MANIFEST)
    fields = ", ".join(
        f"{name} ({field['dtype']} {field['shape']})" for name, field in manifest["fields"].items()
    )
    files: list[Any] = [
        library.FileObject(
            id=MANIFEST,
            name=MANIFEST,
            description="Configuration, classes, and the shards with their BLAKE3 digests",
            content_url=MANIFEST,
            encoding_formats=["application/json"],
            sha256=hashlib.sha256(content).hexdigest(),
        ),
        library.FileObject(
            id=CLIPS,
            name=CLIPS,
            description="The clips, one per row",
            content_url=CLIPS,
            encoding_formats=["text/csv"],
            sha256=hashlib.sha256(clips).hexdigest(),
        ),
    ]
    for split, views in manifest["splits"].items():
        for view, shards in views.items():
            count = sum(shard["samples"] for shard in shards)
            kind = "strips" if view == STRIP else f"{view} view"
            files.append(
                library.FileSet(
                    id=f"{split}-{view}",
                    name=f"{split}-{view}",
                    description=f"WebDataset shards of the {kind} of split {split}: {count} samples "
                    f"with {fields}",
                    encoding_formats=["application/x-tar"],
                    includes=[f"{split}-{view}-*.tar"],
                )
            )
    classes = library.RecordSet(
        id="classes",
        name="classes",
        description="Names of the classes, in the order of the index in the field cls",
        key="classes/name",
        data_types=["https://schema.org/Enumeration"],
        fields=[library.Field(id="classes/name", name="name", data_types=[library.DataType.TEXT])],
        data=[{"classes/name": name} for name in manifest["classes"]],
    )
    seconds = {"start", "length"}
    samples = library.RecordSet(
        id="clips",
        name="clips",
        description="The clips. The key is that of the sample in the shards; start and length are in seconds "
        "in the file path; clips of one group are in one split, and a clip without one has its path as group",
        key="clips/key",
        fields=[
            library.Field(
                id=f"clips/{name}",
                name=name,
                data_types=[library.DataType.FLOAT if name in seconds else library.DataType.TEXT],
                source=library.Source(file_object=CLIPS, extract=library.Extract(column=name)),
            )
            for name in CLIP_FIELDS
        ],
    )
    return {
        "name": shard_set.path.name,
        "description": f"{manifest['clips']} clips ({manifest['audio_seconds'] / 3600:.2f} hours of audio) "
        f"of {len(manifest['classes'])} classes as spectrograms and features, in WebDataset shards; set id "
        f"{manifest['set_id']}, fingerprint {manifest['fingerprint']}",
        "version": "1.0.0",
        "date_published": manifest["environment"]["date"][:10],
        "distribution": files,
        "record_sets": [classes, samples] if manifest["classes"] else [samples],
    }
