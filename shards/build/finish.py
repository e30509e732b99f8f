"""Ends a build: quarantine, inputs and, last of all, the manifest."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from shardwave.common.environment import environment
from shardwave.common.errors import ShardwaveError, TooManyBadInputs
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.shards.build import folder
from shardwave.shards.build.plan import Plan
from shardwave.shards.build.unit import array_fields
from shardwave.shards.clip import classes_of
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import INPUTS, QUARANTINE, REMARKS
from shardwave.shards.format.shard_writer import Fields
from shardwave.shards.storage import atomic
from shardwave.shards.storage.any_path import AnyPath


def finish(out: AnyPath, planned: Plan, records: Sequence[dict[str, Any]], config: SpectrogramConfig) -> dict[str, Any]:
    """Write what stands beside the shards from the units' records; returns the manifest."""
    classes = classes_of(planned.clips.clips)
    records = sorted(records, key=lambda record: record["unit"])
    quarantined = sorted((entry for record in records for entry in record["quarantined"]), key=_place)
    remarks = sorted((entry for record in records for entry in record["remarks"]), key=_place)
    _check_enough(out, planned, classes, quarantined)
    builders: list[dict[str, Any]] = []
    splits: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
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
    described_by = {
        "config": dataclasses.asdict(config),
        **{name: planned.options[name] for name in ("engine", "device", "seed")},
        "classes": classes,
        "feature_names": feature_names(config),
        "clips": len(planned.clips) - len(quarantined),
        "audio_seconds": round(sum(record["audio_seconds"] for record in records), 6),
        "unused_seconds": {
            view: round(sum(record["unused_seconds"][i] for record in records), 6) for i, view in enumerate(("full", "slice"))
        },
        "quarantined": len(quarantined),
        "remarks": len(remarks),
        "options": planned.options,
        "builders": builders,
    }
    return complete(out, described_by, array_fields(config), splits)


def complete(out: AnyPath, described_by: Mapping[str, Any], fields: Fields, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest, which finishes a set, and return it; `fields`: the array fields of a sample."""
    arrays = {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in fields.items()}
    made = {
        "format": manifest.FORMAT,
        "fingerprint": manifest.fingerprint(described_by["config"]),
        **described_by,
        "fields": {**arrays, **manifest.OWN_FIELDS},
        "splits": splits,
        "environment": environment(),
    }
    made["set_id"] = manifest.set_id(made)
    folder.sync(out, made)
    manifest.write(out, made)
    folder.remove_build(out)
    return made


def write_lines(path: AnyPath, entries: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line, as quarantine.jsonl ({path, reason}) and remarks.jsonl ({path, remark}) hold them."""
    atomic.write_bytes(path, b"".join(map(atomic.json_bytes, entries)))


def _place(entry: dict[str, Any]) -> tuple[str, float, float]:
    """A clip's file, begin and end."""
    return entry["path"], entry.get("start") or 0.0, entry.get("end") or 0.0


def _check_enough(out: AnyPath, planned: Plan, classes: Sequence[str], quarantined: Sequence[dict[str, Any]]) -> None:
    """Raise ShardwaveError, and remove what was built, unless every class and every split has a usable clip."""
    bad = {_place(entry): entry["reason"] for entry in quarantined}
    places = [(clip.path, clip.start or 0.0, clip.end or 0.0) for clip in planned.clips.clips]
    good = [i for i, place in enumerate(places) if place not in bad]
    labels = {planned.clips.clips[i].label for i in good}
    splits = {planned.clips.splits[i] for i in good}
    lacking = [f"class {name}" for name in classes if name not in labels]
    lacking += [f"split {name}" for name in sorted(set(planned.clips.splits) - splits)]
    if not lacking:
        return
    folder.remove(out, folder.State(plan=planned))
    what = "every clip" if not good else f"every clip of {', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}"
    first = next(
        place
        for place, clip, split in zip(places, planned.clips.clips, planned.clips.splits, strict=True)
        if place in bad and (not good or f"class {clip.label}" in lacking or f"split {split}" in lacking)
    )
    raise ShardwaveError(
        f"{what} was quarantined ({len(bad)} of {len(planned.clips)} in all), such as {first[0]}: {bad[first]}. "
        "Mend or convert these files, or leave the class out, and run the command again; nothing was kept"
    )


def check_bad(made: dict[str, Any], max_bad_fraction: float, out: AnyPath) -> None:
    """Raise TooManyBadInputs where more clips were quarantined than allowed."""
    total = made["clips"] + made["quarantined"]
    if made["quarantined"] > max_bad_fraction * total:
        raise TooManyBadInputs(
            f"{out} is finished, but {made['quarantined']} of {total} clips were quarantined, more than "
            f"--max-bad-fraction {max_bad_fraction:g}: the set can be used; see quarantine.jsonl in it for the reasons"
        )
