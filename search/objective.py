"""Training of a model as the objective of a search.

Heavy imports are inside the functions because the main process does not train.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from shardwave.models.networks import registry
from shardwave.models.training.config import CUTS, TrainConfig
from shardwave.search.trial import Params, Report, TrialStopped
from shardwave.search.trial_log import KEPT
from shardwave.shards.storage import atomic

if TYPE_CHECKING:
    from shardwave.models.data.shared_copy import CopyKey
    from shardwave.models.data.training_data import TrainingData
    from shardwave.models.training.fit import FitResult
    from shardwave.models.training.learner import Batch


@dataclasses.dataclass
class TrainingObjective:
    """Objective that trains a model with the hyper-parameters of a trial.

    Trial n is trained with the seed config.seed + n. Each process opens the shard set once. It keeps the
    checkpoint of every trial that is better than all earlier trials of the process in
    `<folder>/kept/trial-<n>.ckpt`, with the history of the training in `trial-<n>.json`; so the best trial of
    the search is kept. The main process removes the others, see `outcome.remove_superseded`.

    Attributes:
        path: Path or URL of the shard set.
        config: Settings that all trials share.
        folder: The run folder; None: no checkpoints are kept.
        fused: Train with `shardwave.search.fused` if it supports the trial, else with
            `shardwave.models.training.fit`.
    """

    path: Path | str
    config: TrainConfig
    folder: Path | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        self._data: dict[tuple[object, ...], TrainingData] = {}  # by inputs, slices and image size
        self.shared: Callable[[CopyKey], Batch | None] | None = None  # see `Objective`
        self.store: Callable[[str, bytes], None] | None = None  # see `Objective`
        self._kept: tuple[float, int] | None = None  # value and negative number of the kept trial

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules to import before the workers are forked; some compile functions on import."""
        return (
            "shardwave.models.training.fit",
            "shardwave.shards.read.gather",
            *(("shardwave.search.fused.mlp",) if self.fused else ()),
        )

    @property
    def threads(self) -> int | None:
        """CPU threads per trial: 1 for mlp, whose steps are too short for two threads; else None."""
        return 1 if self.config.model == "mlp" else None

    @property
    def terms(self) -> dict[str, object]:
        """Settings that must be equal on all machines of a study, by name."""
        from shardwave.models.runs.clip_table import name_list
        from shardwave.shards.read.open_set import open_set

        shard_set = open_set(self.path)
        clips = {split: shard_set.clips_of(split) for split in shard_set.splits}
        names = (
            *("model", "train_view", "select_by", "select_metric", "class_weights", "balanced_sampler"),
            *(
                "val_fold",
                "test_fold",
                "precision",
                "seed",
                "inputs",
                *CUTS,
                "random_slices",
                "slice_stretch",
            ),
        )
        return {
            "set id": shard_set.set_id,
            "fingerprint": shard_set.fingerprint,
            "classes": name_list(shard_set.classes),
            "clips by split": clips,
            **{name: getattr(self.config, name) for name in names},
        }

    def prepare(self) -> None:
        """Open the shard set."""
        self.data  # noqa: B018

    @property
    def data(self) -> TrainingData:
        """The training data, opened on first use."""
        return self.data_of(self.config)

    def data_of(self, config: TrainConfig) -> TrainingData:
        """Return the training data of a trial, which differ from `data` if inputs or slices are searched."""
        own = {name: getattr(config, name) for name in ("inputs", *CUTS)}
        key = tuple(own.values())
        if key not in self._data:
            from shardwave.models.data.training_data import TrainingData

            shared = dataclasses.replace(self.config, **own)
            self._data[key] = TrainingData(self.path, shared, shared=self.shared)
        return self._data[key]

    def load_copy(self, key: CopyKey) -> Batch | None:
        """Return the tensors of a resident copy, see `shardwave.models.data.shared_copy.load`."""
        from shardwave.models.data import shared_copy
        from shardwave.models.data.training_data import resolve_device

        return shared_copy.load(key, resolve_device(self.config.device))

    def config_of(self, trial: int, params: Params) -> TrainConfig:
        """Return the settings of a trial; parameters unknown to `TrainConfig` become network options."""
        known = {field.name for field in dataclasses.fields(self.config)}
        unknown = {name: value for name, value in params.items() if name not in known}
        options = {**self.config.network_options, **unknown}
        changes = {name: value for name, value in params.items() if name in known}
        return dataclasses.replace(
            self.config, seed=self.config.seed + trial, network_options=options, **changes
        )

    def __getstate__(self) -> dict[str, object]:
        # workers cannot import a network that is defined in a notebook or script: pickle it by value
        state = {**self.__dict__, "_data": {}, "_kept": None, "shared": None, "store": None}
        network = registry.registered(self.config.model)
        return state if network is None else {**state, "_network": cloudpickle.dumps(network)}

    def __setstate__(self, state: dict[str, object]) -> None:
        network = state.pop("_network", None)
        self.__dict__.update(state)
        if isinstance(network, bytes):
            registry.register(cloudpickle.loads(network))

    def __call__(self, params: Params, report: Report) -> None:
        """Train one trial; `report.info` receives the number of parameters, the best epoch and its scores."""
        config = self.config_of(report.trial, params)
        report.info["parameters"] = self.parameters(config)
        progress = Progress(report)
        self.keep(report.trial, config, self.fit(config, progress))
        if progress.stopped is not None:
            raise progress.stopped

    def fit(self, config: TrainConfig, report: Progress | None = None) -> FitResult:
        """Train once with the settings `config`."""
        if self.fused and fusable(config):
            from shardwave.search.fused.mlp import fit
        else:
            from shardwave.models.training.fit import fit
        return fit(self.data_of(config), config, report=report)

    def parameters(self, config: TrainConfig) -> int:
        """Return the number of trainable parameters of the model that `config` describes."""
        import torch

        from shardwave.models.networks.base import parameters
        from shardwave.models.networks.build import build_model

        inputs = self.data_of(config).inputs
        with torch.device("meta"):  # allocates no memory
            return parameters(build_model(config, inputs))

    def keep(self, trial: int, config: TrainConfig, result: FitResult) -> None:
        """Keep the checkpoint if this trial is the best of this process so far.

        Args:
            trial: Number of the trial.
            config: Its training settings.
            result: Its result; the trials are ranked by `result.value`, equal ones by the lower number.
        """
        rank = (result.value, -trial)
        if self.folder is None or (self._kept is not None and rank <= self._kept):
            return
        if self.store is None:
            self._write(self.folder / KEPT, trial, config, result)
        else:
            with tempfile.TemporaryDirectory() as folder:
                self._write(Path(folder), trial, config, result)
                for suffix in ("json", "ckpt"):
                    path = Path(folder) / f"trial-{trial}.{suffix}"
                    self.store(path.name, path.read_bytes())
        self._kept = rank

    def _write(self, folder: Path, trial: int, config: TrainConfig, result: FitResult) -> None:
        """Write the files of a kept trial, the checkpoint last."""
        from shardwave.models.runs import checkpoint
        from shardwave.models.training.precision import resolved

        folder.mkdir(parents=True, exist_ok=True)
        data = self.data_of(config)
        description = checkpoint.describe(data, result.best_epoch)
        record = {
            "history": result.history,
            "selected": data.selected,
            "epoch": result.best_epoch,
            "parameters": self.parameters(config),
        }
        atomic.write_bytes(folder / f"trial-{trial}.json", json.dumps(record).encode())
        config = resolved(config, data.device)
        checkpoint.save(folder / f"trial-{trial}.ckpt", result.state_dict, data.inputs, config, description)


class Progress:
    """Callback of a training that forwards each epoch to a trial's `Report`.

    It stores the best epoch and its scores in `report.info`. The best epoch has the highest value and, of
    equal values, the lowest validation loss, as in `shardwave.models.training.history`.

    Attributes:
        stopped: The exception with which the report stopped the trial, or None.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._best: tuple[float, float] | None = None
        self.stopped: TrialStopped | None = None

    def __call__(self, epoch: int, value: float, scores: Mapping[str, Any]) -> bool:
        """Report an epoch.

        Args:
            epoch: Number of the epoch, from 1.
            value: Value to maximize.
            scores: Scores of the epoch; `seconds` holds the time so far by kind.

        Returns:
            Whether the training must stop.
        """
        rank = (value, -(scores.get("val_loss") or 0.0))
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
    """Return whether `shardwave.search.fused` supports `config`: perceptron, float32 or float64, no mixup."""
    plain = not config.mixup and config.train_view != "both" and config.class_weights == "none"
    exact = config.precision in ("auto", "32-true", "64-true")
    return config.model in ("mlp", "vgg16", "transfer") and plain and exact
