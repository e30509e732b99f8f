"""Shortcuts: properties of the files that reveal the class without the sound."""

from __future__ import annotations

import os
import warnings

import numpy as np

from shardwave.shards.audit.audited_set import AuditedSet
from shardwave.shards.audit.finding import Finding

FOLDS = 5
PERMUTATIONS = 99
SIGNIFICANT = 0.02  # p-value of the permutation test
MARGIN, LARGE = 0.1, 0.5  # of the distance from chance to 1 that makes a finding of medium and high severity
DEPTH = 5  # of the decision tree
CLIPS = 5_000  # that are used at most
CUES = ("file format", "sample rate", "duration")


def shortcut_findings(audited: AuditedSet, seed: int = 0) -> list[Finding]:
    """Predict the class from file format, sample rate and duration, each alone and all together.

    A decision tree is cross-validated by groups; its balanced accuracy is compared with that for permuted
    labels (Ojala & Garriga 2010).

    Args:
        audited: The set.
        seed: Seed of the folds, the permutations, and the choice of `CLIPS` clips.
    """
    rows = np.flatnonzero(audited.cls >= 0)
    if len(rows) > CLIPS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, CLIPS, replace=False))
    counts = np.bincount(audited.cls[rows], minlength=1)
    rows = rows[counts[audited.cls[rows]] >= FOLDS]
    suffixes = [os.path.splitext(audited.clips[row].path)[1].lower() for row in rows.tolist()]
    names = sorted(set(suffixes))
    columns = {
        "file format": np.array([[suffix == name for name in names] for suffix in suffixes], np.float64),
        "sample rate": audited.rate[rows, None].astype(np.float64),
        "duration": np.nan_to_num(audited.seconds[rows, None]),
    }
    varied = {name: values for name, values in columns.items() if len(values) and (values != values[0]).any()}
    if not varied or len(np.unique(audited.cls[rows])) < 2:
        return []
    _, groups = np.unique([audited.group[row] for row in rows.tolist()], return_inverse=True)
    found = []
    tests = (
        dict(varied) if len(varied) == 1 else {**varied, " and ".join(varied): np.hstack([*varied.values()])}
    )
    for name, values in tests.items():
        score, p, chance = _predictability(values, audited.cls[rows], groups, seed)
        gain = (score - chance) / (1 - chance)
        if p <= SIGNIFICANT and gain > MARGIN:
            text = f"{name} alone predicts the class: balanced accuracy {score:.0%}, "
            text += f"chance {chance:.0%} (p {p:.2f})"
            advice = "convert all files alike, and cut or pad them to one length, before trusting a score"
            found.append(Finding("shortcut", "high" if gain > LARGE else "medium", text, advice))
    return found


def _predictability(
    values: np.ndarray, cls: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """Return the balanced accuracy of a decision tree, its p-value, and the accuracy of chance."""
    from sklearn.model_selection import StratifiedGroupKFold, permutation_test_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=DEPTH, min_samples_leaf=5, class_weight="balanced", random_state=seed
    )
    folds = StratifiedGroupKFold(min(FOLDS, len(np.unique(groups))), shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # scikit-learn warns of classes with fewer groups than folds
        warnings.simplefilter("ignore")
        score, permuted, p = permutation_test_score(
            tree, values, cls, cv=list(folds.split(values, cls, groups)), scoring="balanced_accuracy",
            n_permutations=PERMUTATIONS, random_state=seed,
        )  # fmt: skip
    return float(score), float(p), float(np.mean(permuted))
