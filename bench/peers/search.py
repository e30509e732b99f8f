"""Searches as the documentation shows them: Ray Tune with a Lightning trainable, and Optuna with Lightning.

`python -m shardwave.bench.peers.search ray|optuna DATA.npz --out OUT --trials N --epochs N --jobs N --seed N`
runs one search in a fresh process. DATA holds train_x, train_y, val_x, val_y and classes. OUT/trials.jsonl
holds for every trial the values, the time of each value and the seconds spent in epochs, in the fields of our
trials.jsonl.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any, TypedDict

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Config = dict[str, Any]  # hyper-parameters, of Ray also the data and the number of epochs


class StockTrial(TypedDict):
    """Fields of a line of trials.jsonl, see `row`."""

    values: list[float]
    times: list[float]
    start: float
    spent: dict[str, float]


class Mlp(pl.LightningModule):
    """Two hidden layers of equal width on standardised features, cross-entropy, AdamW."""

    def __init__(self, config: Config, features: int, classes: int) -> None:
        super().__init__()
        width, dropout = config["hidden_size"], config["dropout"]
        self.config = config
        self.network = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, classes),
        )  # fmt: skip

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self.network(x), y)

    def validation_step(self, batch: Any, index: int) -> None:
        """Log the loss and the accuracy of a batch."""
        x, y = batch
        logits = self.network(x)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))
        self.log("val_accuracy", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.AdamW(
            self.parameters(), lr=self.config["learning_rate"], weight_decay=self.config["weight_decay"]
        )


class EpochTime(pl.Callback):
    """Callback that records the seconds spent in epochs, and the score and Unix time of each epoch."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0
        self.values: list[float] = []
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = time.time()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Record the epoch."""
        if not trainer.sanity_checking:
            self.seconds += time.time() - self._began
            self._began = time.time()
            self.values.append(float(trainer.callback_metrics["val_accuracy"]))
            self.times.append(self._began)


def row(values: list[float], times: list[float], seconds: float) -> StockTrial:
    """Return a trial as a line of trials.jsonl.

    Args:
        values: Score of each epoch.
        times: Unix time of each score.
        seconds: Seconds spent in epochs.
    """
    return {"values": values, "times": times, "start": 0.0, "spent": {"step": seconds}}


def loaders(path: str, batch_size: int) -> tuple[DataLoader, DataLoader, int, int]:
    """Return the training loader, the validation loader, the number of features and the number of classes."""
    data = np.load(path)
    sets = {
        part: TensorDataset(torch.from_numpy(data[f"{part}_x"]), torch.from_numpy(data[f"{part}_y"]))
        for part in ("train", "val")
    }
    train = DataLoader(sets["train"], batch_size=batch_size, shuffle=True)
    return train, DataLoader(sets["val"], batch_size=256), data["train_x"].shape[1], int(data["classes"])


def train_ray(config: Config) -> None:
    """Train one configuration, as in Ray's guide for Lightning."""
    from ray.tune.integration.pytorch_lightning import TuneReportCheckpointCallback

    train, val, features, classes = loaders(config["data"], config["batch_size"])
    timer = EpochTime()

    class Report(TuneReportCheckpointCallback):
        def _get_report_dict(self, trainer: Any, module: Any) -> Any:
            report = super()._get_report_dict(trainer, module)
            return report and {**report, "busy": timer.seconds, "at": time.time()}

    callbacks = [timer, Report({"accuracy": "val_accuracy"}, on="validation_end")]
    trainer = pl.Trainer(
        max_epochs=config["epochs"],
        accelerator="auto",
        devices=1,
        enable_progress_bar=False,
        callbacks=callbacks,
    )
    trainer.fit(Mlp(config, features, classes), train, val)


def search_ray(data: str, trials: int, epochs: int, jobs: int, seed: int, folder: Path) -> list[StockTrial]:
    """Run `Tuner(...).fit()` with ASHA and one CPU per trial.

    Args:
        data: File of the arrays.
        trials: Number of trials.
        epochs: Largest number of epochs of a trial.
        jobs: CPUs, and so trials at the same time.
        seed: Seed of the search.
        folder: Folder of Ray's results.
    """
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    ray.init(num_cpus=jobs, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    space = {
        "batch_size": tune.choice([16, 32, 64]),
        "hidden_size": tune.choice([64, 128, 256, 512]),
        "dropout": tune.uniform(0.0, 0.6),
        "learning_rate": tune.loguniform(1e-4, 1e-2),
        "weight_decay": tune.loguniform(1e-6, 1e-2),
        "data": data,
        "epochs": epochs,
    }
    np.random.seed(seed)
    scheduler = ASHAScheduler(max_t=epochs, grace_period=1, reduction_factor=3)
    tuner = tune.Tuner(
        tune.with_resources(train_ray, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=trials, scheduler=scheduler),
        run_config=tune.RunConfig(name="stock", storage_path=str(folder), verbose=0),
    )
    results = tuner.fit()
    frames = [results[number].metrics_dataframe for number in range(len(results))]
    ray.shutdown()
    return [
        row(frame["accuracy"].tolist(), frame["at"].tolist(), float(frame["busy"].iloc[-1]))
        for frame in frames
        if frame is not None
    ]


def search_optuna(
    data: str, trials: int, epochs: int, jobs: int, seed: int, folder: Path
) -> list[StockTrial]:
    """Run `study.optimize` with TPE, successive halving and the callback of Optuna's Lightning example.

    Args:
        data: File of the arrays.
        trials: Number of trials.
        epochs: Largest number of epochs of a trial.
        jobs: Threads, and so trials at the same time.
        seed: Seed of the search.
        folder: Folder of Lightning's files.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[StockTrial] = []

    class Pruning(pl.Callback):
        def __init__(self, trial: optuna.Trial) -> None:
            self.trial = trial

        def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            if not trainer.sanity_checking:
                self.trial.report(float(trainer.callback_metrics["val_accuracy"]), trainer.current_epoch)
                if self.trial.should_prune():
                    raise optuna.TrialPruned

    def objective(trial: optuna.Trial) -> float:
        config: Config = {
            "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64]),
            "hidden_size": trial.suggest_categorical("hidden_size", [64, 128, 256, 512]),
            "dropout": trial.suggest_float("dropout", 0.0, 0.6),
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
        }
        train, val, features, classes = loaders(data, config["batch_size"])
        timer = EpochTime()
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="auto", devices=1, enable_checkpointing=False,
            default_root_dir=str(folder),
            enable_progress_bar=False, callbacks=[timer, Pruning(trial)],
        )  # fmt: skip
        try:
            trainer.fit(Mlp(config, features, classes), train, val)
        finally:
            rows.append(row(timer.values, timer.times, timer.seconds))
        return float(trainer.callback_metrics["val_accuracy"])

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    study.optimize(objective, n_trials=trials, n_jobs=jobs)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("ray", "optuna"))
    parser.add_argument("data")
    parser.add_argument("--out", type=Path)
    for name in ("trials", "epochs", "jobs", "seed"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    search = search_ray if options.kind == "ray" else search_optuna
    rows = search(options.data, options.trials, options.epochs, options.jobs, options.seed, options.out)
    (options.out / "trials.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
