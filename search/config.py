"""Settings of a search. Does not import torch or a backend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shardwave.common.environment import cores
from shardwave.common.errors import UsageError, require
from shardwave.models.training.config import CUTS, WARM_UP, TrainConfig, defaults
from shardwave.search.auto import Algorithms, choose
from shardwave.search.budget import (
    AUTO,
    FIRST_TRIAL,
    GRACE_PERIOD,
    REDUCTION_FACTOR,
    SearchBudget,
    grace_after,
)
from shardwave.search.gpus import check_capacity, count_gpus, trials_at_once
from shardwave.search.objective import fusable
from shardwave.search.space import Dimension, space_for
from shardwave.search.trial import Params

# default epochs per trial; cnn-plus trains on full clips and has a tenth of the steps per epoch of ten slices
EPOCHS = {"cnn-plus": 30, "other": 10}


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Settings of a search.

    Attributes:
        model: Name of the model.
        backend: "optuna", "ray", "syne-tune", "random", or a name of the entry points `shardwave.backends`.
        trials: Total number of trials.
        epochs: Maximum number of epochs per trial; None: 30 for cnn-plus, 10 for the other models.
        jobs: Number of trials that run concurrently; None: the number that fits on the GPUs with
            `gpus_per_trial` (one per GPU by default), or one per core without a GPU.
        scheduler: Early-stopping algorithm; None: the default of the backend, see
            `shardwave.search.budget.SCHEDULERS`; "auto": see `shardwave.search.auto.choose`, which then also
            sets a grace period and a reduction factor that are the defaults.
        grace_period: Number of epochs for which no trial is stopped; "auto": until after the warm-up of the
            learning rate, see `shardwave.search.budget.grace_after`.
        reduction_factor: Successive halving continues one of `reduction_factor` trials at each rung.
        sampler: Algorithm that chooses parameters; None: the default of the backend, see
            `shardwave.search.budget.SAMPLERS`; "auto": see `shardwave.search.auto.choose`.
        first_trial: Parameters of the first trials: "sampled"; "default": trial 0 has the default values of
            the model, moved into the space; "recorded": `shardwave.search.recorded.STARTS` of the model;
            "auto", see `SearchBudget`.
        space: Searched parameters by name, or a YAML file that overrides the default space; None: the default
            space.
        val_fold: Fold used for validation.
        test_fold: Fold used for the test.
        train_view: View that the model is trained on, see `TrainConfig`.
        select_by: Score that is maximized, see `TrainConfig`.
        select_metric: Metric that is maximized, or the loss that is minimized, see `TrainConfig`.
        class_weights: Weights of the classes in the loss, see `TrainConfig`.
        balanced_sampler: Whether an epoch has equally many samples of every class, see `TrainConfig`.
        slices: Number of slices of the clips of a set of strips, see `TrainConfig`; unused if the space has
            them.
        slice_seconds: Length of these slices, see `TrainConfig`.
        image_size: Width of the images of a set of strips, see `TrainConfig`.
        random_slices: Whether each epoch draws the slices anew, see `TrainConfig`.
        slice_stretch: Factors of the lengths of random slices, see `TrainConfig`.
        seed: Seed of the samplers and of the trainings; trial n is trained with seed + n.
        device: "auto", "cpu" or "cuda".
        precision: Precision of the training, see `TrainConfig`.
        backbone: Frozen image network of the model transfer, see `TrainConfig`.
        weights: Pretrained weights, see `TrainConfig`.
        storage: Backend optuna: URL of a storage that several machines share.
        study: Backend optuna: name of the study in `storage`.
        address: Backend ray: address of a running cluster.
        fused: Train with compiled steps on the CPU; None: for mlp, if `device` is not "cuda" and `precision`
            and `train_view` are supported.
        gpus_per_trial: Share of a GPU that each trial uses, at most 1; None: the largest share with which all
            jobs fit on the GPUs.
        logger: Experiment tracker that receives the trials, see `TrainConfig`.
        inputs: Vector fields that mlp is trained on, see `TrainConfig`; unused if the space has them.
        field: Field of the samples that the model is trained on, see `TrainConfig`.
        network_options: Options of a user's own network, see `TrainConfig`.
    """

    model: str
    backend: str = "optuna"
    trials: int = 20
    epochs: int | None = None
    jobs: int | None = None
    scheduler: str | None = None
    grace_period: int | str = GRACE_PERIOD
    reduction_factor: int = REDUCTION_FACTOR
    sampler: str | None = None
    first_trial: str = FIRST_TRIAL
    space: Mapping[str, Dimension] | Path | str | None = None
    val_fold: int | None = None
    test_fold: int | None = None
    train_view: str = "auto"
    select_by: str = "auto"
    select_metric: str = "accuracy"
    class_weights: str = "none"
    balanced_sampler: bool = False
    slices: int | None = None
    slice_seconds: float | None = None
    image_size: int | None = None
    random_slices: bool = False
    slice_stretch: str = "1,1"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    backbone: str | None = None
    weights: str = "default"
    storage: str | None = None
    study: str | None = None
    address: str | None = None
    fused: bool | None = None
    gpus_per_trial: float | None = None
    inputs: str | None = None
    logger: str | None = None
    field: str | None = None
    network_options: Params = dataclasses.field(default_factory=dict)

    def training(self) -> TrainConfig:
        """Return the training settings that all trials share."""
        names = (
            "val_fold",
            "test_fold",
            "train_view",
            "select_by",
            "select_metric",
            "class_weights",
            "balanced_sampler",
            *CUTS,
            "random_slices",
            "slice_stretch",
            "seed",
            "device",
            "precision",
            "backbone",
            "weights",
            "inputs",
            "field",
            "network_options",
        )
        config = defaults(
            self.model, epochs=self.trial_epochs, **{name: getattr(self, name) for name in names}
        )
        return dataclasses.replace(config, device="cpu") if self.is_fused() else config

    @property
    def trial_epochs(self) -> int:
        """Maximum number of epochs per trial."""
        return EPOCHS.get(self.model, EPOCHS["other"]) if self.epochs is None else self.epochs

    def budget(self, chosen: Algorithms | None = None) -> SearchBudget:
        """Return the budget with the defaults of the backend and the jobs and GPUs of the machine or cluster.

        Args:
            chosen: Algorithms in place of `AUTO`; None: `choose` returns them.

        Raises:
            UsageError: If a setting is invalid, or the backend or the model does not support it.
        """
        device = self.training().device
        if self.fused and not fusable(self.training()):
            raise UsageError(
                f"--fused does not support model {self.model} with precision {self.precision} and train view "
                f"{self.train_view}: use mlp, vgg16 or transfer, 32-true or 64-true, not both views; or omit "
                "--fused"
            )
        if self.fused and self.device == "cuda":
            raise UsageError("--fused trains on the CPU: leave out --fused or --device cuda")
        on_cluster = self.backend == "ray" and self.address is not None
        gpus, cpus = self._cluster(device) if on_cluster else (count_gpus(device), cores())
        share, jobs = self.gpus_per_trial, self.jobs
        if jobs is None:
            jobs = trials_at_once(gpus, share or 1.0) or cpus
        if share is None:
            share = 1 / math.ceil(jobs / gpus) if gpus else 0.0
        if self.first_trial == "recorded" and not space_for(self.model, self.space).starts:
            raise UsageError(
                f"no values are recorded for the search space of {self.model}: use --first-trial default or "
                "sampled"
            )
        budget = SearchBudget(
            trials=self.trials,
            epochs=self.trial_epochs,
            jobs=jobs,
            scheduler=self.scheduler,
            grace_period=self._grace_period(),
            reduction_factor=self.reduction_factor,
            sampler=self.sampler,
            first_trial=self.first_trial,
            gpus_per_trial=share,
        )
        if self.is_auto:
            budget = self._with(chosen or self.choose(min(jobs, self.trials)), budget)
        budget = budget.resolve(self.backend)
        check_capacity(budget.jobs or 1, budget.gpus_per_trial, gpus)
        return budget

    @property
    def is_auto(self) -> bool:
        """Whether the sampler or the scheduler is chosen by `choose`."""
        return AUTO in (self.sampler, self.scheduler)

    def choose(self, jobs: int) -> Algorithms:
        """Return the algorithms for the space, the budget and `jobs` workers."""
        budget = SearchBudget(trials=self.trials, epochs=self.trial_epochs)
        return choose(space_for(self.model, self.space), budget, jobs, self.backend, self._warm_up())

    def _with(self, chosen: Algorithms, budget: SearchBudget) -> SearchBudget:
        """Replace `AUTO`; a grace period and a reduction factor that differ from the defaults are kept."""
        changes: dict[str, Any] = {}
        if self.sampler == AUTO:
            changes["sampler"] = chosen.sampler
            if self.first_trial == AUTO:
                changes["first_trial"] = chosen.first_trial
        if self.scheduler == AUTO:
            changes["scheduler"] = chosen.scheduler
            if self.grace_period == GRACE_PERIOD:
                changes["grace_period"] = chosen.grace_period
            if self.reduction_factor == REDUCTION_FACTOR:
                changes["reduction_factor"] = chosen.reduction_factor
        return dataclasses.replace(budget, **changes)

    def _warm_up(self) -> float:
        return WARM_UP if self.training().schedule == "one-cycle" else 0.0

    def _grace_period(self) -> int:
        if isinstance(self.grace_period, int):
            return self.grace_period
        require(self.grace_period == AUTO, "grace_period must be an integer or auto", self.grace_period)
        return grace_after(self._warm_up(), self.trial_epochs)

    def _cluster(self, device: str) -> tuple[int, int]:
        """Return the number of GPUs that trials may use and of CPUs, summed over the nodes of the cluster."""
        from shardwave.search.backends.ray.backend import cluster_resources

        resources = cluster_resources(str(self.address))
        return 0 if device == "cpu" else int(resources.get("GPU", 0)), int(resources.get("CPU", 1))

    def is_fused(self) -> bool:
        """Return whether `shardwave.search.fused` trains the trials, see attribute `fused`."""
        if self.fused is not None:
            return self.fused
        return (
            self.model == "mlp"
            and self.device != "cuda"
            and fusable(dataclasses.replace(self, fused=False).training())
        )
