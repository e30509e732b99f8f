"""The manifest of a shard set, `manifest.json`. It is written last; a set without it is unfinished."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict, TypeGuard

import numpy as np

from shardwave.common import typed
from shardwave.common.environment import Environment
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.typed import Json
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.format.index import MAX_TAR
from shardwave.shards.format.layout import (
    BLOCK,
    BUILD,
    MANIFEST,
    NPY_HEADER,
    SHARD_FILE,
    SPLIT,
    STORED,
    TAR,
    padded,
)
from shardwave.shards.format.layouts import STRIP
from shardwave.shards.storage import any_path, atomic
from shardwave.shards.storage.any_path import AnyPath

FORMAT = "shardwave-2"
FIELD = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
Digest = Annotated[str, typed.Pattern("[0-9a-f]{64}")]
DTYPES = frozenset(
    ("bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")
)


class ShardEntry(TypedDict):
    """A shard: name, number of samples and bytes of its tar, and the BLAKE3 digests of its three files."""

    file: str
    samples: typed.Count
    bytes: Annotated[int, typed.Range(0, MAX_TAR)]
    blake3: Digest
    index_blake3: Digest
    idx_blake3: Digest
    builder: NotRequired[typed.Count]  # index into `builders`


class Field(TypedDict):
    """Type and shape of a field of the samples of a view."""

    dtype: str
    shape: list[int]


class StoredField(TypedDict):
    """Type and shape of a field of stored samples.

    The length None varies from sample to sample; values along the other axes are then adjacent in memory.
    """

    dtype: str
    shape: list[Annotated[int, typed.Range(0, 2**31 - 1)] | None]


OWN_FIELDS: dict[str, StoredField] = {
    "cls": {"dtype": "int64", "shape": []},
    "json": {"dtype": "json", "shape": []},
}


class Identity(TypedDict):
    """Engine, device and library versions of a worker, on which the bytes of a set depend."""

    engine: str
    device: str
    device_name: str
    cpu_capability: str
    versions: dict[str, str]


class SetDescription(TypedDict):
    """The fields of manifest.json that describe the content of a set."""

    config: Json | None
    engine: str | None
    device: str | None
    seed: int
    classes: list[str]
    feature_names: list[str]
    parent: NotRequired[str]  # of a set that `embed` wrote: fingerprint of the set it was copied from
    clips: typed.Count
    audio_seconds: Annotated[float, typed.Range(0)]


class BuildDescription(SetDescription):
    """The fields of manifest.json that describe the content of a set and its build."""

    quarantined: typed.Count
    remarks: typed.Count
    unused_seconds: NotRequired[dict[str, Annotated[float, typed.Range(0)]]]  # by view
    options: NotRequired[Json]
    builders: NotRequired[list[Identity]]


Splits = dict[str, dict[str, list[ShardEntry]]]  # shards by split and view


class Manifest(BuildDescription):
    """The fields of manifest.json."""

    format: str
    fingerprint: str
    set_id: str
    fields: dict[str, StoredField]
    splits: Splits
    environment: Environment


def fingerprint(config: Json | None) -> str:
    """Return the hash of a configuration and the format's version, as 16 hexadecimal digits.

    Args:
        config: Fields of the spectrogram configuration, or None.
    """
    text = json.dumps({"format": FORMAT, "config": config}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def set_id(manifest: Mapping[str, Any]) -> str:
    """Return the hash of the shard digests by split and view and of the classes, as 16 hexadecimal digits.

    Shards contain images, features, labels, groups and folds, so the value changes with content, labels or
    splits. It does not change if the set is moved, or if another number of workers builds the same bytes.
    """
    digests = {
        split: {view: [shard["blake3"] for shard in shards] for view, shards in views.items()}
        for split, views in manifest["splits"].items()
    }
    text = json.dumps({"classes": manifest["classes"], "splits": digests}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def entries(manifest: Manifest) -> list[ShardEntry]:
    """Return the entries of all shards of a manifest."""
    return [entry for views in manifest["splits"].values() for shards in views.values() for entry in shards]


def write(folder: AnyPath, manifest: Manifest) -> None:
    """Check a manifest and write it to the folder of its set. This marks the set as finished.

    Raises:
        ShardwaveError: The manifest does not have the fields of `Manifest`.
    """
    typed.check(manifest, Manifest, folder / MANIFEST)
    atomic.write_json(folder / MANIFEST, manifest)


def read(folder: AnyPath) -> Manifest:
    """Read and check the manifest of the set in a folder.

    Raises:
        UsageError: The folder does not exist, is not a shard set, or cannot be read.
        ShardwaveError: The set is unfinished, or the manifest is damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        data = any_path.read_bytes(path)
    except FileNotFoundError:
        if any_path.is_dir(folder / BUILD):
            raise ShardwaveError(
                f"{folder} is unfinished: run the same `shard` command again to finish it"
            ) from None
        raise UsageError(
            f"{folder} is no shard set: it has no {MANIFEST}"
            if any_path.exists(folder)
            else f"{folder} does not exist"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Manifest:
    """Parse and check a manifest.

    Args:
        data: Content of the file.
        where: Name of the file for messages.

    Raises:
        UsageError: The file is not the manifest of a shard set.
        ShardwaveError: The manifest is damaged, of another format, or contradicts itself.
    """
    value = typed.parse(data, where)
    if not isinstance(value, dict) or not str(value.get("format", "")).startswith("shardwave-"):
        raise UsageError(f"{where} is not the manifest of a shard set")
    if value["format"] != FORMAT:
        raise ShardwaveError(
            f"{where}: this version reads format {FORMAT}, the set has {value['format']}: build it again"
        )
    manifest = typed.check(value, Manifest, where)
    expected = fingerprint(manifest["config"])
    if manifest["fingerprint"] != expected:
        raise ShardwaveError(
            f"{where}: the fingerprint does not fit the configuration (it is {manifest['fingerprint']}, the "
            f"configuration gives {expected}): the manifest was changed by hand or damaged: restore it, or "
            "build the set again"
        )
    if is_spectrogram(manifest["config"]):
        typed.build(SpectrogramConfig, manifest["config"], f"{where}: its config")
    try:
        _check_parts(manifest)
    except ValueError as error:
        raise ShardwaveError(f"{where} is damaged: {error}") from None
    content = set_id(manifest)
    if manifest["set_id"] != content:
        raise ShardwaveError(
            f"{where}: the set id does not fit the listed shards and classes (it is {manifest['set_id']}, "
            f"they give {content}): the manifest was changed by hand or damaged: restore it, or build the "
            "set again"
        )
    return manifest


def is_fortran(shape: Sequence[int | None]) -> bool:
    """Return whether a field is stored in Fortran order: if the length of its last axis varies."""
    return len(shape) > 1 and shape[-1] is None


def has_strips(manifest: Manifest) -> bool:
    """Return whether the layout of a set is `strip`, not `views`."""
    return any(STRIP in views for views in manifest["splits"].values())


def is_spectrogram(config: Json | None) -> TypeGuard[Json]:
    """Return whether a set's configuration is a SpectrogramConfig, as in all sets built from audio."""
    return set(config or {}) == set(SpectrogramConfig.__dataclass_fields__)


def _check_parts(manifest: Manifest) -> None:
    """Raise ValueError for classes, fields or shards that are contradictory or not supported."""
    if len(set(manifest["classes"])) != len(manifest["classes"]):
        raise ValueError("a class is named twice")
    strips = has_strips(manifest)
    if strips:
        _check_strips(manifest)
    record = 2 * (BLOCK + BLOCK)  # minimum size of a sample in bytes: cls and json, each with its tar header
    for name, field in manifest["fields"].items():
        if name in OWN_FIELDS:
            if field != OWN_FIELDS[name]:
                raise ValueError(f"field {name} cannot be {field}")
            continue
        if not FIELD.fullmatch(name) or field["dtype"] not in DTYPES:
            raise ValueError(f"field {name!r} cannot be {field}")
        if field["shape"].count(None) > (1 if strips else 0):
            raise ValueError(f"field {name!r} cannot be {field}")
        fixed = [length for length in field["shape"] if length is not None]
        size = np.dtype(field["dtype"]).itemsize * math.prod(fixed)
        if size > MAX_TAR:
            raise ValueError(f"field {name!r} cannot be {field}: that is {size} bytes a sample")
        record += BLOCK + padded(NPY_HEADER + size)
    for name in OWN_FIELDS:
        if name not in manifest["fields"]:
            raise ValueError(f"it lacks the field {name}")
    seen: set[str] = set()
    for split, views in manifest["splits"].items():
        for view, shards in views.items():
            if not SPLIT.fullmatch(split) or view not in STORED or strips != (view == STRIP):
                raise ValueError(f"unknown split {split}-{view}")
            for shard in shards:
                match = SHARD_FILE.fullmatch(shard["file"])
                if match is None or (match[1], match[2], match[4]) != (split, view, TAR):
                    raise ValueError(f"{shard['file']!r} is not a shard's name of {split}-{view}")
                if shard["file"] in seen:
                    raise ValueError(f"it names {shard['file']} twice")
                seen.add(shard["file"])
                if shard["samples"] * record + 2 * BLOCK > shard["bytes"]:
                    raise ValueError(
                        f"{shard['file']} of {shard['bytes']} bytes cannot hold {shard['samples']} samples "
                        f"of {record} bytes"
                    )


def _check_strips(manifest: Manifest) -> None:
    """Raise ValueError if configuration and fields are not those of a set of strips."""
    config = manifest["config"]
    if not is_spectrogram(config) or config["fit"] != "stretch":
        raise ValueError("strips need the configuration of a spectrogram with fit stretch")
    for name, field in manifest["fields"].items():
        if name == "npy" and field != {"dtype": "uint8", "shape": [config["image_size"], None]}:
            raise ValueError(f"field npy of strips cannot be {field}")
        vectors = len(field["shape"]) == 2 and field["shape"][0] is None
        if name not in OWN_FIELDS and name != "npy" and not vectors:
            raise ValueError(f"field {name!r} of strips cannot be {field}")
    if "npy" not in manifest["fields"]:
        raise ValueError("strips need the field npy")
