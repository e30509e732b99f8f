"""Probable label errors, from the predictions of clips that a run was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.models.evaluation.clip_csv import read_held_out
from shardwave.models.runs import result
from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.finding import Finding

MISSING = "audit --run needs the package cleanlab: pip install 'shardwave[audit]'"


def held_out_probabilities(audited: AuditedSet, run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the clips that a run predicted without having been trained on them.

    Args:
        audited: The set that the run was trained on.
        run: Run folder of a finished training; with `--folds all`, it has every clip.

    Returns:
        Rows of the labelled clips, int64 [clips], and the probabilities, float64 [clips, classes].

    Raises:
        UsageError: The run was trained on another set, or is not finished.
        ShardwaveError: A file of the run is damaged.
    """
    earlier = result.read(run)
    if earlier.get("set_id") != audited.shards.set_id:
        raise UsageError(
            f"--run {run} was trained on another set (set id {earlier.get('set_id')}, "
            f"{audited.shards.location} has {audited.shards.set_id}): "
            "audit the set of the run, or train on this one with --folds all"
        )
    predicted, classes = read_held_out(run)
    if classes != list(audited.shards.classes):
        raise UsageError(
            f"--run {run}: the classes of its predictions are not those of {audited.shards.location}"
        )
    probabilities = {row.source.identity: row.probabilities for row in predicted}
    rows = [
        row
        for row, clip in enumerate(audited.clips)
        if clip.identity in probabilities and audited.cls[row] >= 0
    ]
    values = np.array([probabilities[audited.clips[row].identity] for row in rows])
    return np.array(rows, np.int64), values.reshape(len(rows), len(classes))


def label_findings(audited: AuditedSet, rows: np.ndarray, probabilities: np.ndarray) -> list[Finding]:
    """Return the probable label errors, the most probable first (confident learning, Northcutt et al. 2021).

    Args:
        audited: The set.
        rows: Rows of the clips.
        probabilities: Probabilities that a model gives to the classes without having seen the clip, float64
            [clips, classes].

    Raises:
        UsageError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise UsageError(MISSING) from None
    present, labels = np.unique(audited.cls[rows], return_inverse=True)
    if len(present) < 2:
        return []
    shares = np.maximum(probabilities[:, present], 1e-9)  # cleanlab requires a clip of every class
    shares /= shares.sum(1, keepdims=True)
    chosen = find_label_issues(labels, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    findings = []
    for i in chosen.tolist():
        row, guess = int(rows[i]), int(shares[i].argmax())
        name = audited.shards.classes[int(present[guess])]
        own = f"the label {audited.label(row)!r} has {shares[i, labels[i]]:.2f}"
        text = f"the model says {name!r} with {shares[i, guess]:.2f}, {own}"
        advice = f"listen; if the label is wrong, change it to {name!r} or delete the clip"
        findings.append(Finding("label", "medium", text, advice, audited.clips[row].name, (row,)))
    return findings
