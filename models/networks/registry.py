"""Registry of networks by name.

The command line imports this module, so it does not import torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shardwave.common import plugins
from shardwave.common.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[..., "nn.Module"]  # (shape of one input, number of classes, **network_options)
_IMAGE_OPTIONS = (
    "time_shift",
    "frequency_mask",
    "time_mask",
    "mix_powers",
    "random_gain",
    "random_slices",
    "slice_stretch",
)
BACKBONES = ("vgg16", "efficientnet-lite0")  # frozen image networks of the model transfer
_TRANSFER = "shardwave.models.networks.image_backbone:TransferHead"
_CONVOLUTIONS = ("conv1_kernel", "conv2_kernel", "conv1_channels", "conv2_channels")


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """Describe a network that can be trained by its name.

    Args:
        make: Callable `(Inputs, TrainConfig) -> Network`, or its name as "module:name".
        field: Array field of the samples that the network takes as its input.
        train_view: View that `train_view="auto"` selects if the set has slices.
        defaults: Values of `TrainConfig` fields that replace the dataclass defaults.
        unused: Hyper-parameters that have no effect on this network.
    """

    make: str | Callable[..., Any]
    field: str = "npy"
    train_view: str = "slice"
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()


# docs/defaults.md describes the comparisons behind these values
NETWORKS: dict[str, NetworkSpec] = {
    "mlp": NetworkSpec(
        "shardwave.models.networks.mlp:Mlp",
        field="features.npy",
        train_view="full",
        defaults={
            "epochs": 60, "batch_size": 64, "hidden_size": 512, "dropout": 0.5, "learning_rate": 2e-3,
            "weight_decay": 0.05, "label_smoothing": 0.1, "schedule": "one-cycle",
        },
        unused=(*_CONVOLUTIONS, *_IMAGE_OPTIONS),
    ),
    "cnn": NetworkSpec(
        "shardwave.models.networks.cnn:Cnn",
        defaults={
            "epochs": 15, "dropout": 0.5, "weight_decay": 0.05, "label_smoothing": 0.1, "time_shift": True,
            "ema_decay": 0.98, "schedule": "one-cycle",
        },
    ),
    "vgg16": NetworkSpec(_TRANSFER, unused=(*_CONVOLUTIONS, *_IMAGE_OPTIONS)),
    "transfer": NetworkSpec(_TRANSFER, unused=(*_CONVOLUTIONS, *_IMAGE_OPTIONS)),
    "cnn-plus": NetworkSpec(
        "shardwave.models.networks.cnn_plus:CnnPlus",
        train_view="full",
        defaults={
            "epochs": 100, "conv1_kernel": 3, "conv1_channels": 32, "dropout": 0.2, "learning_rate": 3e-3,
            "weight_decay": 0.05, "label_smoothing": 0.1, "mixup": 0.3, "time_shift": True,
            "frequency_mask": 0.125, "time_mask": 0.1875, "ema_decay": 0.98, "schedule": "one-cycle",
        },
        unused=("hidden_size", "hidden_layers", "conv2_kernel", "conv2_channels"),
    ),
}  # fmt: skip
_OWN = NetworkSpec(
    "shardwave.models.networks.build:OwnNetwork",
    unused=("hidden_size", "hidden_layers", "dropout", *_CONVOLUTIONS),
)
_registered: dict[str, Factory] = {}


def names() -> tuple[str, ...]:
    """Return the names of all networks, including those that other packages register by entry points."""
    return (*NETWORKS, *plugins.names("networks"))


def find(name: str) -> NetworkSpec:
    """Return the specification of a network.

    Args:
        name: A key of `NETWORKS`, an entry point of the group `shardwave.networks` that refers to a
            `NetworkSpec`, or "module:function" of an own network (see `shardwave.train`).

    Raises:
        UsageError: No network has this name, or the entry point does not refer to a `NetworkSpec`.
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
            f"entry point {name} of group shardwave.networks must refer to a NetworkSpec, "
            f"got {type(spec).__name__}"
        )
    return spec


def register(factory: Factory) -> str:
    """Register a function that builds a network, for this process.

    Other processes can only import functions of a module. A function that is defined in a notebook, in a
    script or in another function must be registered in each process that uses it.

    Returns:
        The name "module:function", which `find` and `TrainConfig.model` accept.
    """
    name = f"{factory.__module__}:{factory.__qualname__}"
    _registered[name] = factory
    return name


def registered(name: str) -> Factory | None:
    """Return the function registered under `name` in this process, or None."""
    return _registered.get(name)


def imported(name: str) -> Callable[..., Any]:
    """Return the object that "module:name" refers to: a registered function, or an imported one.

    Raises:
        UsageError: The object is not registered in this process and cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    module, _, path = name.partition(":")
    try:
        value: Callable[..., Any] = operator.attrgetter(path)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the network {name} cannot be imported ({error}): pass the function to shardwave.load_model"
        ) from error
    return value
