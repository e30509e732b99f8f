"""The training of a model as a search objective: data opened once per worker, the best trial's weights kept. Light until a
worker runs it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from shardwave.models.networks import registry
from shardwave.models.training.config import TrainConfig
from shardwave.search.trial import Report, TrialStopped

if TYPE_CHECKING:
    from shardwave.models.data.training_data import TrainingData
    from shardwave.models.training.fit import FitResult

KEPT = "kept"  # folder of the trials' checkpoints while a search runs


@dataclasses.dataclass
class TrainingObjective:
    """A training with a trial's hyper-parameters, by `shardwave.models.training.fit` or `shardwave.search.fused`; trial n trains with seed config.seed + n.

    `folder`: where the weights of the best trial of this process are kept (`kept/trial-<n>.ckpt`, its history beside it).
    `fused`: train with `shardwave.search.fused` what it can train. It is pickled to workers as these four fields; each worker opens the
    shard set by its path or URL.
    """

    path: Path | str
    config: TrainConfig
    folder: Path | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        self._data: TrainingData | None = None
        self._kept: tuple[float, int] | None = None  # value and minus the trial's number

    @property
    def modules(self) -> tuple[str, ...]:
        """See `Objective`; the last ones compile, or load what they compiled."""
        return (
            "shardwave.models.training.fit",
            "shardwave.shards.read.gather",
            *(("shardwave.search.fused.mlp",) if self.fused else ()),
        )

    @property
    def threads(self) -> int | None:
        """CPU threads that are of use to a trial: a small perceptron's steps are too short for a second one."""
        return 1 if self.config.model == "mlp" else None

    @property
    def terms(self) -> dict[str, Any]:
        """What all processes of a study must agree on: the set, the model, the folds, the score, the seed."""
        from shardwave.models.runs.clip_table import some
        from shardwave.shards.read.open_set import open_set

        shard_set = open_set(self.path)
        clips = {
            split: sum(shard["samples"] for shard in views.get("full", []))
            for split, views in shard_set.manifest["splits"].items()
        }
        names = ("model", "train_view", "select_by", "val_fold", "test_fold", "precision", "seed")
        return {
            "set id": shard_set.set_id,
            "fingerprint": shard_set.fingerprint,
            "classes": some(shard_set.classes),
            "clips by split": clips,
            **{name: getattr(self.config, name) for name in names},
        }

    def prepare(self) -> None:
        """Open the data."""
        self.data  # noqa: B018

    @property
    def data(self) -> TrainingData:
        if self._data is None:
            from shardwave.models.data.training_data import TrainingData

            self._data = TrainingData(self.path, self.config)
        return self._data

    def config_of(self, trial: int, params: dict[str, Any]) -> TrainConfig:
        """The training of trial number `trial`."""
        known = {field.name for field in dataclasses.fields(self.config)}
        own = {name: value for name, value in params.items() if name not in known}
        options = {**self.config.network_options, **own}
        changes = {name: value for name, value in params.items() if name in known}
        return dataclasses.replace(self.config, seed=self.config.seed + trial, network_options=options, **changes)

    def __getstate__(self) -> dict[str, Any]:
        """An own network of a notebook or script, which workers cannot import, is pickled with the objective."""
        state = {**self.__dict__, "_data": None, "_kept": None}
        network = registry.registered(self.config.model)
        return state if network is None else {**state, "_network": cloudpickle.dumps(network)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = state.pop("_network", None)
        self.__dict__.update(state)
        if network is not None:
            registry.register(cloudpickle.loads(network))

    def __call__(self, params: dict[str, Any], report: Report) -> None:
        """Train; see `Objective`. Tells the number of trainable parameters, the best epoch and its scores in `report.info`."""
        config = self.config_of(report.trial, params)
        report.info["parameters"] = self.parameters(config)
        progress = Progress(report)
        self.keep(report.trial, config, self.fit(config, progress))
        if progress.stopped is not None:
            raise progress.stopped

    def fit(self, config: TrainConfig, report: Progress | None = None) -> FitResult:
        """Train once."""
        if self.fused and fusable(config):
            from shardwave.search.fused.mlp import fit
        else:
            from shardwave.models.training.fit import fit
        return fit(self.data, config, report=report)

    def parameters(self, config: TrainConfig) -> int:
        """Trainable parameters of the model that `config` describes."""
        import torch

        from shardwave.models.networks.base import parameters
        from shardwave.models.networks.build import build_model

        with torch.device("meta"):  # shapes alone
            return parameters(build_model(config, self.data.inputs))

    def keep(self, trial: int, config: TrainConfig, result: FitResult) -> None:
        """Write a trial's weights if it is the best of this process so far, in place of the one before."""
        rank = (result.value, -trial)
        if self.folder is None or (self._kept is not None and rank <= self._kept):
            return
        from shardwave.models.runs import checkpoint

        folder = self.folder / KEPT
        folder.mkdir(parents=True, exist_ok=True)
        data = self.data
        about = checkpoint.describe(data, result.best_epoch)
        told = {
            "history": result.history,
            "selected": data.selected,
            "epoch": result.best_epoch,
            "parameters": self.parameters(config),
        }
        (folder / f"trial-{trial}.json").write_text(json.dumps(told))
        checkpoint.save(folder / f"trial-{trial}.ckpt", result.state_dict, data.inputs, config, about)
        if self._kept is not None:
            for suffix in ("ckpt", "json"):
                os.unlink(folder / f"trial-{-self._kept[1]}.{suffix}")
        self._kept = rank


class Progress:
    """A training's report, passed on to a trial's report; notes the best epoch and its scores in the trial's info.

    The best epoch has the highest value, of equals the lowest validation loss, as in `shardwave.models.training.history`.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._best: tuple[float, float] | None = None
        self.stopped: TrialStopped | None = None

    def __call__(self, epoch: int, value: float, scores: dict[str, Any]) -> bool:
        rank = (value, -scores.get("val_loss", 0.0))
        if self._best is None or rank > self._best:
            self._best = rank
            best = {name: score for name, score in scores.items() if isinstance(score, float)}
            self._report.info.update(best_epoch=epoch, scores=best)
        try:
            self._report(epoch, value, scores["seconds"])
        except TrialStopped as stopped:
            self.stopped = stopped
        return self.stopped is not None


def fusable(config: TrainConfig) -> bool:
    """Whether `shardwave.search.fused` can train this: a perceptron, without mixup (which works on a model's own batch)."""
    plain = not config.mixup and config.train_view != "both"
    return config.model in ("mlp", "vgg16") and plain and config.precision in ("32-true", "64-true")
