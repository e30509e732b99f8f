"""What a training is told: one frozen dataclass, and each model's defaults. Imports neither torch nor lightning."""

from __future__ import annotations

import dataclasses
from typing import Any

from shardwave.common.errors import UsageError, require
from shardwave.models.networks.registry import NETWORKS, find

TRAIN_VIEWS = ("auto", "slice", "full", "both")
SCORES = ("full", "slice_mean")
SELECT_BY = ("auto", *SCORES)
SCHEDULES = ("none", "one-cycle")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
DEVICES = ("auto", "cpu", "cuda")
MODEL_FIELDS = (
    "batch_size", "hidden_size", "dropout", "learning_rate", "weight_decay", "conv1_kernel", "conv2_kernel", "conv1_channels",
    "conv2_channels", "hidden_layers",
)  # fmt: skip
REGULARISERS = ("label_smoothing", "mixup", "time_shift", "frequency_mask", "time_mask", "average_decay", "schedule")

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "schedule": SCHEDULES, "train_view": TRAIN_VIEWS, "select_by": SELECT_BY, "device": DEVICES,
    "precision": PRECISIONS, "folds": (None, "all"),
}  # fmt: skip
_WHOLE = {  # the least value
    "epochs": 1, "batch_size": 1, "hidden_size": 1, "hidden_layers": 0, "conv1_kernel": 1, "conv2_kernel": 1,
    "conv1_channels": 1, "conv2_channels": 1, "devices": 1, "nodes": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training. `config.defaults(model)` gives each model's own starting values; images mask and shift only for the CNNs."""

    model: str  # a name of `models.networks.registry`
    epochs: int = 10  # the schedule is laid out over these
    stop_after: int | None = None  # epochs; stop there though the schedule is longer (retraining for a chosen number of epochs)
    batch_size: int = 32  # samples, over all devices of all nodes together
    hidden_size: int = 128  # width of each hidden layer
    hidden_layers: int = 2
    dropout: float = 0.3  # after each hidden layer
    learning_rate: float = 1e-3  # AdamW; the peak where there is a schedule
    weight_decay: float = 1e-4  # AdamW's, on weights and not on biases and norms
    conv1_kernel: int = 5  # pixels, square
    conv2_kernel: int = 5
    conv1_channels: int = 16  # cnn-plus: the first block's, doubled with each block
    conv2_channels: int = 32
    label_smoothing: float = 0.0  # Szegedy et al. 2016
    mixup: float = 0.0  # alpha of Beta(alpha, alpha), Zhang et al. 2018; 0 = off
    time_shift: bool = False  # images rolled along time by a random amount
    frequency_mask: float = 0.0  # widest band masked (SpecAugment, Park et al. 2019), fraction of the image's height
    time_mask: float = 0.0  # likewise of its width
    average_decay: float = 0.0  # exponential moving average of weights, per step; 0 = off
    schedule: str = "none"  # one of SCHEDULES
    train_view: str = "auto"  # one of TRAIN_VIEWS; auto: that of the model where there are slices, else full
    select_by: str = "auto"  # one of SELECT_BY; auto: what matches train_view
    val_fold: int | None = None  # validate on this fold
    test_fold: int | None = None  # hold this one out
    folds: str | None = None  # "all": each fold as test in turn
    seed: int = 0
    device: str = "auto"  # one of DEVICES
    devices: int = 1  # how many, on each node; several by Lightning's strategy
    nodes: int = 1  # machines, on each of which the program is started
    strategy: str = "auto"  # Lightning's name
    precision: str = "32-true"  # one of PRECISIONS
    weights: str = "default"  # vgg16: default (torchvision's), none, or a file
    field: str | None = None  # of an own network: the array field of the samples that it takes; None: npy
    network_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # keyword arguments of an own network

    def __post_init__(self) -> None:
        find(self.model)
        if ":" not in self.model and (self.field or self.network_options):
            raise UsageError(f"field and network_options are for own networks, not for model {self.model}")
        for name, choices in _CHOICES.items():
            rule = f"one of {', '.join(str(choice) for choice in choices if choice)}"
            require(getattr(self, name) in choices, f"{name} must be {rule}", getattr(self, name))
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(whole and value >= least, f"{name} must be a whole number, {least} or more", value)
        require(
            self.stop_after is None or 1 <= self.stop_after <= self.epochs,
            "stop_after must lie between 1 and epochs",
            self.stop_after,
        )
        for name in ("dropout", "label_smoothing", "frequency_mask", "time_mask", "average_decay"):
            require(0 <= getattr(self, name) < 1, f"{name} must lie between 0 and 1 (1 excluded)", getattr(self, name))
        require(self.learning_rate > 0, "learning_rate must be positive", self.learning_rate)
        for name in ("weight_decay", "mixup", "seed"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("val_fold", "test_fold"):
            require((getattr(self, name) or 0) >= 0, f"{name} must be 0 or more", getattr(self, name))
        if self.folds == "all" and (self.val_fold, self.test_fold) != (None, None):
            raise UsageError("folds all takes each fold in turn: give it without --val-fold and --test-fold")
        if self.folds == "all" and self.devices * self.nodes > 1:
            raise UsageError("folds all trains one fold after another on one device: give it without --devices and --nodes")
        if self.test_fold is not None and self.test_fold == self.val_fold:
            raise UsageError(f"val_fold and test_fold must differ, got {self.val_fold} for both")

    def params(self) -> dict[str, Any]:
        """Hyper-parameters under their option names, as result.json stores them."""
        return {**{name: getattr(self, name) for name in (*MODEL_FIELDS, *REGULARISERS)}, **self.network_options}


def defaults(model: str, **changes: Any) -> TrainConfig:
    """The model's default training with `changes` applied; an unknown option raises UsageError."""
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(TrainConfig)})
    if unknown:
        raise UsageError(f"unknown training option {unknown[0]}: choose from {', '.join(sorted((*MODEL_FIELDS, *REGULARISERS)))}")
    return TrainConfig(**{"model": model, **find(model).defaults, **changes})


def field_of(config: TrainConfig) -> str:
    """Return the array field of the samples that the model takes."""
    return config.field or find(config.model).field


def defaults_table() -> list[list[str]]:
    """Return each model's defaults as text: a head row of models, then a row per option; "-" where a model does not use it."""
    rows = [["", *NETWORKS], ["--train-view", *(spec.train_view for spec in NETWORKS.values())]]
    for name in ("epochs", *MODEL_FIELDS, *REGULARISERS):
        values = [getattr(defaults(model), name) for model in NETWORKS]
        shown = [{True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}" for value in values]
        cells = ["-" if name in spec.unused else text for spec, text in zip(NETWORKS.values(), shown, strict=True)]
        rows.append([f"--{name.replace('_', '-')}", *cells])
    return rows
