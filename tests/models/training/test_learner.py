"""The moving average of the weights."""

from __future__ import annotations

import copy

import torch

from shardwave.models.networks.base import Inputs
from shardwave.models.networks.build import build_model
from shardwave.models.training.config import defaults
from shardwave.models.training.learner import Learner


def test_the_average_follows_its_formula_and_copies_counters() -> None:
    """The running means of the batch normalisation of cnn-plus are averaged, its integer counters copied."""
    config = defaults("cnn-plus", conv1_channels=4, ema_decay=0.3)
    network = build_model(config, Inputs("npy", (32, 32), 3, torch.zeros(1), torch.ones(1)))
    learner = Learner(config, network, "npy", 1, "full", ("full",), "full")
    assert learner.average is not None
    expected = copy.deepcopy(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        network.train()
        network(torch.randint(0, 255, (4, 32, 32), generator=generator).to(torch.uint8))  # counts a batch
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        learner.after_step()
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            mean = expected[name]
            expected[name] = (
                decay * mean + (1 - decay) * value if value.is_floating_point() else value.clone()
            )
    found = learner.average.state_dict()
    assert found.keys() == expected.keys() and int(found["body.1.num_batches_tracked"]) == 5
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
