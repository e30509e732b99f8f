"""Summary of a shard set: counts, durations, source rates, groups and quarantined files."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from shardwave.common.printable import one_line
from shardwave.common.progress import bar
from shardwave.common.typed import Json
from shardwave.shards import quarantine
from shardwave.shards.clip import Clip
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import QUARANTINE, REMARKS
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.format.manifest import StoredField
from shardwave.shards.format.records import QuarantineEntry, RemarkEntry
from shardwave.shards.read.open_set import open_set

UNLABELLED = "(unlabelled)"
Counts = dict[str, dict[str, dict[str, int]]]  # split, view, class -> number of samples


class Durations(TypedDict):
    """Lengths of the clips of a set, in seconds."""

    total: float
    min: float
    median: float
    max: float


class Summary(TypedDict):
    """Contents of a shard set."""

    path: str
    set_id: str
    fingerprint: str
    engine: str | None
    device: str | None
    clips: int
    audio_seconds: float
    classes: list[str]
    config: Json | None
    layout: str  # one of `layouts.LAYOUTS`
    fields: dict[str, StoredField]
    bytes: int  # of all tars
    date: str  # of the build
    counts: Counts
    durations: Durations | None  # None if the clips have no lengths, as those of a table
    source_rates: dict[str, int]  # Hz -> number of clips
    groups: dict[str, int]  # split -> number of groups
    absent: dict[str, list[str]]  # split -> classes without clips
    quarantined: list[QuarantineEntry]
    remarks: list[RemarkEntry]


def summary(set_path: Path | str) -> Summary:
    """Summarise a shard set.

    Args:
        set_path: The set's folder or URL.

    Raises:
        UsageError: There is no shard set.
        ShardwaveError: The set is damaged.
    """
    opened = open_set(set_path)
    counts: Counts = {}
    lengths: list[float] = []
    rates: collections.Counter[str] = collections.Counter()
    groups: dict[str, set[str]] = {}
    names = [*opened.classes, UNLABELLED]
    with bar(
        total=opened.manifest["clips"], desc="inspect", unit="clip", delay=2.0, leave=False
    ) as progress_bar:
        for split in opened.splits:
            counts[split] = {}
            for view_name in opened.views_of(split):
                view = opened.view(split, view_name)
                tally = np.bincount(
                    view.cls % len(names), minlength=len(names)
                )  # -1 (unlabelled) is counted last
                counts[split][view_name] = {
                    name: int(n) for name, n in zip(names, tally, strict=True) if n or name != UNLABELLED
                }
                if view_name != "full":
                    continue
                for i in range(len(view)):
                    meta = view.meta(i)
                    if meta.get("length"):  # clips of a table have no length
                        lengths.append(float(meta["length"]))
                    if meta.get("source_rate"):
                        rates[str(meta["source_rate"])] += 1
                    if meta.get("group") is not None:
                        groups.setdefault(split, set()).add(str(meta["group"]))
                    progress_bar.update()
    return {
        "path": str(set_path),
        "set_id": opened.set_id,
        "fingerprint": opened.fingerprint,
        "engine": opened.manifest["engine"],
        "device": opened.manifest["device"],
        "clips": opened.manifest["clips"],
        "audio_seconds": opened.manifest["audio_seconds"],
        "classes": opened.classes,
        "config": opened.manifest["config"],
        "layout": STRIP if opened.is_strip else VIEWS,
        "fields": opened.stored,
        "bytes": sum(entry["bytes"] for entry in manifest.entries(opened.manifest)),
        "date": opened.manifest["environment"]["date"],
        "counts": counts,
        "durations": _spread(lengths),
        "source_rates": dict(rates.most_common()),
        "groups": {split: len(names) for split, names in groups.items()},
        "absent": _absent(counts, opened.classes),
        "quarantined": quarantine.quarantined(opened.path),
        "remarks": quarantine.remarks(opened.path),
    }


def _absent(counts: Counts, classes: list[str]) -> dict[str, list[str]]:
    """Return the classes without clips of each split that has labelled clips."""
    absent = {}
    for split, views in counts.items():
        full = views.get("full", {})
        lacking = [name for name in classes if not full.get(name)]
        if lacking and len(lacking) < len(classes):
            absent[split] = lacking
    return absent


def _spread(lengths: Sequence[float]) -> Durations | None:
    if not lengths:
        return None
    values = np.asarray(lengths)
    return {
        "total": round(float(values.sum()), 3),
        "min": round(float(values.min()), 3),
        "median": round(float(np.median(values)), 3),
        "max": round(float(values.max()), 3),
    }


def describe(details: Summary, quarantined_lines: int = 10) -> str:
    """Format the result of `summary` as text for a terminal.

    Args:
        details: The summary.
        quarantined_lines: Maximum number of quarantined clips to list.
    """
    config, spread = details["config"], details["durations"]
    length = f", {_time(details['audio_seconds'])} of audio" if spread else ""
    head = [f"{details['path']}: {details['clips']:,} clips, {len(details['classes'])} classes{length}"]
    strips = "strips: " if details["layout"] == STRIP else ""
    lines = {"stored as": f"{strips}{_fields(details['fields'])}, {details['bytes'] / 1e6:,.1f} MB"}
    if manifest.is_spectrogram(config):
        sliced = (
            f"slices of {config['slice_seconds']:g} s"
            if config["slice_seconds"]
            else f"{config['slices'] or 'no'} slices"
        )
        fit = f", fit {config['fit']} to {config['fit_seconds']:g} s" if config.get("fit_seconds") else ""
        lines["spectrogram"] = (
            f"{config['sample_rate']:,} Hz, window {config['n_fft']}, hop {config['hop_length']}, "
            f"{config['frequency_scale']} frequency, floor {config['floor_db']:g} dB, {sliced}{fit}"
        )
    lines["set id"] = details["set_id"]
    if details["engine"]:
        lines["built with"] = (
            f"{details['engine']} on {details['device']}, {details['date']}, "
            f"fingerprint {details['fingerprint']}"
        )
    if spread:
        varied = f"{spread['min']:g} to {spread['max']:g} s, median {spread['median']:g} s"
        lines["durations"] = f"{spread['min']:g} s each" if spread["min"] == spread["max"] else varied
    lines["source rates"] = ", ".join(
        f"{int(rate):,} Hz: {n:,}" for rate, n in details["source_rates"].items()
    )
    lines["groups"] = ", ".join(f"{split}: {n:,}" for split, n in details["groups"].items())
    head += [f"  {name:12s} {text}" for name, text in lines.items() if text]
    quarantined, remarks = details["quarantined"], details["remarks"]
    absent = ((split, ", ".join(map(one_line, names))) for split, names in details["absent"].items())
    tail = [f"  warning      {split} has no clips of {names}" for split, names in absent]
    count = len(quarantined)
    tail += [f"  quarantined  {count} clip{'s' if count > 1 else ''}" if count else "  quarantined  nothing"]
    tail += [
        f"    {one_line(_clip_name(entry))}: {one_line(entry['reason'])}"
        for entry in quarantined[:quarantined_lines]
    ]
    if count > quarantined_lines:
        tail.append(f"    … and {count - quarantined_lines} more in {QUARANTINE}")
    if remarks:
        first = f"the first: {one_line(_clip_name(remarks[0]))}: {one_line(remarks[0]['remark'])}"
        clips = f"{len(remarks)} clip{'s' if len(remarks) > 1 else ''}"
        tail.append(f"  remarks      {clips} used in spite of a remark; {first}; see {REMARKS}")
    return "\n".join([*head, "", *_table(details["counts"], details["classes"]), "", *tail])


def _clip_name(entry: QuarantineEntry | RemarkEntry) -> str:
    return Clip(entry["path"], start=entry.get("start"), end=entry.get("end")).name


def _table(counts: Counts, classes: list[str]) -> list[str]:
    """Format the table of counts: one row per class, one column per split and view, and totals."""
    columns = [(split, view) for split, views in counts.items() for view in views]
    names = [*classes, *([UNLABELLED] if any(UNLABELLED in counts[p][v] for p, v in columns) else [])]
    cells = [[counts[p][v].get(name, 0) for p, v in columns] for name in names]
    names = list(map(one_line, names))
    views = list(dict.fromkeys(view for _, view in columns))
    header = [*(split for split, _ in columns), *("total" for _ in views)]
    rows = [
        [*row, *(sum(n for n, (_, v) in zip(row, columns, strict=True) if v == view) for view in views)]
        for row in cells
    ]
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    text = [[f"{n:,}" if n else "·" for n in row] for row in rows]
    top = [header, [*(view for _, view in columns), *views]]
    widths = [max(len(line[i]) for line in [*top, *text]) for i in range(len(header))]
    left = max(len(name) for name in [*names, "class"])
    rule = "  " + "─" * (left + sum(width + 2 for width in widths))

    def line(name: str, row: list[str]) -> str:
        return (
            "  "
            + name.ljust(left)
            + "".join(cell.rjust(width + 2) for cell, width in zip(row, widths, strict=True))
        )

    splits = [name if i == 0 or header[i - 1] != name else "" for i, name in enumerate(header)]
    body = [line(name, row) for name, row in zip([*names, "total"], text, strict=True)]
    return [line("", splits), line("class", top[1]), rule, *body[:-1], rule, body[-1]]


def _fields(fields: dict[str, StoredField]) -> str:
    arrays = {name: field for name, field in fields.items() if name not in manifest.OWN_FIELDS}
    return ", ".join(
        f"{name} {field['dtype']} {' x '.join('any' if n is None else str(n) for n in field['shape'])}"
        for name, field in arrays.items()
    )


def _time(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.1f} min"
        if seconds >= 90
        else f"{seconds:.1f} s"
    )
