"""What is in a shard set: counts, durations, what was set aside, and whether samples still fit the audio they came from."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.errors import UsageError
from shards.layout import QUARANTINE
from shards.progress import bar
from shards.shardset import ShardSet, View

UNLABELLED = "(unlabelled)"


def draw(set_path: Path | str, key: str, png: Path) -> dict[str, Any]:
    """Draw one clip (`key`: a sample's key, or the clip's path), axes in Hz and seconds, and its slices; returns its metadata."""
    from shards.inspect_figures import draw_sample

    return draw_sample(ShardSet.open(set_path), key, png)


def contact_sheet(set_path: Path | str, png: Path, per_class: int = 6) -> dict[str, Any]:
    """Draw `per_class` whole clips of every class on one sheet; returns {png, samples}."""
    from shards.inspect_figures import draw_sheet

    return draw_sheet(ShardSet.open(set_path), png, per_class)


def against(set_path: Path | str, audio: Path, key: str | None = None, clips: int = 12) -> dict[str, Any]:
    """Make samples anew from `audio` and compare them with the stored ones; see `inspect_against.against`."""
    from shards import inspect_against

    return inspect_against.against(set_path, audio, key, clips)


def report(found: dict[str, Any]) -> str:
    """What `against` returned as text for a terminal."""
    from shards import inspect_against

    return inspect_against.report(found)


def summary(set_path: Path | str) -> dict[str, Any]:
    """Counts per class, partition and view, durations (seconds), source rates (Hz), groups, and what was set aside and why."""
    opened = ShardSet.open(set_path)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    lengths: list[float] = []
    rates: collections.Counter[str] = collections.Counter()
    groups: dict[str, set[str]] = {}
    names = [*opened.classes, UNLABELLED]
    with bar(total=opened.manifest["clips"], desc="inspect", unit="clip", delay=2.0, leave=False) as shown:
        for partition in opened.partitions:
            counts[partition] = {}
            for view_name in opened.manifest["partitions"][partition]:
                view = opened.view(partition, view_name)
                tally = np.bincount(view.cls % len(names), minlength=len(names))  # -1, unlabelled, counts as the last
                counts[partition][view_name] = {
                    name: int(n) for name, n in zip(names, tally, strict=True) if n or name != UNLABELLED
                }
                if view_name != "full":
                    continue
                for i in range(len(view)):
                    meta = view.meta(i)
                    if meta.get("length"):  # rows of a table have none
                        lengths.append(float(meta["length"]))
                    if meta.get("source_rate"):
                        rates[str(meta["source_rate"])] += 1
                    if meta.get("group") is not None:
                        groups.setdefault(partition, set()).add(str(meta["group"]))
                    shown.update()
    return {
        "path": str(set_path),
        **{name: opened.manifest[name] for name in ("fingerprint", "engine", "device", "clips", "audio_seconds", "classes")},
        "config": opened.manifest["config"],
        "fields": opened.fields,
        "bytes": sum(
            e["bytes"] for views in opened.manifest["partitions"].values() for entries in views.values() for e in entries
        ),
        "date": opened.manifest["environment"].get("date"),
        "counts": counts,
        "durations": _spread(lengths),
        "source_rates": dict(rates.most_common()),
        "groups": {partition: len(found) for partition, found in groups.items()},
        "absent": _absent(counts, opened.classes),
        "quarantined": quarantined(opened.path),
    }


def quarantined(folder: Path) -> list[dict[str, str]]:
    """What was set aside while the set was built: [{path, reason}]."""
    path = folder / QUARANTINE
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def _absent(counts: dict[str, dict[str, dict[str, int]]], classes: list[str]) -> dict[str, list[str]]:
    """Classes that a partition with labelled clips has none of: what is not there cannot be learned, or scored."""
    found = {}
    for partition, views in counts.items():
        full = views.get("full", {})
        lacking = [name for name in classes if not full.get(name)]
        if lacking and len(lacking) < len(classes):
            found[partition] = lacking
    return found


def _spread(lengths: Sequence[float]) -> dict[str, float] | None:
    if not lengths:
        return None
    values = np.asarray(lengths)
    found = {"total": values.sum(), "min": values.min(), "median": np.median(values), "max": values.max()}
    return {name: round(float(value), 3) for name, value in found.items()}


def describe(found: dict[str, Any], quarantined_lines: int = 10) -> str:
    """`found` (from `summary`) as text for a terminal."""
    config, spread = found["config"], found["durations"]
    length = f", {_time(found['audio_seconds'])} of audio" if spread else ""
    head = [f"{found['path']}: {found['clips']:,} clips, {len(found['classes'])} classes{length}"]
    head.append(f"  stored as    {_fields(found['fields'])}, {found['bytes'] / 1e6:,.1f} MB")
    if "frequency_scale" in (config or {}):
        sliced = f"slices of {config['slice_seconds']:g} s" if config["slice_seconds"] else f"{config['slices'] or 'no'} slices"
        fit = f", fit {config['fit']} to {config['fit_seconds']:g} s" if config.get("fit_seconds") else ""
        head.append(
            f"  spectrogram  {config['sample_rate']:,} Hz, window {config['n_fft']}, hop {config['hop_length']}, "
            f"{config['frequency_scale']} frequency, floor {config['floor_db']:g} dB, {sliced}{fit}"
        )
    if found["engine"]:
        head.append(f"  built with   {found['engine']} on {found['device']}, {found['date']}, fingerprint {found['fingerprint']}")
    if spread:
        same = spread["min"] == spread["max"]
        head.append(
            "  durations    "
            + (
                f"{spread['min']:g} s each"
                if same
                else f"{spread['min']:g} to {spread['max']:g} s, median {spread['median']:g} s"
            )
        )
    if found["source_rates"]:
        head.append("  source rates " + ", ".join(f"{int(rate):,} Hz: {n:,}" for rate, n in found["source_rates"].items()))
    if found["groups"]:
        head.append("  groups       " + ", ".join(f"{partition}: {n:,}" for partition, n in found["groups"].items()))
    aside = found["quarantined"]
    tail = [f"  take care    {partition} has no clip of {', '.join(names)}" for partition, names in found["absent"].items()]
    tail += [f"  set aside    {len(aside)} clip{'s' if len(aside) > 1 else ''}" if aside else "  set aside    nothing"]
    tail += [f"    {entry['path']}: {entry['reason']}" for entry in aside[:quarantined_lines]]
    if len(aside) > quarantined_lines:
        tail.append(f"    … and {len(aside) - quarantined_lines} more in {QUARANTINE}")
    return "\n".join([*head, "", *_table(found["counts"], found["classes"]), "", *tail])


def _table(counts: dict[str, dict[str, dict[str, int]]], classes: list[str]) -> list[str]:
    """Classes down, partitions and their views across, sums at the end and below."""
    columns = [(partition, view) for partition, views in counts.items() for view in views]
    names = [*classes, *([UNLABELLED] if any(UNLABELLED in counts[p][v] for p, v in columns) else [])]
    cells = [[counts[p][v].get(name, 0) for p, v in columns] for name in names]
    views = list(dict.fromkeys(view for _, view in columns))
    header = [*(partition for partition, _ in columns), *("total" for _ in views)]
    rows = [[*row, *(sum(n for n, (_, v) in zip(row, columns, strict=True) if v == view) for view in views)] for row in cells]
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    text = [[f"{n:,}" if n else "·" for n in row] for row in rows]
    top = [header, [*(view for _, view in columns), *views]]
    widths = [max(len(line[i]) for line in [*top, *text]) for i in range(len(header))]
    left = max(len(name) for name in [*names, "class"])
    rule = "  " + "─" * (left + sum(width + 2 for width in widths))

    def line(name: str, row: list[str]) -> str:
        return "  " + name.ljust(left) + "".join(cell.rjust(width + 2) for cell, width in zip(row, widths, strict=True))

    shown = [name if i == 0 or header[i - 1] != name else "" for i, name in enumerate(header)]
    body = [line(name, row) for name, row in zip([*names, "total"], text, strict=True)]
    return [line("", shown), line("class", top[1]), rule, *body[:-1], rule, body[-1]]


def _fields(fields: dict[str, dict[str, Any]]) -> str:
    arrays = [
        f"{name} {f['dtype']} {' x '.join(map(str, f['shape']))}" for name, f in fields.items() if name not in ("cls", "json")
    ]
    return ", ".join(arrays)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.1f} s"


def find(opened: ShardSet, key: str) -> tuple[View, int]:
    """The whole-clip sample of `key`: its own key, that of one of its slices, or the clip's path in the audio folder."""
    for partition in opened.partitions:
        view = opened.view(partition, "full")
        for row in range(len(view)):
            if key in (view.key(row), view.meta(row).get("path")):
                return view, row
    for partition in opened.partitions if "slice" in opened.views else []:
        slices = opened.view(partition, "slice")
        for row in range(len(slices)):
            if slices.key(row) == key:
                view = opened.view(partition, "full")
                return view, int(np.flatnonzero(view.clip == slices.clip[row])[0])
    example = opened.view(opened.partitions[0], "full")
    raise UsageError(
        f"{opened.path} has no sample {key}; keys look like {example.key(0)}, or give a path such as {example.meta(0)['path']}"
    )
