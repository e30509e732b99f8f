"""The flags of TF32 and cuDNN during trainings, and their record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shardwave.models.data.training_data import TrainingData
from shardwave.models.runs import checkpoint
from shardwave.models.training import numerics
from shardwave.models.training.config import defaults
from shardwave.models.training.fit import fit
from shardwave.models.training.learner import Learner
from shardwave.models.training.train import train

OTHER: dict[str, str | bool] = {
    "float32_matmul_precision": "high",
    "cudnn_allow_tf32": True,
    "cudnn_benchmark": True,
    "cudnn_deterministic": False,
}


@pytest.fixture
def other_flags() -> Iterator[None]:
    """Flags that a program may have set before it calls shardwave."""
    before = numerics.current()
    numerics._set(OTHER)
    yield
    numerics._set(before)


def test_every_step_runs_under_the_recorded_policy(
    folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_flags: None
) -> None:
    """A path without the policy, or flags that are not restored, would be seen."""
    seen = []
    step, validate = Learner.training_step, Learner.validation_step

    def spy_step(self: Learner, *args: object) -> torch.Tensor:
        seen.append(numerics.current())
        return step(self, *args)  # type: ignore[arg-type]

    def spy_validate(self: Learner, *args: object) -> None:
        seen.append(numerics.current())
        validate(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "training_step", spy_step)
    monkeypatch.setattr(Learner, "validation_step", spy_validate)
    config = defaults("mlp", epochs=1, hidden_size=4, val_fold=1, device="cpu")
    found = train(folded, config, tmp_path / "run")
    assert found["environment"]["numerics"] == numerics.POLICY
    count = len(seen)
    fit(TrainingData(folded, config), config)
    assert len(seen) == 2 * count and all(flags == numerics.POLICY for flags in seen)
    assert numerics.current() == OTHER


def test_auto_precision_is_resolved_before_it_is_recorded(folded: Path, tmp_path: Path) -> None:
    config = defaults("mlp", epochs=1, hidden_size=4, val_fold=1, device="cpu")
    assert config.precision == "auto"
    found = train(folded, config, tmp_path / "run")
    assert found["config"]["precision"] == "32-true"
    assert checkpoint.load(tmp_path / "run" / checkpoint.NAME).config.precision == "32-true"
    assert train(folded, config, tmp_path / "run", resume=True) == found
