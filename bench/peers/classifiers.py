"""Classifiers of scikit-learn on the vectors of a shard set, cross-validated on its folds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from shardwave.models.data.splits import folds
from shardwave.shards.read.open_set import open_set

# scikit-learn's default settings, except for more trees and iterations
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "logistic-regression": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(max_iter=5_000)),
    "svm": lambda seed: make_pipeline(StandardScaler(), SVC()),
    "random-forest": lambda seed: RandomForestClassifier(500, random_state=seed, n_jobs=1),
    "hist-gradient-boosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
}


def cross_validate(set_path: Path | str, name: str, field: str, seed: int) -> dict[str, Any]:
    """Train a classifier on all folds but one, score it on that fold, and repeat for each fold.

    Args:
        set_path: Folder or URL of a set with folds.
        name: A name of `CLASSIFIERS`.
        field: Vector field of the full clips, or several joined by `+`.
        seed: Seed of the classifier.

    Returns:
        The fields of a cross-validation's result.json that the accuracy table needs.
    """
    begin = time.perf_counter()
    opened = open_set(set_path)
    views = {fold: opened.view(f"fold{fold}", "full") for fold in folds(opened.splits)}
    vectors = {fold: view.gather(np.arange(len(view)), (field,))[field] for fold, view in views.items()}
    per_fold: list[dict[str, Any]] = []
    for fold, view in views.items():
        others = [other for other in views if other != fold]
        classifier = CLASSIFIERS[name](seed)
        classifier.fit(
            np.concatenate([vectors[other] for other in others]),
            np.concatenate([views[other].cls for other in others]),
        )
        predicted = classifier.predict(vectors[fold])
        scores = {
            "test_full_accuracy": float(accuracy_score(view.cls, predicted)),
            "test_full_f1": float(f1_score(view.cls, predicted, average="weighted")),
        }
        per_fold.append({"fold": fold, "scores": scores, "epochs": None})
    return {
        "seed": seed,
        "selected_by": "full",
        "scores": {
            score: float(np.mean([entry["scores"][score] for entry in per_fold]))
            for score in per_fold[0]["scores"]
        },
        "per_fold": per_fold,
        "parameters": None,
        "params": {},
        "config": {"train_view": "full", "precision": "float64"},
        "seconds": {"total": time.perf_counter() - begin},
    }
