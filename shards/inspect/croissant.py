"""Metadata of a shard set in the Croissant format of MLCommons, written beside its manifest."""

from __future__ import annotations

import hashlib
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.shards.format.layout import MANIFEST
from shardwave.shards.read.shardset import ShardSet
from shardwave.shards.storage import any_path, atomic

CROISSANT = "croissant.json"


def write_croissant(
    shard_set: ShardSet, *, license: str | None = None, url: str | None = None, cite: str | None = None
) -> dict[str, str]:
    """Write `croissant.json` beside the manifest of a set.

    It describes the manifest, the shards of each split and view, and the classes. `mlcroissant` checks it.

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
    try:
        metadata = mlcroissant.Metadata(
            **_described(mlcroissant, shard_set),
            license=None if license is None else [license],
            url=url,
            cite_as=cite,
        )
    except mlcroissant.ValidationError as error:
        raise UsageError(f"mlcroissant refuses the metadata of {shard_set.location}: {error}") from None
    out = shard_set.path / CROISSANT
    atomic.write_json(out, metadata.to_json())
    return {"command": "croissant", "set": str(shard_set.location), "out": str(out)}


def _described(library: Any, shard_set: ShardSet) -> dict[str, Any]:
    """Return the fields of the metadata that follow from the set."""
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
        )
    ]
    for split, views in manifest["splits"].items():
        for view, shards in views.items():
            count = sum(shard["samples"] for shard in shards)
            files.append(
                library.FileSet(
                    id=f"{split}-{view}",
                    name=f"{split}-{view}",
                    description=f"WebDataset shards of the {view} view of split {split}: {count} samples "
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
    return {
        "name": shard_set.path.name,
        "description": f"{manifest['clips']} clips ({manifest['audio_seconds'] / 3600:.2f} hours of audio) "
        f"of {len(manifest['classes'])} classes as spectrograms and features, in WebDataset shards; set id "
        f"{manifest['set_id']}, fingerprint {manifest['fingerprint']}",
        "version": "1.0.0",
        "date_published": manifest["environment"]["date"][:10],
        "distribution": files,
        "record_sets": [classes],
    }
