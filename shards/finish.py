"""Ends a build: quarantine, inputs and, last of all, the manifest."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from preprocess.environment import environment
from preprocess.errors import ShardwaveError, TooManyBadInputs
from shards import atomic, folder, manifest
from shards.layout import INPUTS, QUARANTINE
from shards.plan import Plan
from shards.shard_writer import Fields
from shards.unit import array_fields
from shards.url_path import Place


def finish(out: Place, planned: Plan, records: Sequence[dict[str, Any]], *, config: dict[str, Any], classes: Sequence[str],
           feature_names: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """Write what stands beside the shards from the units' records; returns the manifest."""
    from preprocess.config import SpectrogramConfig

    records = sorted(records, key=lambda record: record["unit"])
    quarantined = sorted((entry for record in records for entry in record["quarantined"]), key=lambda entry: entry["path"])
    if len(quarantined) == len(planned.clips):
        first = quarantined[0]
        raise ShardwaveError(
            f"none of the {len(quarantined)} clips is usable audio (the first: {first['path']}: {first['reason']})"
        )
    builders: list[dict[str, Any]] = []
    partitions: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["builder"] not in builders:
            builders.append(record["builder"])
        for view, entry in record["shards"].items():
            partitions[record["partition"]][view].append({**entry, "builder": builders.index(record["builder"])})
    crc32 = {path: value for record in records for path, value in record["crc32"].items()}
    planned.with_crc32(crc32).write(out / INPUTS)
    write_quarantine(out, quarantined)
    made = {
        "format": manifest.FORMAT,
        "fingerprint": manifest.fingerprint(config),
        "config": config,
        "engine": planned.options["engine"],
        "device": planned.options["device"],
        "seed": planned.options["seed"],
        "classes": list(classes),
        "feature_names": list(feature_names),
        "fields": described(array_fields(SpectrogramConfig(**config), len(feature_names))),
        "partitions": partitions,
        "clips": len(planned.clips) - len(quarantined),
        "audio_seconds": round(sum(record["audio_seconds"] for record in records), 6),
        "unused_seconds": {
            view: round(sum(record["unused_seconds"][i] for record in records), 6) for i, view in enumerate(("full", "slice"))
        },
        "quarantined": len(quarantined),
        "options": planned.options,
        "builders": builders,
        "environment": environment(),
    }
    manifest.write(out, made)
    folder.remove_build(out)
    return made


def described(fields: Fields) -> dict[str, dict[str, Any]]:
    """The manifest's `fields` for the array fields given: they, `cls` and `json`."""
    arrays = {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in fields.items()}
    return {**arrays, "cls": {"dtype": "int64", "shape": []}, "json": {"dtype": "json", "shape": []}}


def write_quarantine(out: Place, quarantined: Sequence[dict[str, str]]) -> None:
    """Write quarantine.jsonl: one {path, reason} a line, sorted by path."""
    atomic.write_bytes(out / QUARANTINE, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in quarantined).encode())


def check_bad(made: dict[str, Any], max_bad_fraction: float, out: Place) -> None:
    """Raise TooManyBadInputs where more clips were set aside than allowed."""
    total = made["clips"] + made["quarantined"]
    if made["quarantined"] > max_bad_fraction * total:
        raise TooManyBadInputs(
            f"{out} is finished, but {made['quarantined']} of {total} clips were set aside, more than "
            f"--max-bad-fraction {max_bad_fraction:g}: the set can be used; see quarantine.jsonl in it for the reasons"
        )
