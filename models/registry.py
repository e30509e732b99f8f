"""From a model's name to its network. Another model is one file and one line here (and its name in `models.config`)."""

from __future__ import annotations

import torch

from models.cnn import Cnn
from models.cnn_plus import CnnPlus
from models.config import TrainConfig
from models.mlp import Mlp
from models.network import Inputs, Network
from models.vgg16 import Vgg16Head


def build_model(config: TrainConfig, inputs: Inputs) -> Network:
    """The network that `config` describes for these inputs, its weights drawn from config.seed.

    Shape of what it maps: a raw batch (uint8 [batch, frequency, time] or float [batch, features]) -> logits [batch, classes].
    """
    torch.default_generator.manual_seed(config.seed)
    if config.model == "mlp":
        return Mlp(inputs, config.hidden_size, config.hidden_layers, config.dropout)
    if config.model == "cnn":
        kernels, channels = (config.conv1_kernel, config.conv2_kernel), (config.conv1_channels, config.conv2_channels)
        return Cnn(inputs, kernels, channels, config.hidden_size, config.hidden_layers, config.dropout)
    if config.model == "vgg16":
        return Vgg16Head(inputs, config.hidden_size, config.hidden_layers, config.dropout)
    return CnnPlus(inputs, config.conv1_kernel, config.conv1_channels, config.dropout)
