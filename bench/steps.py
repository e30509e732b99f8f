"""Training steps as cases: the loop of `models.fit` over batches from anywhere, and the arithmetic it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import floor
from bench.timing import Case
from models.allocator import keep_freed_memory
from models.config import TrainConfig
from models.data import TrainingData
from models.fit import take_step


def steps(data: TrainingData, config: TrainConfig, batches: Callable[[], Iterable[dict[str, Any]]]) -> Callable[[], None]:
    """`run()` trains through `batches()` once: forward, backward, optimiser, on a model made once."""
    keep_freed_memory()
    learner = data.learner(config, 1).to(data.device)
    optimizer, schedule = learner.optimizers()
    learner.train()

    def run() -> None:
        for batch in batches():
            take_step(learner, learner.training_step(data.to_device(batch)), optimizer, schedule)
        learner._forget()  # what an epoch gathers for its scores

    return run


def flops_per_sample(data: TrainingData, config: TrainConfig, batch: dict[str, Any]) -> float:
    """Floating-point operations of a training step (matrix products and convolutions, forward and backward), per sample."""
    learner = data.learner(config, 1).to(data.device)
    with FlopCounterMode(display=False) as counter:
        learner.training_step(data.to_device(batch)).backward()
    return counter.get_total_flops() / len(batch["cls"])


def peaks(device: str, per_sample: float, quick: bool) -> list[Case]:
    """The machine's fastest matrix product and convolutions (float32), as samples/s of a step with `per_sample` operations."""
    cuda = device == "cuda"
    size = 8_192 if cuda else 1_024 if quick else 2_048
    product, operations = floor.matmul(device, torch.float32, size)
    cases = [
        Case("matrix product peak", "floor", product, operations / per_sample, {"size": size, "flops_per_sample": per_sample})
    ]
    for channels, side in ((64, 112), (256, 28)):  # early and late in a network such as VGG16
        run, operations = floor.convolution(device, torch.float32, 64 if cuda else 8, channels, side)
        told = {"channels": channels, "side": side, "flops_per_sample": per_sample}
        cases.append(Case(f"convolution peak, {channels} channels", "floor", run, operations / per_sample, told))
    return cases
