"""`audit`: check a shard set, and write the findings as CSV and as a page."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from shardwave.common.csv_text import csv_bytes
from shardwave.common.errors import UsageError
from shardwave.models.audit.examine import Audit, examine
from shardwave.models.evaluation.clip_csv import segment_columns
from shardwave.shards.audit.finding import SEVERITIES, audit_csv
from shardwave.shards.storage.atomic import write_bytes

SHOWN = 10  # findings that are printed
CSV, HTML, GROUPS = "audit.csv", "audit.html", "groups.csv"


def audit(
    set_path: Path | str,
    out: Path | str,
    *,
    run: Path | str | None = None,
    audio: Path | str | None = None,
) -> dict[str, Any]:
    """Check a shard set for causes of wrong scores, and write the findings.

    Args:
        set_path: Folder or URL of the set.
        out: Folder for `audit.csv` (findings), `audit.html` (page) and, if there are copies, `groups.csv`
            (suggested groups, for `shard --groups`).
        run: Run folder of a training on the set with `--folds all`, for probable label errors.
        audio: Folder of the set's audio files, for exact digests, clipping, offsets, and play buttons.

    Returns:
        A summary: `set`, `set_id`, `clips`, `severities` and `kinds` (numbers of findings), `findings` (a
        list of dictionaries), `unchecked`, `seconds` and the names of the files.

    Raises:
        UsageError: The run or the audio does not belong to the set, a package is missing, or `out` is a file.
        ShardwaveError: The set or the run is damaged.
    """
    from shardwave.bench.report.audit_page import audit_page
    from shardwave.bench.report.render import html

    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder")
    folder = None if audio is None else Path(audio)
    report = examine(set_path, None if run is None else Path(run), folder)
    out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / CSV, audit_csv(report.findings))
    if report.pairs:
        write_bytes(out / GROUPS, _groups_csv(report))
    else:
        (out / GROUPS).unlink(missing_ok=True)
    name = str(set_path).rstrip("/").rsplit("/", 1)[-1]
    write_bytes(out / HTML, html(audit_page(report, name, folder, out)).encode())
    severities = Counter(finding.severity for finding in report.findings)
    return {
        "command": "audit",
        "set": str(set_path),
        "set_id": report.audited.shards.set_id,
        "clips": len(report.audited),
        "severities": {severity: severities[severity] for severity in SEVERITIES},
        "kinds": dict(Counter(finding.finding for finding in report.findings)),
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
        "threshold": report.threshold,
        "unchecked": report.unchecked,
        "seconds": report.seconds,
        "csv": str(out / CSV),
        "html": str(out / HTML),
        "groups": str(out / GROUPS) if report.pairs else None,
    }


def _groups_csv(report: Audit) -> bytes:
    """Return the suggested groups as CSV: path,group, and start,end if a clip is a segment of a file."""
    clips = report.audited.clips
    lines = [
        ["path", "group"],
        *([clip.path, name] for clip, name in zip(clips, report.groups(), strict=True)),
    ]
    for column in segment_columns(clips):
        lines = [[*line, cell] for line, cell in zip(lines, column, strict=True)]
    return csv_bytes(lines)


def lines(summary: dict[str, Any]) -> list[str]:
    """Format the result of `audit` as lines of text: numbers of findings, then the most severe ones."""
    from shardwave.common.printable import one_line

    severities = ", ".join(
        f"{count} {severity}" for severity, count in summary["severities"].items() if count
    )
    text = [f"{summary['set']}: {summary['clips']:,} clips; findings: {severities or 'none'}"]
    text += [f"  {count:>5}  {kind}" for kind, count in summary["kinds"].items()]
    worst = [finding for finding in summary["findings"] if finding["severity"] == "high"]
    for finding in worst[:SHOWN]:
        described = " ".join(filter(None, (finding["path"], finding["evidence"])))
        text.append(f"  {finding['finding']}: {one_line(described)}")
    if len(worst) > SHOWN:
        text.append(f"  and {len(worst) - SHOWN} more of high severity")
    text += [f"  not checked: {reason}" for reason in summary["unchecked"]]
    written = ", ".join(summary[name] for name in ("csv", "html", "groups") if summary[name])
    return [*text, f"  written: {written}"]
