"""Models trained together against the same models trained one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.config import TrainConfig, defaults
from models.data import TrainingData
from models.fit import fit
from preprocess.errors import ShardwaveError
from search import compiled, masks, stacked
from search.fused import fit_alone, fit_together
from search.objective import TrainingObjective, fusable
from search.trial import TrialStopped


def configs(**common: Any) -> list[TrainConfig]:
    """Four models that share nothing but the batch size (72 samples in batches of 10 leave a smaller last one)."""
    common = {"val_fold": 1, "epochs": 4, "batch_size": 10, "precision": "64-true", "device": "cpu", "schedule": "none", **common}
    base = defaults("mlp", **{"label_smoothing": 0.0, **common})
    own = (
        {"hidden_size": 7, "dropout": 0.0, "learning_rate": 1e-3, "weight_decay": 0.0},
        {"hidden_size": 16, "dropout": 0.5, "learning_rate": 1e-2, "weight_decay": 0.1},
        {"hidden_size": 12, "dropout": 0.2, "learning_rate": 3e-3, "weight_decay": 1e-3, "label_smoothing": 0.1},
        {
            "hidden_size": 16,
            "dropout": 0.1,
            "learning_rate": 5e-3,
            "weight_decay": 1e-4,
            "average_decay": 0.9,
            "schedule": "one-cycle",
        },
    )
    return [dataclasses.replace(base, seed=seed, **each) for seed, each in enumerate(own, 3)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a search's worker; for models this small, a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[compiled, stacked], ids=["compiled", "stacked"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of steps, on the CPU."""
    monkeypatch.setattr(compiled, "train_epoch", request.param.train_epoch)


def never(told: Any) -> set[int]:
    return set()


def forbidden(index: int, error: Exception) -> None:
    raise error


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_equal_to_one_by_one(feature_set: Path, hidden_layers: int) -> None:
    """In double precision, where rounding cannot hide a difference: the same losses, scores, best epochs and weights."""
    chosen = configs(hidden_layers=hidden_layers)
    data = TrainingData(feature_set, chosen[0])
    together = fit_together(data, chosen, never, forbidden)
    for index, config in enumerate(chosen):
        alone = fit(data, config)
        for one, other in zip(alone.history, together[index].history, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                if isinstance(one[name], float):
                    assert one[name] == pytest.approx(other[name], abs=1e-6 if "loss" in name else 1e-12), name
        assert together[index].best_epoch == alone.best_epoch and together[index].value == alone.value
        assert together[index].state_dict.keys() == alone.state_dict.keys()
        for name, value in alone.state_dict.items():
            torch.testing.assert_close(together[index].state_dict[name], value, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("steps")
def test_single_precision_within_rounding(feature_set: Path) -> None:
    chosen = configs(precision="32-true", epochs=2)
    data = TrainingData(feature_set, chosen[0])
    together = fit_together(data, chosen, never, forbidden)
    for index, config in enumerate(chosen):
        alone = fit(data, config)
        assert alone.history[-1]["train_loss"] == pytest.approx(together[index].history[-1]["train_loss"], abs=1e-4)


@pytest.mark.usefixtures("steps")
def test_models_do_not_disturb_each_other(feature_set: Path) -> None:
    """The same with other company, and when others stop."""
    chosen = configs()
    data = TrainingData(feature_set, chosen[0])
    epochs: dict[int, int] = {}

    def report(told: Any) -> set[int]:
        epochs.update({index: epoch for index, (epoch, _, _) in told.items()})
        return {0} if epochs[0] == 1 and 0 in told else {2} if epochs[2] == 3 else set()

    stopping = fit_together(data, chosen, report, forbidden)
    assert epochs == {0: 1, 1: 4, 2: 3, 3: 4} and [len(stopping[i].history) for i in range(4)] == [1, 4, 3, 4]
    lonely = fit_together(data, [chosen[1]], never, forbidden)[0]
    for name, value in lonely.state_dict.items():
        torch.testing.assert_close(stopping[1].state_dict[name], value, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("steps")
def test_a_model_that_diverges_fails_alone(feature_set: Path) -> None:
    chosen = configs(precision="32-true")
    chosen[1] = dataclasses.replace(chosen[1], learning_rate=1e30)
    data, failed = TrainingData(feature_set, chosen[0]), {}
    results = fit_together(data, chosen, never, lambda index, error: failed.update({index: error}))
    assert results.keys() == {0, 2, 3} and isinstance(failed[1], ShardwaveError) and "training loss became" in str(failed[1])
    assert all(np.isfinite(result.value) for result in results.values())


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.95])
def test_masks_are_those_of_torch(keep: float) -> None:
    assert masks._as_torch_draws()
    for seed, elements in ((0, 1), (5, 312), (2**40 + 7, 5000)):
        ours, theirs = np.empty((2, elements), np.uint8)
        masks.draw(seed, keep, ours)
        masks._draw_with_torch(seed, keep, theirs)
        assert (ours == theirs).all() and (elements < 100 or abs(ours.mean() - keep) < 0.1)


def test_one_alone(feature_set: Path) -> None:
    """What a trial that cannot be one of several runs: stopped by its report, and of a length of its own."""
    config = dataclasses.replace(configs()[1], epochs=4)
    data = TrainingData(feature_set, config)
    result, stopped = fit_alone(data, dataclasses.replace(config, stop_after=3))
    assert len(result.history) == 3 and stopped is None

    def report(epoch: int, value: float, scores: dict[str, Any]) -> None:
        if epoch == 2:
            raise TrialStopped

    shorter, stopped = fit_alone(data, config, report)
    assert isinstance(stopped, TrialStopped) and shorter.history == result.history[:2]
    with pytest.raises(ShardwaveError, match="training loss became"):
        fit_alone(data, dataclasses.replace(config, learning_rate=1e300))


class Told:
    def __init__(self, trials: list[int]) -> None:
        self.trials: list[int] = trials
        self.infos: list[dict[str, Any]] = [{} for _ in trials]
        self.values: list[dict[int, tuple[int, float]]] = []

    def __call__(self, values: Any, spent: Any = None) -> set[int]:
        self.values.append(dict(values))
        return set()

    def fail(self, index: int, error: Exception) -> None:
        raise error


def test_the_objective_runs_batches(feature_set: Path, tmp_path: Path) -> None:
    objective = TrainingObjective(feature_set, defaults("mlp", val_fold=1, epochs=3, device="cpu"), tmp_path)
    params = [{"hidden_size": 8, "batch_size": 8}, {"hidden_size": 16, "batch_size": 8}]
    assert objective.batch_key(params[0]) == objective.batch_key(params[1]) != objective.batch_key({"batch_size": 16})
    assert objective.batch_key({"mixup": 0.5}) is None
    report = Told([4, 7])
    objective.run_batch(params, report)
    assert [{index: epoch for index, (epoch, _) in values.items()} for values in report.values] == [
        {0: n, 1: n} for n in (1, 2, 3)
    ]
    alone = fit(objective.data, objective.config_of(4, params[0]))
    assert report.values[-1][0][1] == pytest.approx(alone.history[-1]["val_whole_accuracy"], abs=0.1)
    assert report.infos[0]["parameters"] == 5 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3
    assert report.infos[0]["best_epoch"] == alone.best_epoch
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(kept) == 2 and kept[0].removesuffix(".ckpt") == kept[1].removesuffix(".json")  # the better of the two


def test_what_cannot_be_stacked() -> None:
    assert fusable(defaults("mlp")) and fusable(defaults("vgg16"))
    assert not fusable(defaults("cnn")) and not fusable(defaults("mlp", mixup=0.2))
    assert not fusable(defaults("mlp", train_view="both")) and not fusable(defaults("mlp", precision="bf16-mixed"))
