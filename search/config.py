"""What a search is told: one frozen dataclass. Light: no heavy imports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.search.budget import SearchBudget
from shardwave.search.objective import fusable
from shardwave.search.space import Dimension

EPOCHS = {
    "cnn-plus": 30,
    "other": 10,
}  # of a trial; cnn-plus trains on whole clips, a tenth as many steps an epoch as on ten slices


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """One search. What is None takes the default of the backend, the model or the machine."""

    model: str
    backend: str = "optuna"  # one of budget.BACKENDS
    trials: int = 20  # in total
    epochs: int | None = None  # of a trial that is not stopped; None: EPOCHS
    jobs: int | None = None  # trials at a time; None: one per core, or one per GPU
    scheduler: str | None = None
    grace: int = 1
    reduction: int = 3
    sampler: str | None = None
    space: Mapping[str, Dimension] | Path | str | None = None  # dimensions by name, or a YAML file
    val_fold: int | None = None
    test_fold: int | None = None
    train_view: str = "auto"
    select_by: str = "auto"
    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"
    weights: str = "default"
    storage: str | None = None  # optuna
    study: str | None = None  # optuna
    address: str | None = None  # ray
    fused: bool | None = None  # compiled training steps on the CPU; None: for the MLP, unless device is cuda
    gpus_per_trial: float | None = None  # ray; None: the GPUs shared evenly by the jobs
    field: str | None = None  # as in TrainConfig, as the next one
    network_options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def training(self) -> TrainConfig:
        """What every trial has in common."""
        names = (
            "val_fold",
            "test_fold",
            "train_view",
            "select_by",
            "seed",
            "device",
            "precision",
            "weights",
            "field",
            "network_options",
        )
        config = defaults(self.model, epochs=self.trial_epochs, **{name: getattr(self, name) for name in names})
        return dataclasses.replace(config, device="cpu") if self.fuses() else config

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial that is not stopped."""
        return EPOCHS.get(self.model, EPOCHS["other"]) if self.epochs is None else self.epochs

    def budget(self) -> SearchBudget:
        """The budget with everything resolved for this backend and machine, or cluster; raises `UsageError`."""
        device = self.training().device
        if self.fused and not fusable(self.training()):
            raise UsageError(
                f"--fused: not for model {self.model} with precision {self.precision}: perceptrons alone (mlp, the head of vgg16)"
            )
        if self.fused and self.device == "cuda":
            raise UsageError("--fused trains on the CPU: leave out --fused or --device cuda")
        gpus, cpus = self._cluster(device) if self.backend == "ray" and self.address else (count_gpus(device), None)
        jobs = self.jobs if self.jobs is not None else (gpus or cpus)
        share = self.gpus_per_trial if self.gpus_per_trial is not None else min(1.0, gpus / jobs) if jobs else 0.0
        return SearchBudget(
            trials=self.trials,
            epochs=self.trial_epochs,
            jobs=jobs,
            scheduler=self.scheduler,
            grace=self.grace,
            reduction=self.reduction,
            sampler=self.sampler,
            gpus_per_trial=share,
        ).resolve(self.backend)

    def _cluster(self, device: str) -> tuple[int, int]:
        """GPUs that trials may use, and CPUs, of all nodes."""
        from shardwave.search.backends.ray.backend import cluster_resources

        resources = cluster_resources(str(self.address))
        return 0 if device == "cpu" else int(resources.get("GPU", 0)), int(resources.get("CPU", 1))

    def fuses(self) -> bool:
        """Whether `shardwave.search.fused` trains the trials; by default those of an MLP in float32 or float64."""
        if self.fused is not None:
            return self.fused
        return self.model == "mlp" and self.device != "cuda" and fusable(dataclasses.replace(self, fused=False).training())


def count_gpus(device: str) -> int:
    """GPUs that trials may use: 0 for the CPU. Machines without a driver do not pay for importing torch."""
    if device == "cpu" or (device == "auto" and not Path("/proc/driver/nvidia/version").exists()):
        return 0
    import torch

    count = torch.cuda.device_count()
    if device == "cuda" and not count:
        raise UsageError("device cuda: PyTorch sees no CUDA device here; use --device cpu or auto")
    return count
