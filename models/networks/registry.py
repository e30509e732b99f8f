"""Networks by name. Imports no torch, since the command line reads it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shardwave.common import plugins
from shardwave.common.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., "nn.Module"]  # (shape of one input, number of classes, **options)
_IMAGE_OPTIONS = ("time_shift", "frequency_mask", "time_mask")
_CONVOLUTIONS = ("conv1_kernel", "conv2_kernel", "conv1_channels", "conv2_channels")


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network that can be trained by its name."""

    make: str | Callable[..., Any]  # (Inputs, TrainConfig) -> Network, or its "module:name"
    field: str = "npy"  # array field of the samples that it takes
    train_view: str = "slice"  # that `auto` stands for if the set has slices
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # values of TrainConfig that differ from its own
    unused: tuple[str, ...] = ()  # hyper-parameters that have no effect


# docs/defaults.md says what the defaults were compared with
NETWORKS: dict[str, NetworkSpec] = {
    "mlp": NetworkSpec(
        "shardwave.models.networks.mlp:Mlp",
        field="features.npy",
        train_view="full",
        defaults={
            "epochs": 60, "batch_size": 64, "hidden_size": 512, "dropout": 0.5, "learning_rate": 2e-3, "weight_decay": 0.05,
            "label_smoothing": 0.1, "schedule": "one-cycle",
        },
        unused=(*_CONVOLUTIONS, *_IMAGE_OPTIONS),
    ),
    "cnn": NetworkSpec(
        "shardwave.models.networks.cnn:Cnn",
        defaults={
            "epochs": 15, "dropout": 0.5, "weight_decay": 0.05, "label_smoothing": 0.1, "time_shift": True,
            "average_decay": 0.98, "schedule": "one-cycle",
        },
    ),
    "vgg16": NetworkSpec("shardwave.models.networks.vgg16:Vgg16Head", unused=(*_CONVOLUTIONS, *_IMAGE_OPTIONS)),
    "cnn-plus": NetworkSpec(
        "shardwave.models.networks.cnn_plus:CnnPlus",
        train_view="full",
        defaults={
            "epochs": 100, "conv1_kernel": 3, "conv1_channels": 32, "dropout": 0.2, "learning_rate": 3e-3, "weight_decay": 0.05,
            "label_smoothing": 0.1, "mixup": 0.3, "time_shift": True, "frequency_mask": 0.125, "time_mask": 0.1875,
            "average_decay": 0.98, "schedule": "one-cycle",
        },
        unused=("hidden_size", "hidden_layers", "conv2_kernel", "conv2_channels"),
    ),
}  # fmt: skip
_OWN = NetworkSpec(
    "shardwave.models.networks.build:OwnNetwork", unused=("hidden_size", "hidden_layers", "dropout", *_CONVOLUTIONS)
)
_registered: dict[str, Factory] = {}


def names() -> tuple[str, ...]:
    """Return the names of all networks, also those of other packages."""
    return (*NETWORKS, *plugins.names("networks"))


def find(name: str) -> NetworkSpec:
    """Return the network of a name.

    Args:
        name: A name of `NETWORKS`, an entry point of the group `shardwave.networks` that names a `NetworkSpec`, or
            "module:function" of a user's own function (see `shardwave.train`).

    Raises:
        UsageError: There is no such network.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if ":" in name:
        return _OWN
    spec = plugins.load("networks", name)
    if spec is None:
        raise UsageError(f"model must be one of {', '.join(names())}, got {name}")
    if not isinstance(spec, NetworkSpec):
        raise UsageError(
            f"the entry point {name} of the group shardwave.networks must name a NetworkSpec, got {type(spec).__name__}"
        )
    return spec


def register(factory: Factory) -> str:
    """Make a function known in this process, and return the name by which `find` knows it.

    A function of a module that can be imported is found in every process; one of a notebook or script, or inside a function,
    only where it was registered.
    """
    name = f"{factory.__module__}:{factory.__qualname__}"
    _registered[name] = factory
    return name


def registered(name: str) -> Factory | None:
    """Return the function that was registered under a name in this process, if there is one."""
    return _registered.get(name)


def imported(name: str) -> Callable[..., Any]:
    """Return what "module:name" names.

    Raises:
        UsageError: It cannot be imported, and was not registered in this process.
    """
    if name in _registered:
        return _registered[name]
    module, _, path = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in path.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the network {name} cannot be imported ({error}): pass the function to shardwave.load_model") from error
    return value
