"""Finish a build: write the quarantine, the inputs and, last, the manifest."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError, TooManyBadInputs
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.shards.build import folder
from shardwave.shards.build.plan import Plan
from shardwave.shards.build.shard_task import array_fields
from shardwave.shards.clip import classes_of
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import INPUTS, QUARANTINE, REMARKS
from shardwave.shards.format.layouts import VIEWS
from shardwave.shards.format.manifest import BuildDescription, Identity, Manifest, Splits, StoredField
from shardwave.shards.format.records import QuarantineEntry, RemarkEntry, TaskRecord
from shardwave.shards.format.shard_writer import Fields
from shardwave.shards.storage import atomic
from shardwave.shards.storage.any_path import AnyPath


def finish(out: AnyPath, planned: Plan, records: Sequence[TaskRecord], config: SpectrogramConfig) -> Manifest:
    """Write all files of a set apart from the shards, the manifest last.

    Args:
        out: Folder or URL of the set.
        planned: The plan of the build.
        records: Records of all tasks.
        config: Spectrogram configuration.

    Returns:
        The manifest.

    Raises:
        ShardwaveError: All clips of a class or a split were quarantined. The files of the set are then
            removed.
    """
    classes = classes_of(planned.clips.clips)
    records = sorted(records, key=lambda record: record["task"])
    quarantined = sorted((entry for record in records for entry in record["quarantined"]), key=_segment)
    remarks = sorted((entry for record in records for entry in record["remarks"]), key=_segment)
    _check_enough(out, planned, classes, quarantined)
    builders: list[Identity] = []
    splits: Splits = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["builder"] not in builders:
            builders.append(record["builder"])
        for view, entry in record["shards"].items():
            splits[record["split"]][view].append({**entry, "builder": builders.index(record["builder"])})
    crc32 = {path: value for record in records for path, value in record["crc32"].items()}
    planned.with_crc32(crc32).write(out / INPUTS)
    write_lines(out / QUARANTINE, quarantined)
    if remarks:
        write_lines(out / REMARKS, remarks)
    description: BuildDescription = {
        "config": dataclasses.asdict(config),
        "engine": planned.options["engine"],
        "device": planned.options["device"],
        "seed": planned.options["seed"],
        "classes": classes,
        "feature_names": feature_names(config),
        "clips": len(planned.clips) - len(quarantined),
        "audio_seconds": round(sum(record["audio_seconds"] for record in records), 6),
        "unused_seconds": {
            view: round(sum(record["unused_seconds"][i] for record in records), 6)
            for i, view in enumerate(("full", "slice"))
        },
        "quarantined": len(quarantined),
        "remarks": len(remarks),
        "options": planned.options,
        "builders": builders,
    }
    return complete(out, description, array_fields(config, planned.options.get("layout", VIEWS)), splits)


def complete(out: AnyPath, description: BuildDescription, fields: Fields, splits: Splits) -> Manifest:
    """Sync the shards and write the manifest, which marks the set as finished.

    Args:
        out: Folder or URL of the set.
        description: Entries of the manifest, except for those that this function computes.
        fields: Array fields of the samples.
        splits: Manifest entries of the shards by split and view.

    Returns:
        The manifest.
    """
    arrays: dict[str, StoredField] = {
        name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in fields.items()
    }
    contents: Manifest = {
        "format": manifest.FORMAT,
        "fingerprint": manifest.fingerprint(description["config"]),
        **description,
        "fields": {**arrays, **manifest.OWN_FIELDS},
        "splits": splits,
        "environment": environment(),
        "set_id": manifest.set_id({"classes": description["classes"], "splits": splits}),
    }
    folder.sync(out, contents)
    manifest.write(out, contents)
    folder.remove_build(out)
    return contents


def write_lines(path: AnyPath, entries: Sequence[QuarantineEntry | RemarkEntry]) -> None:
    """Write a file of one JSON object per line, such as quarantine.jsonl and remarks.jsonl."""
    atomic.write_bytes(path, b"".join(map(atomic.json_bytes, entries)))


def _segment(entry: QuarantineEntry | RemarkEntry) -> tuple[str, float, float]:
    """Return path, start and end of the clip of a quarantine entry."""
    return entry["path"], entry.get("start") or 0.0, entry.get("end") or 0.0


def _check_enough(
    out: AnyPath, planned: Plan, classes: Sequence[str], quarantined: Sequence[QuarantineEntry]
) -> None:
    """Remove the set and raise ShardwaveError unless every class and every split has a usable clip."""
    bad = {_segment(entry): entry["reason"] for entry in quarantined}
    segments = [(clip.path, clip.start or 0.0, clip.end or 0.0) for clip in planned.clips.clips]
    good = [i for i, segment in enumerate(segments) if segment not in bad]
    labels = {planned.clips.clips[i].label for i in good}
    splits = {planned.clips.splits[i] for i in good}
    lacking = [f"class {name}" for name in classes if name not in labels]
    lacking += [f"split {name}" for name in sorted(set(planned.clips.splits) - splits)]
    if not lacking:
        return
    folder.remove(out, folder.State(plan=planned))
    scope = (
        "every clip"
        if not good
        else f"every clip of {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}"
    )
    first = next(
        segment
        for segment, clip, split in zip(segments, planned.clips.clips, planned.clips.splits, strict=True)
        if segment in bad and (not good or f"class {clip.label}" in lacking or f"split {split}" in lacking)
    )
    raise ShardwaveError(
        f"{scope} was quarantined ({len(bad)} of {len(planned.clips)} in all), such as {first[0]}: "
        f"{bad[first]}. Repair or convert these files, or omit the class, and run the command again; nothing "
        "was kept"
    )


def check_bad(contents: Manifest, max_bad_fraction: float, out: AnyPath) -> None:
    """Check the fraction of quarantined clips of a finished set.

    Args:
        contents: The manifest.
        max_bad_fraction: Maximum fraction of the clips.
        out: Folder or URL of the set, for messages.

    Raises:
        TooManyBadInputs: More clips were quarantined.
    """
    total = contents["clips"] + contents["quarantined"]
    if contents["quarantined"] > max_bad_fraction * total:
        raise TooManyBadInputs(
            f"{out} is finished, but {contents['quarantined']} of {total} clips were quarantined, more than "
            f"--max-bad-fraction {max_bad_fraction:g}: the set can be used; see the reasons in its "
            "quarantine.jsonl"
        )
