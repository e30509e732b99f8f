"""Shard sets on disk: their manifest, splits, fields and views."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import DALI_INDEX, INDEX, TAR, VIEWS
from shardwave.shards.format.layouts import STRIP
from shardwave.shards.format.manifest import Field, Manifest, ShardEntry, StoredField, is_fortran
from shardwave.shards.read.stored_view import StoredView
from shardwave.shards.read.view import JOIN, View

__all__ = ["JOIN", "ShardSet", "View"]


class ShardSet:
    """A finished shard set on disk. `open_set` creates it; `view` gives access to its samples.

    Args:
        path: Folder of the set's files.
        contents: The checked manifest.

    Attributes:
        location: Folder or URL of the set, for messages.
        manifest: Contents of `manifest.json`.
        classes: Class names, sorted; a sample's `cls` is an index into them.
        feature_names: Names of the audio features, or of the table's columns if the set was built from a
            table.
        fields: Type and shape of every field of the samples of its views.
        stored: Type and shape of every field of the samples of its shards.
        is_strip: Whether the set was built with `--layout strip`: its views are cut when they are read.
        fingerprint: Hash of the configuration and the format.
        set_id: Hash of the content, labels and splits (see `manifest.set_id`).
        splits: Names of the splits: train, val, test, then the folds in numerical order.
    """

    local = True  # whether all files are on disk when the set is opened

    def __init__(self, path: Path, contents: Manifest) -> None:
        self.path = path
        self.location = str(path)
        self.manifest = contents
        self.classes = contents["classes"]
        self.feature_names = contents["feature_names"]
        self.stored = contents["fields"]
        self.is_strip = manifest.has_strips(contents)
        self.fields = _view_fields(self.stored, None)
        self.built_config = self.config
        self._choices: dict[str, Any] = {}  # of `with_views`
        self.fingerprint = contents["fingerprint"]
        self.set_id = contents["set_id"]
        self.splits: list[str] = sorted(contents["splits"], key=_split_order)

    def ensure_local(self, entries: Sequence[ShardEntry], suffix: str) -> None:
        """Fetch the files of some shards that are missing in `path`. Does nothing for a set on disk.

        Args:
            entries: Manifest entries of the shards.
            suffix: Suffix of the files: `.tar`, `.index` or `.idx`.
        """

    def ensure_all_local(self) -> None:
        """Fetch all files of the set that are missing in `path`."""
        for suffix in (INDEX, DALI_INDEX, TAR):
            self.ensure_local(manifest.entries(self.manifest), suffix)

    @property
    def config(self) -> SpectrogramConfig | None:
        """Spectrogram configuration; None if the set was not built from audio."""
        config = self.manifest["config"]
        return SpectrogramConfig(**config) if manifest.is_spectrogram(config) else None

    def field(self, name: str) -> Field:
        """Return type and shape of an array field, or of several vector fields joined by `+`.

        The values of `features.npy+aisfx.npy` are those of `features.npy`, followed by those of `aisfx.npy`.

        Args:
            name: The name.

        Raises:
            UsageError: The set has no such field, or the joined fields are not vectors of one type.
        """
        declared = []
        for part in name.split(JOIN):
            if part not in self.fields or part in manifest.OWN_FIELDS:
                listed = ", ".join(each for each in self.fields if each not in manifest.OWN_FIELDS)
                raise UsageError(f"{self.location} has no array field {part}: it has {listed}")
            declared.append(self.fields[part])
        if len(declared) == 1:
            return declared[0]
        if len({field["dtype"] for field in declared}) > 1 or any(
            len(field["shape"]) != 1 for field in declared
        ):
            raise UsageError(
                f"{self.location}: the fields {name} cannot be joined: they are not vectors of one type"
            )
        return {"dtype": declared[0]["dtype"], "shape": [sum(field["shape"][0] for field in declared)]}

    @property
    def views(self) -> list[str]:
        """Views that the set holds: `full`, and `slice` if it has slices."""
        return [view for view in VIEWS if any(view in self.views_of(split) for split in self.splits)]

    def views_of(self, split: str) -> list[str]:
        """Return the views that a split has; an empty list if there is no such split."""
        stored = self.manifest["splits"].get(split, {})
        if STRIP in stored:
            return list(VIEWS if self.config is not None and self.config.sliced else VIEWS[:1])
        return [view for view in VIEWS if stored.get(view)]

    def clips_of(self, split: str) -> int:
        """Return the number of clips of a split with a full view."""
        stored = self.manifest["splits"].get(split, {})
        return sum(entry["samples"] for entry in stored.get(STRIP, stored.get("full", [])))

    def with_views(
        self, slices: int | None = None, slice_seconds: float | None = None, image_size: int | None = None
    ) -> Self:
        """Return the set with other slices or another width of its images, which are cut from its strips.

        Args:
            slices: Number of equal slices of a clip, 0 for none; None: those of the set.
            slice_seconds: Length of a slice in seconds, in place of `slices`; None: that of the set. A
                shorter clip has one slice.
            image_size: Pixels of an image along time; None: as many as along frequency.

        Returns:
            The same set, if all arguments are None.

        Raises:
            UsageError: The set has finished images, a value is not valid, all clips are shorter than a slice,
                or the images would be wider than the frequency axis is high.
        """
        given = {"slices": slices, "slice_seconds": slice_seconds, "image_size": image_size}
        chosen = {name: value for name, value in given.items() if value is not None}
        if not chosen:
            return self
        config = self.built_config
        if not self.is_strip or config is None:
            raise UsageError(
                f"{self.location} has finished images: {', '.join(chosen)} cannot be changed; build it with "
                "--layout strip"
            )
        if image_size is not None:
            if image_size > config.image_size:
                raise UsageError(
                    f"image_size must be at most {config.image_size}, the size of the frequency axis of "
                    f"{self.location}, got {image_size}: build the set with a larger --image-size"
                )
            dataclasses.replace(config, image_size=image_size)  # checks the value
        if slices is not None or slice_seconds is not None:
            config = dataclasses.replace(
                config, slices=slices or 0, slice_seconds=slice_seconds, slice_overlap=0.0
            )
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__)
        fields = dataclasses.asdict(config)
        changed.manifest = {**self.manifest, "config": fields, "fingerprint": manifest.fingerprint(fields)}
        changed.fingerprint = changed.manifest["fingerprint"]
        changed.fields = _view_fields(self.stored, image_size)
        changed._choices = chosen
        if slice_seconds is not None:
            changed._check_length(slice_seconds, config)
        return changed

    def _check_length(self, seconds: float, config: SpectrogramConfig) -> None:
        """Raise UsageError if all clips are shorter than a slice."""
        entries = [entry for split in self.splits for entry in self.manifest["splits"][split][STRIP]]
        frames = int(StoredView(self, entries).counts["npy"].max(initial=1))
        second = config.sample_rate / config.hop_length
        if round(seconds * second) > frames:
            raise UsageError(
                f"slice_seconds must be at most {frames / second:.3g}, the length of the longest clip of "
                f"{self.location}, got {seconds:g}"
            )

    def view(self, splits: str | Sequence[str], view: str = "full") -> View:
        """Open the samples of one view of one or several splits.

        Args:
            splits: A split, or several; the samples of several follow one another.
            view: `full`, `slice`, or `both` (of each split first full, then slice).

        Returns:
            The samples.

        Raises:
            UsageError: The set has no such split or view.
            ShardwaveError: An index is missing, damaged or does not fit the manifest.
        """
        names = [splits] if isinstance(splits, str) else list(splits)
        for name in names:
            if name not in self.manifest["splits"]:
                raise UsageError(f"{self.location} has no split {name}: it has {', '.join(self.splits)}")
        if view not in (*VIEWS, "both"):
            raise UsageError(f"view must be one of {', '.join(VIEWS)}, both, got {view}")
        if view != "both" and view not in self.views:
            raise UsageError(
                f"{self.location} has no {view} view: it has {', '.join(self.views)}; build it with --slices"
            )
        if self.is_strip:
            from shardwave.shards.read.strip_view import StripView  # compiles functions

            return StripView(self, [self.manifest["splits"][name][STRIP] for name in names], view)
        views = VIEWS if view == "both" else (view,)
        entries = [
            entry for name in names for each in views for entry in self.manifest["splits"][name].get(each, [])
        ]
        return StoredView(self, entries)


def _split_order(name: str) -> tuple[int, int, str]:
    order = {"train": 0, "val": 1, "test": 2}
    return (order.get(name, 3), int(name[4:]) if name.startswith("fold") else 0, name)


def _view_fields(stored: dict[str, StoredField], width: int | None) -> dict[str, Field]:
    """Return the fields of views: of strips, an image of `width` columns, and one vector of each field."""
    fields: dict[str, Field] = {}
    for name, field in stored.items():
        shape = [length for length in field["shape"] if length is not None]
        if is_fortran(field["shape"]):
            shape.append(width or shape[0])
        fields[name] = {"dtype": field["dtype"], "shape": shape}
    return fields
