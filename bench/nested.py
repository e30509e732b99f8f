"""Cross-validation with a search in each round, which does not use the fold that is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shardwave.models.data.splits import folds, next_fold
from shardwave.models.runs.records import RunResult
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.crossval import cross_validate
from shardwave.search.config import SearchConfig
from shardwave.search.run import search
from shardwave.search.space import Choice, Dimension, LogUniform, Uniform
from shardwave.shards.read.open_set import open_set

TRIALS = 16  # per round
SPACE: dict[str, Dimension] = {  # around the defaults of mlp, which were chosen on features
    "hidden_layers": Choice((1, 2)),
    "hidden_size": Choice((256, 512, 1024)),
    "dropout": Uniform(0.2, 0.7),
    "learning_rate": LogUniform(5e-4, 5e-3),
    "weight_decay": LogUniform(1e-3, 0.3),
    "label_smoothing": Choice((0.0, 0.1, 0.2)),
}


def nested_cross_validate(
    set_path: Path | str, config: TrainConfig, out: Path, *, trials: int = TRIALS, command: str = "accuracy"
) -> RunResult:
    """Cross-validate a model whose settings are searched anew in each round.

    In the round of fold k of n, the search trains without fold k and validates on fold k mod n + 1. The best
    settings then replace those of `config` in the round, see `cross_validate`. An interrupted run continues.

    Args:
        set_path: Folder or URL of a set with three folds or more.
        config: Training settings, of which `SPACE` is searched.
        out: Run folder.
        trials: Trials of each search.
        command: Name of the command in result.json.

    Returns:
        The content of result.json, see `cross_validate`.
    """
    present = folds(open_set(set_path).splits)

    def chosen(fold: int) -> dict[str, Any]:
        settings = SearchConfig(
            config.model, "optuna", trials=trials, epochs=config.epochs, jobs=1, space=SPACE,
            inputs=config.inputs, val_fold=next_fold(present, fold), test_fold=fold,
            train_view=config.train_view, seed=config.seed, device=config.device,
        )  # fmt: skip
        result = search(set_path, settings, out.with_name(f"{out.name}-search-{fold}"), resume=True)
        return {name: value for name, value in (result["params"] or {}).items() if name in SPACE}

    return cross_validate(set_path, config, out, resume=True, command=command, chosen=chosen)
