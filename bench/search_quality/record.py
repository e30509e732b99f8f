"""Record tables of learning curves: the trainings that replays look up.

`bench record-curves NAME` trains the configurations of a recipe on five folds each. An interrupted recording
continues.

The clips are split by group into six folds. The last one is held out: its accuracy is recorded, and no
strategy sees it. Each training validates on one of the others and trains on the remaining four.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shardwave.bench.harness.pool import Pool
from shardwave.bench.search_quality import curves
from shardwave.bench.search_quality.curves import FOLDS, Recorded
from shardwave.common import environment
from shardwave.common.errors import UsageError
from shardwave.common.progress import bar
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation import metrics
from shardwave.models.runs.records import score
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.models.training.fit import EpochReport, plain_trainer, run_epochs
from shardwave.models.training.numerics import fixed_numerics
from shardwave.models.training.precision import resolved
from shardwave.models.training.threads import limit_threads
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.search import line_file
from shardwave.search.fused.mlp import train_epoch
from shardwave.search.fused.trial import FusedTrial
from shardwave.search.objective import fusable
from shardwave.search.space import space_for

TEST_FOLD = FOLDS + 1
REPEATED = 50  # configurations that are trained with several seeds
SEEDS = 3


class Recipe(NamedTuple):
    """What a table records.

    Attributes:
        model: Network; its default search space is recorded. Configuration 0 has the model's default values,
            moved into the space.
        settings: Fields of `TrainConfig` that differ from the model's defaults.
        epochs: Epochs of a training.
        configurations: Number of points of the space.
        spectrogram: Settings of the images and fields; None: the data are a table of features.
    """

    model: str
    settings: dict[str, Any]
    epochs: int
    configurations: int
    spectrogram: dict[str, Any] | None = None


RECIPES = {
    "mlp-gtzan": Recipe("mlp", {}, 50, 1000),
    "mlp-esc10": Recipe("mlp", {}, 50, 1000, {"image_size": 64, "slices": 0, "features": True}),
    "mlp-esc10-aisfx": Recipe(
        "mlp", {"inputs": "aisfx"}, 50, 1000, {"image_size": 64, "slices": 0, "embeddings": "aisfx"}
    ),
    "cnn-esc10-64": Recipe("cnn", {"train_view": "full"}, 15, 150, {"image_size": 64, "slices": 0}),
}


def folds_of(labels: Sequence[str], groups: Sequence[str]) -> list[int]:
    """Return the fold of each clip, from 1; the folds are stratified by class and do not divide groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = [0] * len(labels)
    splitter = StratifiedGroupKFold(TEST_FOLD, shuffle=True, random_state=0)
    for number, (_, rows) in enumerate(splitter.split(labels, labels, groups), 1):
        for row in rows:
            folds[row] = number
    return folds


def build_set(recipe: Recipe, data: Path, out: Path) -> None:
    """Build the shard set of a recipe; does nothing if it is finished.

    Args:
        recipe: The recipe.
        data: Folder of audio, with `labels.csv` if the classes are not folders; or CSV table of features with
            the columns `filename` and `label`.
        out: Folder of the set.
    """
    from shardwave.shards import sources
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions
    from shardwave.shards.build.table import build_table

    if (out / "manifest.json").exists():
        return
    if recipe.spectrogram is None:
        with open(data, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        folds = folds_of([row["label"] for row in rows], [row["filename"] for row in rows])
        table = out.with_suffix(".csv")
        with open(table, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], "fold"])
            writer.writeheader()
            writer.writerows({**row, "fold": fold} for row, fold in zip(rows, folds, strict=True))
        build_table(table, out, BuildOptions(drop_columns="length"))  # reveals the class, see `shard --table`
        return
    labels = data / "labels.csv"
    clips = sources.discover(data, BuildOptions(labels=labels if labels.exists() else None))
    folds = folds_of([str(clip.label) for clip in clips], [clip.group or clip.path for clip in clips])
    placed = [dataclasses.replace(clip, fold=fold) for clip, fold in zip(clips, folds, strict=True)]
    build(data, out, AutoConfig(recipe.spectrogram), BuildOptions(), placed)


class Trainer:
    """Trains configurations of a recipe on all folds, in a worker process."""

    def __init__(self, recipe: Recipe, set_path: Path) -> None:
        self._recipe = recipe
        self._data = [TrainingData(set_path, self._config(fold, 0, {})) for fold in range(1, FOLDS + 1)]

    def __call__(self, task: tuple[int, int, dict[str, Any]]) -> Recorded:
        """Train the configuration `(number, seed, params)`."""
        number, seed, params = task
        folds = [train(data, self._config(fold, seed, params)) for fold, data in enumerate(self._data, 1)]
        return {
            "configuration": number,
            "seed": seed,
            "params": params,
            "val_correct": [fold.val_correct for fold in folds],
            "val_loss": [fold.val_loss for fold in folds],
            "test_correct": [fold.test_correct for fold in folds],
            "seconds": sum(fold.seconds for fold in folds) / len(folds) / self._recipe.epochs,
        }

    def _config(self, fold: int, seed: int, params: dict[str, Any]) -> TrainConfig:
        recipe = self._recipe
        fixed = {"epochs": recipe.epochs, "device": "cpu", "val_fold": fold, "test_fold": TEST_FOLD}
        return defaults(recipe.model, **recipe.settings, **fixed, seed=seed, **params)

    def clips(self) -> tuple[list[int], int]:
        """Return the number of validation clips of each fold, and the number of test clips."""
        return [len(next(iter(data.val.values()))) for data in self._data], len(
            next(iter(self._data[0].test.values()))
        )


class Curve(NamedTuple):
    """Learning curve of one training; one value per epoch."""

    val_correct: list[int]  # number of correct validation clips
    val_loss: list[float]
    test_correct: list[int]
    seconds: float  # CPU time of training and validation


@fixed_numerics()
def train(data: TrainingData, config: TrainConfig) -> Curve:
    """Train once on one core, and score the validation and the test clips after each epoch."""
    config = resolved(config, data.device)
    if fusable(config):
        trial = FusedTrial(config, data)
        learner, epoch_of = trial.learner, lambda epoch: train_epoch(trial, epoch)
    else:
        learner, epoch_of = plain_trainer(data, config)
    view, test = next(
        (name, batches) for name, batches in data.test_batches().items() if name == data.train_view
    )
    clips = len(data.val[view])
    curve = Curve([], [], [], 0.0)
    begin = time.thread_time()
    spent = 0.0

    def report(epoch: int, value: float, scores: EpochReport) -> None:
        nonlocal begin, spent
        spent += time.thread_time() - begin
        curve.val_correct.append(round(score(scores, f"val_{data.selected}_accuracy") * clips))
        curve.val_loss.append(round(score(scores, "val_loss"), 4))
        predictions = metrics.PredictionAccumulator()
        for batch in test:
            predictions.add(learner.evaluated(batch[data.field]).detach(), batch)
        tested = predictions.by_clip()
        curve.test_correct.append(int((tested.probabilities.argmax(1) == tested.label).sum()))
        begin = time.thread_time()

    with limit_threads(1):
        run_epochs(data, config, learner, epoch_of, report)
    return curve._replace(seconds=spent)


def setup(recipe: str, set_path: str) -> Callable[[tuple[int, int, dict[str, Any]]], Recorded]:
    """Return the job of a worker process: the training of one configuration.

    Args:
        recipe: Fields of the recipe as a JSON object.
        set_path: Shard set.
    """
    return Trainer(Recipe(**json.loads(recipe)), Path(set_path))


def record(
    name: str, data: Path, out: Path, configurations: int | None = None, workers: int | None = None
) -> Path:
    """Record a table, or continue its recording.

    Args:
        name: Name of a recipe.
        data: Data of the recipe, see `build_set`.
        out: Folder of the set, of the rows recorded so far and of the table.
        configurations: Number of configurations; None: that of the recipe.
        workers: Number of processes; None: one per core.

    Returns:
        The path of the table.

    Raises:
        UsageError: There is no such recipe, or the data cannot be used.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe {name}: choose from {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    out.mkdir(parents=True, exist_ok=True)
    shard_set, lines = out / f"{name}-set", out / f"{name}.jsonl"
    build_set(recipe, data, shard_set)
    space = space_for(recipe.model)
    count = configurations or recipe.configurations
    line_file.remove_incomplete_line(lines, b"{")
    rows: list[Recorded] = (
        [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    )
    finished = {(row["configuration"], row["seed"]) for row in rows}
    wanted = [(number, seed) for seed in range(SEEDS) for number in range(REPEATED if seed else count)]
    tasks = [
        (number, seed, space.point(number, 0) if number else {**space.point(0, 0), **space.prior})
        for number, seed in wanted
        if number < count and (number, seed) not in finished
    ]
    pool = Pool(workers or environment.cores())
    try:
        with bar(total=len(tasks), desc=f"configurations of {name}", unit="row") as progress:
            for row in pool.map(tasks, setup, json.dumps(recipe._asdict()), str(shard_set)):
                line_file.append(lines, json.dumps(row).encode() + b"\n")
                rows.append(row)
                progress.update()
    finally:
        pool.close()
    clips, test_clips = Trainer(recipe, shard_set).clips()
    head = {
        "name": name, "model": recipe.model, "settings": recipe.settings, "epochs": recipe.epochs,
        "space": space.describe(), "val_clips": clips,
        "test_clips": test_clips, "environment": environment.environment(),
    }  # fmt: skip
    path = out / f"{name}.npz"
    curves.write(path, head, rows)
    return path
