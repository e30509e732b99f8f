"""Imbalance: class weights are scikit-learn's, the sampler balances, the metric selects the epoch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from shardwave.common.errors import UsageError
from shardwave.models.data.balance import class_weights, warn_of_imbalance
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.metrics import ScoreSet
from shardwave.models.runs.records import score
from shardwave.models.training.config import defaults, score_text
from shardwave.models.training.fit import fit
from shardwave.models.training.history import History
from shardwave.search.objective import fusable
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.sampler import Order


def test_class_weights_are_scikit_learns() -> None:
    cls = np.array([0] * 30 + [1] * 6 + [2] * 1)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=cls)
    assert class_weights(cls, 4).tolist() == pytest.approx([*expected, 0.0])


def test_the_loss_is_weighted(split: Path) -> None:
    config = defaults("mlp", class_weights="balanced", device="cpu", label_smoothing=0.0)
    data = TrainingData(split, config)
    data.train.cls[:] = np.where(np.arange(len(data.train)) < 3, 0, 1)
    learner = data.learner(config, 1)
    logits, label = torch.zeros(2, 3), torch.tensor([0, 1])
    logits[0, 0] = 2.0
    weights = class_weights(data.train.cls, 3)
    losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    assert float(learner._loss(logits, label)) == pytest.approx(
        float((weights[:2] * losses).sum() / weights[:2].sum())
    )
    assert not fusable(config)  # the compiled trainer has no weights


def test_balanced_sampler_draws_all_classes_equally() -> None:
    cls = np.array([0] * 90 + [1] * 8 + [2] * 2)
    order = Order(100, 10, True, 3, balance=cls)
    epochs = [order.epoch(epoch) for epoch in range(3)]
    for rows in epochs:
        assert np.bincount(cls[rows]).tolist() == [34, 33, 33]
        assert np.bincount(rows)[90:98].max() - np.bincount(rows, minlength=100)[90:98].min() <= 1
        assert np.unique(rows[cls[rows] == 0]).size == 34  # no sample of the large class twice
    assert (order.epoch(1) == epochs[1]).all() and (epochs[0] != epochs[1]).any()
    parts = [Order(100, 5, True, 3, rank, 2, balance=cls) for rank in range(2)]
    joined = np.concatenate([part.batch(part.epoch(0), 0) for part in parts])
    assert (joined == order.batch(order.epoch(0), 0)).all()  # the same for any number of ranks


def test_training_with_the_balanced_sampler_draws_from_all_classes(split: Path) -> None:
    config = defaults("mlp", balanced_sampler=True, device="cpu", epochs=1, batch_size=4)
    data = TrainingData(split, config)
    data.train.cls[:] = np.where(np.arange(len(data.train)) < 4, 0, 1)
    drawn = np.concatenate([batch["index"].numpy() for batch in data.train_batches(config)])
    assert abs(int((drawn < 4).sum()) - len(data.train) / 2) <= 4


@pytest.mark.parametrize(
    ("metric", "best"), [("accuracy", 1), ("balanced_accuracy", 2), ("macro_f1", 3), ("loss", 4)]
)
def test_the_metric_selects_the_epoch(metric: str, best: int) -> None:
    history = History("full", metric)
    for epoch in range(1, 5):
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        scores = {f"val_full_{name}": 0.9 if epoch == number else 0.5 for number, name in enumerate(names, 1)}
        losses = {"train_loss": 1.0, "val_loss": 0.3 if epoch == 4 else 0.6}
        history.add(ScoreSet({**losses, **scores}))
    assert history.best_epoch == best
    assert history.value == (-0.3 if metric == "loss" else 0.9)


def test_a_trial_reports_the_negative_loss(split: Path) -> None:
    config = defaults("mlp", select_metric="loss", device="cpu", epochs=3)
    values: list[float] = []
    result = fit(
        TrainingData(split, config), config, report=lambda epoch, value, scores: values.append(value)
    )
    assert values == [-score(entry, "val_loss") for entry in result.history] and result.value == max(values)


def test_scores_are_named_after_their_metric() -> None:
    assert score_text(0.875, "macro_f1") == "87.5 % validation macro F1"
    assert score_text(-0.5, "loss") == "0.5 validation loss"


def test_a_small_class_is_named_unless_it_is_balanced(
    split: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard_set, config = open_set(split), defaults("mlp")
    warn_of_imbalance(shard_set, config)
    assert capsys.readouterr().err == ""
    view = shard_set.view(shard_set.splits, "full")
    view.cls[:] = np.where(np.arange(len(view)) < 2, 0, np.where(np.arange(len(view)) < 20, 1, 2))
    monkeypatch.setattr(shard_set, "view", lambda *_: view)
    warn_of_imbalance(shard_set, dataclasses.replace(config, balanced_sampler=True))
    assert capsys.readouterr().err == ""
    warn_of_imbalance(shard_set, config)
    assert (
        "class 'bell' has 2 clips, the mean is 12: consider --class-weights balanced"
        in capsys.readouterr().err
    )


def test_weights_and_sampler_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="use one of them"):
        defaults("mlp", class_weights="balanced", balanced_sampler=True)
