"""Every stage at its smallest: all its roles measured, limits computed, names unique."""

import collections
import importlib
import itertools
import json
import tempfile
from pathlib import Path

import pytest
import torch

from shardwave.bench.stages import search

ROLES = {
    "decode": {"ours", "peer", "baseline", "limit"},
    "export": {"ours"},
    "features": {"ours", "peer", "baseline", "limit"},
    "writing": {"ours", "peer", "baseline", "limit"},
    "loading": {"ours", "peer", "baseline", "limit"},
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", sorted(ROLES))
def test_stage(stage, tiny):
    records = list(importlib.import_module(f"shardwave.bench.stages.{stage}").run(tiny))
    assert {record.role for record in records if not record.skipped} == ROLES[stage]
    names = collections.Counter((record.case, record.unit) for record in records)
    assert max(names.values()) == 1, names.most_common(3)
    for record in records:
        assert record.stage == stage
        json.dumps(record.row())
        if (
            not record.skipped
            and record.role == "ours"
            and record.unit not in ("s", "ms")
            and stage != "decode"
        ):
            assert record.median > 0 and (record.of_limit or record.params["limit_exceeded"]) > 0, record.case
        assert record.of_limit is None or record.of_limit <= 1


@pytest.mark.slow
def test_training_measures_loading_and_the_peaks(tiny):
    from shardwave.bench.stages import training

    path = training.labelled_set(tiny, 32, 4, slices=2)
    records = {
        record.case: record
        for record in training._model(tiny, path, training.config_of("cnn", batch_size=2), "cnn")
    }
    assert set(records) == {
        "cnn: from shards", "cnn: from a resident copy", "cnn: one synthetic batch",
        "cnn: matrix product peak",
        "cnn: convolution peak, 64 channels", "cnn: convolution peak, 256 channels", "cnn: one epoch",
        "cnn: limit: float32 operations",
    }  # fmt: skip
    flops = records["cnn: matrix product peak"].params["flops_per_sample"]
    pixels, macs = (
        32 * 32,
        (25 * 1 * 16) + (25 * 16 * 32) / 4,
    )  # multiply-adds per pixel of the two convolutions
    assert flops > 2 * pixels * macs * 2, "forward and at least one backward product of the convolutions"
    from_shards, limit = records["cnn: from shards"], records["cnn: limit: float32 operations"]
    of_limit = from_shards.of_limit or from_shards.params["limit_exceeded"]
    assert of_limit == pytest.approx(from_shards.median / limit.median, rel=1e-3)
    parts = records["cnn: one epoch"].params["parts"]
    assert sum(parts.values()) == pytest.approx(records["cnn: one epoch"].median, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "weights", "outputs"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
    ],
)
def test_training_steps_have_the_precision_of_the_settings(tiny, monkeypatch, precision, weights, outputs):
    """Steps in bfloat16 were measured in float32."""
    from shardwave.bench.stages import training
    from shardwave.models.data.training_data import TrainingData
    from shardwave.models.training.learner import Learner

    seen = set()
    loss = Learner._loss

    def noted(learner, logits, label):
        seen.add((next(learner.network.body.parameters()).dtype, logits.dtype))
        return loss(learner, logits, label)

    monkeypatch.setattr(Learner, "_loss", noted)
    config = training.config_of("cnn", batch_size=2, precision=precision, device="cpu")
    data = TrainingData(training.labelled_set(tiny, 32, 4, slices=2), config)
    training.steps(data, config, lambda: itertools.islice(data.train_batches(config), 1))()
    assert seen == {(weights, outputs)}


def test_training_beside_busy_processes_compares_numbers_of_threads(tiny):
    from shardwave.bench.stages import busy, training

    path = training.labelled_set(tiny, 32, 4, slices=2)
    records = {record.case: record for record in busy.compare(tiny, path, "mlp", 1)}
    used = {case: record.params["threads"] for case, record in records.items()}
    assert used == {
        "mlp: default threads": 1,
        "mlp: 1 thread": 1,
        "mlp: 2 threads": 2,
        "mlp: 2 threads that spin": 2,
    }
    assert all(record.median > 0 and record.of_limit is None for record in records.values())


@pytest.mark.slow
def test_searches_are_timed_from_the_start_of_their_process(tiny):
    path, fold, _ = search._set(tiny)
    folder = tiny.subfolder("searches")
    arrays = search._arrays(path, fold, folder / "features.npz")
    for command in (search.our_command(path, fold, "random"), search.stock_command("optuna", arrays)):
        seen = search.watch(command, Path(tempfile.mkdtemp(dir=folder)), trials=2, epochs=2, jobs=1, seed=0)
        assert len(seen.values) in (3, 4) and all(0 <= value <= 1 for _, value in seen.values)
        assert 0 < seen.busy < seen.seconds < seen.process < 300
        assert min(at for at, _ in seen.values) > 0.3, "imports are in it"


@pytest.mark.slow
def test_strips_are_measured_beside_views_of_the_same_clips(tiny):
    from shardwave.bench.stages import strips

    records = {record.case: record for record in strips.run(tiny) if not record.skipped}
    for seconds in strips.LENGTHS:
        sizes = [
            records[f"{seconds} s, build: {layout}"].params["bytes_per_clip"] for layout in ("views", "strip")
        ]
        assert sizes[1] < sizes[0] / 3
        for name in ("views, one thread", "strips", "strips, random slices", "memcpy gather"):
            record = records[f"{seconds} s, batches of 32: {name}"]
            assert record.median > 0 and (record.of_limit or record.params["limit_exceeded"]) > 0
