"""manifest.json: what a finished shard set is. It is written last; a set without one is unfinished."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from preprocess.errors import ShardwaveError, UsageError
from shards import atomic
from shards.layout import BUILD, MANIFEST, PARTITION, SHARD_FILE, TAR, VIEWS
from shards.url_path import Place

FORMAT = "shardwave-1"
FIELD = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")
DTYPES = frozenset(("bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", "json"))
KEYS = (
    "format", "fingerprint", "set_id", "config", "engine", "device", "seed", "classes", "feature_names", "fields", "partitions",
    "clips", "audio_seconds", "quarantined", "remarks", "environment",
)  # fmt: skip


def fingerprint(config: dict[str, Any] | None) -> str:
    """The hash of a configuration and the format's version: equal for sets that were made the same way."""
    text = json.dumps({"format": FORMAT, "config": config}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def set_id(manifest: Mapping[str, Any]) -> str:
    """Hash what a set holds: the digests of its shards by split and view, and its classes.

    Shards hold images, features, labels, groups and folds, so that the value changes with content, labels or splits. It does not
    change when the set is moved, or built to the same bytes by another number of workers.

    Returns:
        16 hexadecimal digits.
    """
    digests = {
        split: {view: [shard["sha256"] for shard in shards] for view, shards in views.items()}
        for split, views in manifest["partitions"].items()
    }
    text = json.dumps({"classes": manifest["classes"], "splits": digests}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(folder: Place, manifest: dict[str, Any]) -> None:
    """Write the manifest, which finishes the set."""
    missing = [key for key in KEYS if key not in manifest]
    if missing:
        raise ValueError(f"manifest lacks {', '.join(missing)}")
    atomic.write_json(folder / MANIFEST, manifest)


def read(folder: Place) -> dict[str, Any]:
    """Read and check a set's manifest; UsageError where there is none, ShardwaveError where it is unfinished or damaged."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if (folder / BUILD).is_dir():
            raise ShardwaveError(f"{folder} is unfinished: run the same `shard` command again to finish it") from None
        raise UsageError(
            f"{folder} is no shard set: it has no {MANIFEST}" if folder.exists() else f"{folder} does not exist"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return parse(data, str(path))


def parse(data: bytes, where: str) -> dict[str, Any]:
    """Check a manifest's bytes; `where` names it in errors."""
    try:
        manifest = json.loads(data)
    except ValueError:
        raise ShardwaveError(f"{where} is damaged: not JSON") from None
    if not isinstance(manifest, dict) or not str(manifest.get("format", "")).startswith("shardwave-"):
        raise UsageError(f"{where} is not the manifest of a shard set")
    if manifest["format"] != FORMAT:
        raise ShardwaveError(f"{where}: this version reads format {FORMAT}, the set has {manifest['format']}: build it again")
    missing = [key for key in KEYS if key not in manifest]
    if missing:
        raise ShardwaveError(f"{where} is damaged: it lacks {', '.join(missing)}")
    expected = fingerprint(manifest["config"])
    if manifest["fingerprint"] != expected:
        raise ShardwaveError(
            f"{where}: the fingerprint does not fit the configuration (it says {manifest['fingerprint']}, the configuration "
            f"gives {expected}): the manifest was changed by hand or damaged"
        )
    try:
        _check_parts(manifest)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ShardwaveError(f"{where} is damaged: {error}") from None
    content = set_id(manifest)
    if manifest["set_id"] != content:
        raise ShardwaveError(
            f"{where}: the set id does not fit the shards and classes that it lists (it says {manifest['set_id']}, they give "
            f"{content}): the manifest was changed by hand or damaged"
        )
    return manifest


def _check_parts(manifest: dict[str, Any]) -> None:
    """Raise ValueError (or what wrong types raise) for fields and shards that no reader of ours may trust."""
    for name, field in manifest["fields"].items():
        if (
            not FIELD.fullmatch(name)
            or field["dtype"] not in DTYPES
            or not all(type(n) is int and 0 <= n < 2**31 for n in field["shape"])
        ):
            raise ValueError(f"field {name!r} cannot be {field}")
    for partition, views in manifest["partitions"].items():
        for view, shards in views.items():
            if not PARTITION.fullmatch(partition) or view not in VIEWS:
                raise ValueError(f"unknown partition {partition}-{view}")
            for shard in shards:
                match = SHARD_FILE.fullmatch(shard["file"])
                if match is None or (match[1], match[2], match[4]) != (partition, view, TAR):
                    raise ValueError(f"{shard['file']!r} is not a shard's name of {partition}-{view}")
                if not all(
                    type(shard[name]) is int and shard[name] >= 0 for name in ("samples", "bytes")
                ) or not SHA256.fullmatch(shard["sha256"]):
                    raise ValueError(f"what it says of {shard['file']} is no count and no SHA-256")
