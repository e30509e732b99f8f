"""The page of an audit: findings with spectrograms and sound, class counts and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shardwave.bench.report.blocks import Block, Details, Gallery, Page, Picture, Table, Text
from shardwave.bench.report.pictures import audio_link, picture_source
from shardwave.bench.report.set_blocks import set_blocks
from shardwave.models.audit.examine import Audit
from shardwave.shards.audit.finding import SEVERITIES, Finding

SHOWN = 40  # findings of one kind that are shown with pictures
LISTED = 500  # findings of one kind that are listed
TITLES = {
    "exact-copy-across-splits": "Exact copies across splits",
    "near-copy-across-splits": "Near copies across splits",
    "exact-copy-other-label": "Exact copies with different labels",
    "near-copy-other-label": "Near copies with different labels",
    "exact-copy": "Exact copies within a split",
    "near-copy": "Near copies within a split",
    "label": "Probable label errors",
    "shortcut": "Shortcuts",
    "small-class": "Small classes",
    "dominant-group": "Classes that one group dominates",
    "split-shares": "Splits with different class shares",
    "short-clip": "Clips far shorter than the others",
    "long-clip": "Clips far longer than the others",
    "empty-band": "Clips without an upper band",
    "silent": "Silent clips",
    "mostly-silent": "Mostly silent clips",
    "clipped": "Clipped clips",
    "dc-offset": "Clips with a constant offset",
    "unreadable": "Files that cannot be read",
}


def audit_page(audit: Audit, name: str, audio: Path | None, folder: Path) -> Page:
    """Return the page of an audit.

    Args:
        audit: The audit.
        name: Name of the set.
        audio: Folder of the audio files, for play buttons; None: no buttons.
        folder: Folder of the page, to which the links are relative.
    """
    kinds = Counter(finding.finding for finding in audit.findings)
    sections: list[tuple[str, Sequence[Block]]] = []
    if kinds:
        rows = [
            (
                TITLES.get(kind, kind),
                next(f.severity for f in audit.findings if f.finding == kind),
                str(count),
            )
            for kind, count in kinds.items()
        ]
        sections.append(("Findings", [Table(("finding", "severity", "number"), rows, (2,))]))
    for kind in kinds:
        findings = [finding for finding in audit.findings if finding.finding == kind]
        sections.append((TITLES.get(kind, kind), _finding_blocks(audit, findings, audio, folder)))
    sections.append(("The set", set_blocks(audit.audited)))
    return Page(f"Audit of {name}", _summary(audit), sections)


def _summary(audit: Audit) -> list[str]:
    audited = audit.audited
    counts = Counter(finding.severity for finding in audit.findings)
    listed = ", ".join(f"{counts[severity]} {severity}" for severity in SEVERITIES if counts[severity])
    shards = audited.shards
    lines = [
        f"{len(audited):,} clips, {len(shards.classes)} classes, splits {', '.join(shards.splits)}. "
        f"Findings by severity: {listed or 'none'}."
    ]
    across = sum("across-splits" in finding.finding for finding in audit.findings)
    if across:
        lines.append(
            f"{across} copies are in different splits, so that scores are too high: build the set again with "
            "--groups groups.csv."
        )
    lines += [f"Not checked: {text}." for text in audit.unchecked]
    return lines


def _finding_blocks(
    audit: Audit, findings: Sequence[Finding], audio: Path | None, folder: Path
) -> list[Block]:
    blocks: list[Block] = [Text(findings[0].suggestion[:1].upper() + findings[0].suggestion[1:] + ".")]
    if len({finding.suggestion for finding in findings}) > 1:
        blocks = []
    pictured = [finding for finding in findings[:SHOWN] if finding.clips]
    if pictured and audit.audited.shards.config is not None and "npy" in audit.audited.shards.fields:
        for finding in pictured:
            pictures = [_picture(audit, row, audio, folder) for row in finding.clips]
            blocks.append(Gallery(f"{finding.path}: {finding.evidence}", pictures))
        blocks = [*(b for b in blocks if not isinstance(b, Gallery)), *_joined(blocks)]
    rows = [(finding.path, finding.evidence, finding.suggestion) for finding in findings[:LISTED]]
    table = Table(("clip", "evidence", "suggestion"), rows)
    more = f" (the first {LISTED} of {len(findings)}; audit.csv has all)" if len(findings) > LISTED else ""
    blocks.append(Details(f"List of {len(rows)}{more}", [table]) if pictured else table)
    return blocks


def _joined(blocks: Sequence[Block]) -> list[Block]:
    """Join galleries of one picture into one gallery, which shows the pictures side by side."""
    galleries = [block for block in blocks if isinstance(block, Gallery)]
    if any(len(gallery.pictures) > 1 for gallery in galleries):
        return list(galleries)
    pictures = [
        Picture(picture.source, (*picture.lines, gallery.title.split(": ", 1)[1]), picture.audio)
        for gallery in galleries
        for picture in gallery.pictures
    ]
    return [Gallery("", pictures)]


def _picture(audit: Audit, row: int, audio: Path | None, folder: Path) -> Picture:
    audited = audit.audited
    clip = audited.clips[row]
    lines = (clip.name, f"{audited.label(row) or 'unlabelled'}, {audited.split_name(row)}")
    return Picture(picture_source(audited.view, row), lines, audio_link(audio, clip.path, folder))
