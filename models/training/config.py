"""Training settings and the default values of each model.

The command line imports this module, so it imports neither torch nor lightning.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from shardwave.common.errors import UsageError, require
from shardwave.models.networks.registry import BACKBONES, NETWORKS, find

TRAIN_VIEWS = ("auto", "slice", "full", "both")
SCORES = ("full", "slice_mean")
SELECT_BY = ("auto", *SCORES)
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "loss")  # that can select the epoch
CLASS_WEIGHTS = ("none", "balanced")
SCHEDULES = ("none", "one-cycle")
WARM_UP = 0.2  # fraction of the steps of a one-cycle schedule in which the learning rate rises
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
DEVICES = ("auto", "cpu", "cuda")
LOGGERS = ("tensorboard", "mlflow", "wandb", "csv")
VECTORS = "features.npy"  # field of the networks that take vectors
MODEL_FIELDS = (
    "batch_size", "hidden_size", "dropout", "learning_rate", "weight_decay", "conv1_kernel", "conv2_kernel",
    "conv1_channels", "conv2_channels", "hidden_layers",
)  # fmt: skip
CUTS = ("slices", "slice_seconds", "image_size")  # choices of the views of a set of strips
REGULARISERS = (
    "label_smoothing",
    "mixup",
    "mix_powers",
    "random_gain",
    "random_slices",
    "slice_stretch",
    "time_shift",
    "frequency_mask",
    "time_mask",
    "ema_decay",
    "schedule",
)

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "schedule": SCHEDULES, "train_view": TRAIN_VIEWS, "select_by": SELECT_BY, "device": DEVICES,
    "precision": PRECISIONS, "folds": (None, "all"), "select_metric": METRICS, "class_weights": CLASS_WEIGHTS,
    "logger": (None, *LOGGERS),
}  # fmt: skip
_MINIMA = {  # of integer fields
    "epochs": 1, "batch_size": 1, "hidden_size": 1, "hidden_layers": 0, "conv1_kernel": 1, "conv2_kernel": 1,
    "conv1_channels": 1, "conv2_channels": 1, "devices": 1, "nodes": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one training. `defaults(model)` returns them with the default values of a model.

    The values are checked when the object is built; an invalid one raises `UsageError`.

    Args:
        model: Name of a network (see `shardwave.models.networks.registry`), or "module:function" of an own
            network.
        epochs: Passes over the training data. The learning rate schedule spans all of them.
        stop_after: Number of epochs after which training stops, at most `epochs`; None trains all epochs. The
            schedule still spans `epochs`.
        batch_size: Samples per training step, summed over all devices of all nodes.
        hidden_size: Width of each hidden layer.
        hidden_layers: Number of hidden layers.
        dropout: Dropout probability after each hidden layer; of `cnn-plus`, before the output layer.
        learning_rate: Learning rate of AdamW; the peak value if `schedule` is not "none".
        weight_decay: Weight decay of AdamW, applied to weights, not to biases and normalisation parameters.
        conv1_kernel: Side of the square kernel of the first convolution, in pixels.
        conv2_kernel: Side of the square kernel of the second convolution, in pixels.
        conv1_channels: Output channels of the first convolution; `cnn-plus` doubles them in each block.
        conv2_channels: Output channels of the second convolution.
        label_smoothing: Label smoothing (Szegedy et al. 2016), from 0 to below 1.
        mixup: Alpha of the distribution Beta(alpha, alpha) of mixup (Zhang et al. 2018); 0 disables it.
        mix_powers: Fraction of the training images that are mixed with another one of the batch, as the sum
            of their powers with a ratio of its own (between-class learning, Tokozume et al. 2018); 0 disables
            it.
        random_gain: Maximum gain in dB, positive or negative, that is added to each training image; 0
            disables it.
        random_slices: Whether each epoch draws the starts of the training slices anew; for sets of strips.
        slice_stretch: Least and greatest factor of the length of a random slice, as "0.8,1.25"; "1,1" keeps
            the length.
        time_shift: Whether to roll each training image along time by a random amount.
        frequency_mask: Maximum height of the frequency mask (SpecAugment, Park et al. 2019), as a fraction of
            the image height.
        time_mask: Maximum width of the time mask (SpecAugment, Park et al. 2019), as a fraction of the image
            width.
        ema_decay: Decay per step of the exponential moving average of the weights, which is then scored and
            saved in place of the weights; 0 disables it.
        schedule: Learning rate schedule, "none" or "one-cycle".
        train_view: View of the training samples: "slice", "full", "both", or "auto": the view of the model's
            `NetworkSpec` if the set has slices, otherwise "full".
        select_by: Score that selects the epoch: "full", "slice_mean", or "auto": "full" if `train_view` is
            "full", otherwise "slice_mean".
        select_metric: Metric that selects the epoch: "accuracy", "balanced_accuracy", "macro_f1" or "loss".
        class_weights: Weights of the classes in the loss: "none", or "balanced": the inverse of the number of
            samples.
        balanced_sampler: Whether an epoch has the same number of samples of every class: samples of small
            classes are repeated, others are left out in turn.
        val_fold: Number of the fold used for validation.
        test_fold: Number of the fold held out for testing.
        folds: "all" cross-validates: each fold is tested once. None trains once.
        seed: Seed of the initial weights, the sample order, dropout and augmentation.
        device: "auto", "cpu" or "cuda".
        devices: Number of devices on each node.
        nodes: Number of machines; the program is started on each of them.
        strategy: Name of Lightning's strategy for several devices.
        precision: Name of Lightning's precision, or "auto": "bf16-mixed" (bfloat16 autocast, float32 weights)
            on a GPU that computes in bfloat16, otherwise "32-true".
        backbone: Frozen image network of the model `transfer`, one of `BACKBONES`; None: "vgg16".
        weights: Weights of the frozen image network: "default" (the published ones), "none" (untrained) or a
            file.
        slices: Number of equal slices of a clip of a set of strips; None: that of the set.
        slice_seconds: Length of a slice of a set of strips in seconds, in place of `slices`; None: that of
            the set.
        image_size: Width of the images of a set of strips in pixels; None: their height.
        inputs: Vector fields of `mlp`, concatenated in this order: `features` and names of embeddings,
            separated by commas. None: `features`.
        logger: Experiment tracker that receives the scores of each epoch, one of `LOGGERS`; None: no tracker.
        field: Array field of the samples that an own network takes; None: "npy".
        network_options: Keyword arguments of an own network.
    """

    model: str
    epochs: int = 10
    stop_after: int | None = None
    batch_size: int = 32
    hidden_size: int = 128
    hidden_layers: int = 2
    dropout: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    conv1_kernel: int = 5
    conv2_kernel: int = 5
    conv1_channels: int = 16
    conv2_channels: int = 32
    label_smoothing: float = 0.0
    mixup: float = 0.0
    mix_powers: float = 0.0
    random_gain: float = 0.0
    random_slices: bool = False
    slice_stretch: str = "1,1"
    time_shift: bool = False
    frequency_mask: float = 0.0
    time_mask: float = 0.0
    ema_decay: float = 0.0
    schedule: str = "none"
    train_view: str = "auto"
    select_by: str = "auto"
    select_metric: str = "accuracy"
    class_weights: str = "none"
    balanced_sampler: bool = False
    val_fold: int | None = None
    test_fold: int | None = None
    folds: str | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    backbone: str | None = None
    weights: str = "default"
    slices: int | None = None
    slice_seconds: float | None = None
    image_size: int | None = None
    inputs: str | None = None
    logger: str | None = None
    field: str | None = None
    network_options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        find(self.model)
        if ":" not in self.model and (self.field or self.network_options):
            raise UsageError(
                f"field and network_options apply to own networks only, not to model {self.model}: "
                "remove them"
            )
        if self.backbone is not None and self.model != "transfer":
            raise UsageError(f"backbone is for the model transfer, not for {self.model}: remove it")
        require(
            self.backbone in (None, *BACKBONES),
            f"backbone must be one of {', '.join(BACKBONES)}",
            self.backbone,
        )
        if self.inputs is not None:
            if find(self.model).field != VECTORS:
                raise UsageError(
                    f"inputs selects the vector fields of mlp, not of model {self.model}: remove it"
                )
            names = self.inputs.split(",")
            valid = all(re.fullmatch("[a-z0-9_]+", name) for name in names) and len(set(names)) == len(names)
            require(
                valid,
                "inputs must be different names separated by commas, such as features,aisfx",
                self.inputs,
            )
        for name, choices in _CHOICES.items():
            rule = f"one of {', '.join(str(choice) for choice in choices if choice)}"
            require(getattr(self, name) in choices, f"{name} must be {rule}", getattr(self, name))
        for name, minimum in _MINIMA.items():
            value = getattr(self, name)
            is_integer = isinstance(value, int) and not isinstance(value, bool)
            require(is_integer and value >= minimum, f"{name} must be an integer, {minimum} or more", value)
        require(
            self.stop_after is None or 1 <= self.stop_after <= self.epochs,
            "stop_after must be between 1 and epochs",
            self.stop_after,
        )
        for name in ("dropout", "label_smoothing", "frequency_mask", "time_mask", "ema_decay"):
            require(
                0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1", getattr(self, name)
            )
        require(self.learning_rate > 0, "learning_rate must be positive", self.learning_rate)
        self._check_images()
        for name in ("weight_decay", "mixup", "random_gain", "seed"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("val_fold", "test_fold"):
            require((getattr(self, name) or 0) >= 0, f"{name} must be 0 or more", getattr(self, name))
        if self.class_weights == "balanced" and self.balanced_sampler:
            raise UsageError(
                "--class-weights balanced and --balanced-sampler correct the same: use one of them"
            )
        if self.folds == "all" and (self.val_fold, self.test_fold) != (None, None):
            raise UsageError("--folds all tests every fold: use it without --val-fold and --test-fold")
        if self.folds == "all" and self.devices * self.nodes > 1:
            raise UsageError("--folds all trains on one device: use it without --devices and --nodes")
        if self.test_fold is not None and self.test_fold == self.val_fold:
            raise UsageError(f"val_fold and test_fold must differ, got {self.val_fold} for both")

    def _check_images(self) -> None:
        """Raise UsageError for invalid choices of slices, image size and mixing."""
        require(0 <= self.mix_powers <= 1, "mix_powers must lie between 0 and 1", self.mix_powers)
        if self.mix_powers and self.mixup:
            raise UsageError(f"mix_powers and mixup {self.mixup:g} both mix samples: use --mixup 0 with it")
        low, high = self.stretch
        require(
            0.1 <= low <= high <= 10,
            "slice_stretch must be two ascending factors from 0.1 to 10",
            self.slice_stretch,
        )
        if (low, high) != (1.0, 1.0) and not self.random_slices:
            raise UsageError("slice_stretch changes the length of random slices: use it with --random-slices")
        if self.slices is not None and self.slice_seconds is not None:
            raise UsageError("slice_seconds replaces slices: use one of them")
        chosen = [name for name in (*CUTS, "random_slices") if getattr(self, name) not in (None, False)]
        if chosen and (self.inputs is not None or find(self.model).field == VECTORS):
            raise UsageError(
                f"{chosen[0]} changes images, and model {self.model} takes vectors of the slices of the "
                "build: remove it, or use a network of images"
            )
        if self.random_slices and backbone_of(self) is not None:
            raise UsageError(
                f"random_slices changes the images in each epoch, and model {self.model} stores the outputs "
                "of its frozen part once: remove it, or use cnn or cnn-plus"
            )
        if self.random_slices and self.train_view == "full":
            raise UsageError("random_slices needs slices to train on: use it with --train-view slice or both")

    @property
    def stretch(self) -> tuple[float, float]:
        """The factors of `slice_stretch`.

        Raises:
            UsageError: They are not two numbers.
        """
        try:
            low, high = map(float, self.slice_stretch.split(","))
        except ValueError:
            raise UsageError(
                f"slice_stretch must be two factors such as 0.8,1.25, got {self.slice_stretch}"
            ) from None
        return low, high

    def params(self) -> dict[str, Any]:
        """Return the hyper-parameters by field name, as result.json stores them."""
        return {
            **{name: getattr(self, name) for name in (*MODEL_FIELDS, *REGULARISERS)},
            **{name: getattr(self, name) for name in (*CUTS, "inputs") if getattr(self, name) is not None},
            **self.network_options,
        }


def defaults(model: str, **changes: Any) -> TrainConfig:
    """Return the default settings of a model.

    Args:
        model: Name of a network, or "module:function" of an own network.
        **changes: Fields of `TrainConfig` with the values that replace the defaults.

    Raises:
        UsageError: The model, a field or a value is invalid.
    """
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(TrainConfig)})
    if unknown:
        choices = ", ".join(sorted((*MODEL_FIELDS, *REGULARISERS)))
        raise UsageError(f"unknown training option {unknown[0]}: choose from {choices}")
    if changes.get("mix_powers"):
        changes = {"mixup": 0.0, **changes}  # in place of the default mixup of the model
    return TrainConfig(**{"model": model, **find(model).defaults, **changes})


def score_text(value: float, select_metric: str) -> str:
    """Return a validation score with the name of its metric, as in "87.5 % validation accuracy".

    Args:
        value: Score that selects an epoch or a trial; higher is better, a loss is negative.
        select_metric: One of `METRICS`.
    """
    if select_metric == "loss":
        return f"{-value:.4g} validation loss"
    return f"{100 * value:.1f} % validation {select_metric.replace('_', ' ').replace('f1', 'F1')}"


def backbone_of(config: TrainConfig) -> str | None:
    """Return the name of the frozen image network of the model; None if it has none."""
    return (config.backbone or "vgg16") if config.model in ("vgg16", "transfer") else None


def field_of(config: TrainConfig) -> str:
    """Return the array field that the model takes as its input; several fields are joined by `+`."""
    if config.inputs is not None:
        return "+".join(f"{name}.npy" for name in config.inputs.split(","))
    return config.field or find(config.model).field


def defaults_table() -> list[list[str]]:
    """Return the default values of all models as a table of text.

    The first row holds the names of the models, each other row one option; "-" marks an option that a model
    ignores.
    """
    rows = [["", *NETWORKS], ["--train-view", *(spec.train_view for spec in NETWORKS.values())]]
    for name in ("epochs", *MODEL_FIELDS, *REGULARISERS):
        values = [getattr(defaults(model), name) for model in NETWORKS]
        texts = [
            {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}" for value in values
        ]
        cells = [
            "-" if name in spec.unused else text for spec, text in zip(NETWORKS.values(), texts, strict=True)
        ]
        rows.append([f"--{name.replace('_', '-')}", *cells])
    return rows
