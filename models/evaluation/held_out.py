"""Predictions of the clips that a network was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation import clip_csv
from shardwave.models.evaluation.evaluate import predictions
from shardwave.models.evaluation.metrics import ClipPredictions
from shardwave.models.runs import checkpoint
from shardwave.models.training.learner import SCORE_VIEWS


def write_predictions_and_errors(
    out: Path, data: TrainingData, trained: checkpoint.Trained, test: Mapping[str, ClipPredictions]
) -> None:
    """Write `predictions.csv` and `errors.csv` of the validation and test clips of a run.

    The clips are predicted by the view whose score selected the network.

    Args:
        out: Run folder.
        data: Data of the training.
        trained: The network.
        test: Predictions of the test clips by view; empty without a test split.
    """
    view = SCORE_VIEWS[data.selected]
    rows: list[clip_csv.ClipRow] = []
    for names, views, known in (
        (data.roles.val, data.val, None),
        (data.roles.test, data.test, test.get(view)),
    ):
        if names and view in views:
            batches = data.evaluation_batches(views[view])
            predicted = known or predictions(
                trained.head, batches, data.field, data.device, trained.config.precision
            )
            rows += clip_csv.clip_rows(predicted, views[view], ", ".join(names))
    clip_csv.write_held_out(out / clip_csv.PREDICTIONS, rows, trained.classes)
    errors = clip_csv.misclassified(rows, trained.classes)
    clip_csv.write_errors(out / clip_csv.ERRORS, errors, trained.classes)
