"""Choice of a model (`train --model auto`) by a short training of each candidate on validation data."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.models.data.splits import folds
from shardwave.models.data.training_data import TrainingData
from shardwave.models.runs import result
from shardwave.models.training.config import CUTS, TrainConfig, defaults, score_text
from shardwave.models.training.fit import fit
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet

# Candidates, with the field that they need and the epochs of the short training. cnn-plus won on words and on
# speakers that were not heard before, mlp on notes and artists (docs/how-to.md).
CANDIDATES = {"mlp": ("features.npy", 20), "cnn-plus": ("npy", 10)}
MARGIN = 0.01  # by which cnn-plus must be better, as it takes longer to train and to predict


AUTO = "auto"


def resolve_model(
    model: str, set_path: Path | str, out: Path | str, options: dict[str, Any], *, resume: bool
) -> str:
    """Return the name of the model to train: for "auto" that of the resumed run, or else that of `choose`.

    Args:
        model: Name of a network, or "auto".
        set_path: Folder or URL of the set.
        out: Run folder.
        options: Fields of `TrainConfig`.
        resume: Whether to continue the run in `out`.
    """
    if model != AUTO:
        return model
    if resume and (Path(out) / result.RESULT).exists():
        return result.read(out)["model"]
    if options.get("devices", 1) * options.get("nodes", 1) > 1:
        raise UsageError("--model auto chooses on one device: name a model to train on several")
    return choose(set_path, options)


def choose(set_path: Path | str, options: dict[str, Any]) -> str:
    """Return the model for a set, and say why.

    The candidates whose field the set has are trained for a few epochs with the given options and compared by
    the validation score that selects the epoch. With `folds="all"`, the first fold is not used, and the
    second one validates.

    Args:
        set_path: Folder or URL of the set.
        options: Fields of `TrainConfig` for the training that follows.

    Raises:
        UsageError: The set has neither images nor features, or does not fit the options.
    """
    shard_set = open_set(set_path)
    possible = [name for name, (field, _) in CANDIDATES.items() if field in shard_set.fields]
    if not possible:
        raise UsageError(f"--model auto: {shard_set.location} has neither images nor features: name a model")
    chosen_cut = next((name for name in (*CUTS, "random_slices") if options.get(name) is not None), None)
    if chosen_cut is not None and "cnn-plus" in possible:
        say(f"--model auto: cnn-plus, as {chosen_cut} changes images, which mlp does not take")
        return "cnn-plus"
    if len(possible) == 1:
        lacking = next(name for name in CANDIDATES if name not in possible)
        field = CANDIDATES[lacking][0]
        say(f"--model auto: {possible[0]}, as {shard_set.location} lacks the {field} of {lacking}")
        return possible[0]
    values: dict[str, float] = {}
    texts = []
    for name in possible:
        config = _short(name, options, shard_set)
        begin = time.perf_counter()
        values[name] = fit(TrainingData(set_path, config), config).value
        seconds = time.perf_counter() - begin
        score = score_text(values[name], config.select_metric)
        texts.append(f"{name} {score} after {config.epochs} epochs in {seconds:.1f} s")
    chosen = "cnn-plus" if values["cnn-plus"] > values["mlp"] + MARGIN else "mlp"
    why = (
        "the better one" if values[chosen] == max(values.values()) else "the faster one of two that are equal"
    )
    say(f"--model auto: {'; '.join(texts)}: {chosen} is taken, {why}")
    return chosen


def _short(name: str, options: dict[str, Any], shard_set: ShardSet) -> TrainConfig:
    """Return the settings of the short training of a candidate."""
    epochs = CANDIDATES[name][1]
    config = defaults(name, **{**options, "epochs": min(epochs, options.get("epochs") or epochs)})
    if config.folds == "all":
        return dataclasses.replace(config, folds=None, test_fold=folds(shard_set.splits)[0])
    return config
