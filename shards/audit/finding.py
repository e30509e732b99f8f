"""Findings of an audit, and their CSV file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from shardwave.common.csv_text import csv_bytes

SEVERITIES = ("high", "medium", "low")
COLUMNS = ("path", "finding", "severity", "evidence", "suggestion")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem of one clip, or of the whole set.

    Args:
        finding: Kind of the problem, for example `near-copy`.
        severity: `high`: scores are wrong until it is repaired; `medium`: scores or the model suffer; `low`:
            worth a look.
        evidence: Measured values, as text.
        suggestion: Recommended action.
        path: Name of the clip (`Clip.name`); empty if the problem concerns the whole set.
        clips: Rows of the clips in `AuditedSet`, the named clip first; empty for the whole set.
    """

    finding: str
    severity: str
    evidence: str
    suggestion: str
    path: str = ""
    clips: tuple[int, ...] = ()


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; findings of equal severity keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def audit_csv(findings: Sequence[Finding]) -> bytes:
    """Return the findings as CSV with the columns `COLUMNS`."""
    return csv_bytes([COLUMNS, *([getattr(finding, name) for name in COLUMNS] for finding in findings)])


def reaches(findings: Iterable[Finding], severity: str) -> bool:
    """Return whether a finding has at least the given severity; never for `none`."""
    allowed = SEVERITIES[: SEVERITIES.index(severity) + 1] if severity in SEVERITIES else ()
    return any(finding.severity in allowed for finding in findings)
