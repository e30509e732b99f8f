"""From a model's name to its network. Another model is one file and one line here (and its name in `shardwave.models.training.config`)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from shardwave.models.networks.base import Inputs, Network
from shardwave.models.networks.cnn import Cnn
from shardwave.models.networks.cnn_plus import CnnPlus
from shardwave.models.networks.mlp import Mlp
from shardwave.models.networks.vgg16 import Vgg16Head
from shardwave.models.training.config import TrainConfig

NETWORKS: dict[str, Callable[[Inputs, TrainConfig], Network]] = {"mlp": Mlp, "cnn": Cnn, "vgg16": Vgg16Head, "cnn-plus": CnnPlus}


def build_model(config: TrainConfig, inputs: Inputs) -> Network:
    """The network that `config` describes for these inputs, its weights drawn from config.seed.

    Shape of what it maps: a raw batch (uint8 [batch, frequency, time] or float [batch, features]) -> logits [batch, classes].
    """
    torch.default_generator.manual_seed(config.seed)
    return NETWORKS[config.model](inputs, config)
