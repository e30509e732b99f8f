"""Blocks that explain the predictions of a run: intervals, classes, confusions, errors and reliability.

They are computed from `predictions.csv` of the run folder, which holds the clips that the model was not
trained on. Test clips are used if there are any, else validation clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardwave.bench.report.attributions import attributions
from shardwave.bench.report.blocks import (
    Bar,
    Bars,
    Block,
    Details,
    Gallery,
    Line,
    Lines,
    Picture,
    Table,
    Text,
    number,
    per_cent,
)
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.evaluation.clip_csv import PREDICTIONS, ClipRow, misclassified, read_held_out
from shardwave.models.evaluation.reliability import (
    accuracy_interval,
    calibration_error,
    coverage,
    reliability,
)
from shardwave.models.training.config import CUTS

if TYPE_CHECKING:
    from shardwave.shards.read.shardset import ShardSet

CONFUSIONS = 10  # pairs of classes that are listed
ERRORS = 24  # clips that are shown
FEW = 30  # clips per class below which scores of a class are uncertain


class HeldOut:
    """Predictions of the clips of a run that it was not trained on.

    Args:
        rows: The labelled clips.
        classes: Names of the classes.
        part: "test" or "validation".
    """

    def __init__(self, rows: Sequence[ClipRow], classes: Sequence[str], part: str) -> None:
        self.rows, self.classes, self.part = list(rows), list(classes), part
        index = {name: i for i, name in enumerate(classes)}
        self.probabilities = np.array([row.probabilities for row in rows])
        self.label = np.array([index[row.label] for row in rows], np.int64)
        self.predicted = self.probabilities.argmax(1)
        self.groups = [row.source.group or row.source.path for row in rows]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy, by a bootstrap over groups."""
        return accuracy_interval(self.predicted == self.label, self.groups)


def held_out(folder: Path, result: Mapping[str, Any]) -> HeldOut | None:
    """Return the test clips of a run, or else its validation clips; None if it has no predictions."""
    if not (folder / PREDICTIONS).exists():
        return None
    rows, classes = read_held_out(folder)
    rows = [row for row in rows if row.label in classes]
    roles = result.get("folds")
    if isinstance(roles, dict):
        tested = [row for row in rows if row.split in roles.get("test", ())]
        part = "test" if tested else "validation"
        rows = tested or rows
    else:
        part = "test"
    return HeldOut(rows, classes, part) if rows else None


def compared(runs: Sequence[tuple[str, Path, Mapping[str, Any]]]) -> list[Block]:
    """Return a table of runs, the most accurate first, with confidence intervals.

    Args:
        runs: Name, folder and result of each run.
    """
    rows: list[tuple[float, Sequence[str]]] = []
    for name, folder, result in runs:
        predicted = held_out(folder, result)
        part = "val" if predicted is not None and predicted.part == "validation" else "test"
        scores = result.get("scores") or {}
        prefix = f"{part}_{result.get('selected_by')}"
        accuracy = scores.get(f"{prefix}_accuracy")
        interval = "–" if predicted is None else _range(*predicted.interval)
        cells = (
            *(name, str(result.get("model")), "test" if part == "test" else "validation"),
            *(per_cent(accuracy), interval),
            *(per_cent(scores.get(f"{prefix}_{metric}")) for metric in ("balanced_accuracy", "macro_f1")),
            *("–" if predicted is None else str(len(predicted.rows)), number(result["seconds"].get("total"))),
        )
        rows.append((-1.0 if accuracy is None else accuracy, cells))
    rows.sort(key=lambda row: -row[0])
    head = ("run", "model", "clips of", "accuracy", "95 %", "balanced", "macro F1", "clips", "seconds")
    text = (
        "Runs whose intervals overlap widely may differ by chance. Compare runs of one set and one part only."
    )
    return [Table(head, [cells for _, cells in rows], range(3, len(head))), Text(text)]


def blocks(folder: Path, result: Mapping[str, Any]) -> list[Block]:
    """Return the blocks about the predictions of a run; none if it has no predictions."""
    predicted = held_out(folder, result)
    if predicted is None:
        return []
    low, high = predicted.interval
    accuracy = float((predicted.predicted == predicted.label).mean())
    groups = len(set(predicted.groups))
    sentence = (
        f"Accuracy {per_cent(accuracy)} on {len(predicted.rows)} {predicted.part} clips of {groups} groups, "
        f"95 % interval {_range(low, high)} (bootstrap over groups)."
    )
    chosen = "trial and its epoch were" if result.get("command") == "search" else "epoch was"
    selected = (
        f" The {chosen} chosen by these clips, so this is optimistic." if predicted.part != "test" else ""
    )
    read = _set_of(result)
    shard_set = None if isinstance(read, str) else read
    return [
        Text(sentence + selected, strong=True),
        _classes(predicted),
        *_confusions(predicted),
        *_reliability(predicted),
        *_errors(predicted, shard_set),
        *attributions(folder, misclassified(predicted.rows, predicted.classes), predicted.classes, read),
        *([] if shard_set is None else _data(shard_set)),
    ]


def _set_of(result: Mapping[str, Any]) -> ShardSet | str:
    """Return the set of a run, or the reason if it is no longer at its path or has changed."""
    from shardwave.shards.read.open_set import open_set

    try:
        shard_set = open_set(result["set"])
    except (UsageError, ShardwaveError) as error:
        return str(error)
    if shard_set.set_id != result.get("set_id"):
        return f"{result['set']} has changed since the training (other set id)"
    chosen = {**(result.get("config") or {}), **(result.get("params") or {})}
    return shard_set.with_views(**{name: chosen.get(name) for name in CUTS})


def _data(shard_set: ShardSet) -> list[Block]:
    from shardwave.bench.report.set_blocks import set_blocks
    from shardwave.shards.audit.audited_set import audited_set

    return [Details("Classes and lengths of all clips of the set", set_blocks(audited_set(shard_set)))]


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _classes(predicted: HeldOut) -> Block:
    rows = []
    for i, name in enumerate(predicted.classes):
        own, said = predicted.label == i, predicted.predicted == i
        hits = int((own & said).sum())
        precision = hits / said.sum() if said.any() else None
        recall = hits / own.sum() if own.any() else None
        f1 = 2 * hits / (own.sum() + said.sum()) if own.any() or said.any() else None
        rows.append((name, str(int(own.sum())), per_cent(precision), per_cent(recall), per_cent(f1)))
    few = min(int((predicted.label == i).sum()) for i in range(len(predicted.classes))) < FEW
    note = (
        f"; with under {FEW} clips, the scores of a class are uncertain by 10 points and more" if few else ""
    )
    return Table(
        ("class", "clips", "precision", "recall", "F1"), rows, (1, 2, 3, 4), f"Scores of each class{note}"
    )


def _confusions(predicted: HeldOut) -> list[Block]:
    pairs = Counter(
        (predicted.classes[label], predicted.classes[said])
        for label, said in zip(predicted.label.tolist(), predicted.predicted.tolist(), strict=True)
        if label != said
    )
    rows = [
        (
            label,
            said,
            str(count),
            per_cent(count / max(1, int((predicted.label == predicted.classes.index(label)).sum()))),
        )
        for (label, said), count in pairs.most_common(CONFUSIONS)
    ]
    head = ("true class", "predicted as", "clips", "of the class")
    return [Table(head, rows, (2, 3), "Most frequent confusions")] if rows else []


def _reliability(predicted: HeldOut) -> list[Block]:
    bins = reliability(predicted.probabilities, predicted.label)
    error = calibration_error(predicted.probabilities, predicted.label)
    lines = [
        Line("this run", [(part.confidence, part.accuracy) for part in bins]),
        Line("perfectly calibrated", [(0.0, 0.0), (1.0, 1.0)], dashed=True),
    ]
    bars = [
        Bar(
            f"{part.confidence:.2f}",
            "ours",
            float(part.clips),
            f"{part.clips} clips, {per_cent(part.accuracy)} right",
        )
        for part in bins
    ]
    accepted = coverage(predicted.probabilities, predicted.label)
    kept = [(row.coverage, row.accuracy) for row in accepted if row.accuracy is not None]
    rows = [(f"{row.threshold:.2f}", per_cent(row.coverage), per_cent(row.accuracy)) for row in accepted]
    head, caption = ("--reject-below", "clips kept", "accuracy of them"), "Coverage and accuracy"
    return [
        Lines("Reliability", "probability of the predicted class", "fraction that is right", lines),
        Lines("Accuracy of the clips that are kept", "fraction kept", "accuracy", [Line("this run", kept)]),
        Bars("Clips by probability of the predicted class", "clips", bars),
        Text(
            f"Expected calibration error: {error:.3f}. The probabilities are those before calibration; "
            "evaluate --calibrate fits a temperature, with which predict corrects them."
        ),
        Table(head, rows, (0, 1, 2), caption),
    ]


def _errors(predicted: HeldOut, shard_set: ShardSet | None) -> list[Block]:
    """Return the most confident errors, with spectrograms if there is a set of images."""
    wrong = misclassified(predicted.rows, predicted.classes)[:ERRORS]
    if not wrong:
        return []
    rows = [
        (row.source.name, row.label, row.best(predicted.classes), f"{row.probabilities.max():.2f}")
        for row in wrong
    ]
    table = Table(("clip", "label", "predicted", "probability"), rows, (3,))
    pictures = _pictures(wrong, predicted.classes, shard_set)
    if not pictures:
        return [Table(table.head, rows, (3,), "Most confident errors")]
    return [Gallery("Most confident errors", pictures), Details("The same as a list", [table])]


def _pictures(wrong: Sequence[ClipRow], classes: Sequence[str], shard_set: ShardSet | None) -> list[Picture]:
    from shardwave.bench.report.pictures import picture_source
    from shardwave.shards.clip import clip_of_sample

    field = None if shard_set is None else shard_set.fields.get("npy")
    if shard_set is None or field is None or len(field["shape"]) != 2:
        return []
    view = shard_set.view(shard_set.splits, "full")
    row_of = {clip_of_sample(view.meta(i)).identity: i for i in range(len(view))}
    return [
        Picture(
            picture_source(view, row_of[row.source.identity]),
            (row.source.name, f"{row.best(classes)} with {row.probabilities.max():.2f}, label {row.label}"),
        )
        for row in wrong
        if row.source.identity in row_of
    ]
