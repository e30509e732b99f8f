"""Run folders: what a training leaves, goes on with after a kill, and refuses."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.models.runs import result
from shardwave.models.training.config import defaults
from shardwave.models.training.learner import Learner
from shardwave.models.training.train import train
from shardwave.shards.format.manifest import set_id

SMALL = {
    "epochs": 3,
    "batch_size": 8,
    "hidden_size": 16,
    "conv1_kernel": 3,
    "conv2_kernel": 3,
    "device": "cpu",
}
SCRIPT = """
import sys, time
from pathlib import Path
import torch
from shardwave.models.training.config import defaults
from shardwave.models.training.learner import Learner
from shardwave.models.training.train import train
torch.set_num_threads(1)
set_path, out, slow = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[4])
resume = sys.argv[3] == "resume"
after = Learner.after_step
def pause(self):
    after(self)
    time.sleep(slow)
Learner.after_step = pause
config = defaults("cnn-plus", epochs=4, batch_size=3, conv1_channels=4, val_fold=1, device="cpu", mixup=0.3,
                  time_shift=True, ema_decay=0.9, schedule="one-cycle", seed=3, train_view="both")
train(set_path, config, out, resume=resume, save_seconds=0.0)
"""


def test_files_of_a_run_folder(split: Path, tmp_path: Path) -> None:
    found = train(split, defaults("cnn", **SMALL), tmp_path / "run")
    assert found == result.read(tmp_path / "run")
    assert found["state"] == "COMPLETE" and found["error"] is None and found["command"] == "train"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".run.lock",
        "checkpoint.ckpt",
        "clips.npz",
        "confusion.png",
        "curves.png",
        "errors.csv",
        "predictions.csv",
        "result.json",
    ]
    assert found["folds"] == {"train": ["train"], "val": ["val"], "test": ["test"]}
    assert found["selected_by"] == "slice_mean"
    for side in ("val", "test"):
        for score in ("full", "slice_mean"):
            for metric in ("accuracy", "recall", "f1"):
                assert 0 <= found["scores"][f"{side}_{score}_{metric}"] <= 1
    assert len(found["history"]) == 3
    assert {"epoch", "train_loss", "val_loss", "train_slice_mean_f1", "per_class"} <= set(found["history"][0])
    assert len(found["per_class"]["test_slice_mean"]["recall"]) == 3
    assert sum(map(sum, found["confusion"]["test_full"])) == 12
    assert {"total", "step", "validation", "data_wait"} <= set(found["seconds"])
    assert found["params"]["hidden_size"] == 16 and found["parameters"] > 1000
    for name in ("curves.png", "confusion.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    kept = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)
    assert kept["classes"] == found["classes"] and kept["epoch"] == found["best_epoch"]


def test_the_best_epoch_is_kept_by_the_selected_score(folded: Path, tmp_path: Path) -> None:
    found = train(
        folded, defaults("mlp", **SMALL | {"epochs": 6}, val_fold=3, select_by="full"), tmp_path / "run"
    )
    ranks = [(entry["val_full_accuracy"], -entry["val_loss"]) for entry in found["history"]]
    assert found["best_epoch"] == 1 + ranks.index(max(ranks))
    assert found["scores"]["val_full_accuracy"] == max(ranks)[0]


@pytest.mark.slow
def test_a_killed_training_continues_within_the_epoch_with_equal_results(
    folded: Path, tmp_path: Path
) -> None:
    def start(out: Path, resume: str, slow: float) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "SHARDWAVE_QUIET": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folded), str(out), resume, str(slow)], env=env
        )

    whole = start(tmp_path / "full", "new", 0.0)
    killed = start(tmp_path / "killed", "new", 0.05)
    last = tmp_path / "killed" / "last.ckpt"
    steps = 36
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if last.exists() and steps < torch.load(last, weights_only=True)["learner"]["steps"] < 3 * steps:
            break
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    state = torch.load(last, weights_only=True)
    assert state["learner"]["steps"] % steps  # within an epoch
    before = result.read(tmp_path / "killed")
    assert before["state"] == "RUNNING" and len(before["history"]) >= 1
    assert start(tmp_path / "killed", "resume", 0.0).wait() == 0
    assert whole.wait() == 0
    one, other = result.read(tmp_path / "full"), result.read(tmp_path / "killed")
    assert other["state"] == "COMPLETE" and not last.exists()
    assert other["history"] == one["history"] and other["scores"] == one["scores"]
    weights = [
        torch.load(tmp_path / name / "checkpoint.ckpt", weights_only=True)["state_dict"]
        for name in ("full", "killed")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_an_interrupted_run_has_its_state_and_continues(
    folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = defaults("mlp", **SMALL, val_fold=1, train_view="slice")
    whole = train(folded, config, tmp_path / "full")
    after, handler = Learner.after_step, signal.getsignal(signal.SIGINT)

    def interrupt(learner: Learner) -> None:
        after(learner)
        if learner.steps == 17:  # in the second of three epochs
            raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "after_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(folded, config, tmp_path / "run", save_seconds=0.0)
    monkeypatch.undo()
    stopped = result.read(tmp_path / "run")
    assert (
        stopped["state"] == "INTERRUPTED" and len(stopped["history"]) == 1 and stopped["seconds"]["total"] > 0
    )
    assert signal.getsignal(signal.SIGINT) is handler
    assert train(folded, config, tmp_path / "run", resume=True)["history"] == whole["history"]


def test_a_damaged_saved_state_is_named(folded: Path, tmp_path: Path) -> None:
    config = defaults("mlp", **SMALL | {"epochs": 1}, val_fold=1)
    found = train(folded, config, tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text(json.dumps(found | {"state": "RUNNING"}))
    (tmp_path / "run" / "last.ckpt").write_bytes(b"half")
    with pytest.raises(ShardwaveError, match="last.ckpt is damaged"):
        train(folded, config, tmp_path / "run", resume=True)


def test_a_failed_write_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails in its middle."""
    from shardwave.models.runs import checkpoint

    path, limits = tmp_path / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint.write(path, {"epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            checkpoint.write(path, {"epoch": 2, "weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path) and [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
    assert checkpoint.read(path) == {"epoch": 1}


def test_resume_refuses_another_configuration_and_returns_a_finished_run(
    folded: Path, tmp_path: Path
) -> None:
    config = {**SMALL, "epochs": 1, "val_fold": 1}
    first = train(folded, defaults("mlp", **config), tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run .COMPLETE.: use --resume"):
        train(folded, defaults("mlp", **config), tmp_path / "run")
    assert train(folded, defaults("mlp", **config), tmp_path / "run", resume=True) == first
    with pytest.raises(UsageError, match="started with hidden_size 16, not 32"):
        train(folded, defaults("mlp", **config | {"hidden_size": 32}), tmp_path / "run", resume=True)


def test_a_failure_is_recorded(folded: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardwaveError, match="loss became nan"):
        train(folded, defaults("mlp", **SMALL | {"learning_rate": 1e38}, val_fold=1), tmp_path / "run")
    found = result.read(tmp_path / "run")
    assert found["state"] == "FAILED" and "lower --learning-rate" in found["error"]


@pytest.mark.parametrize(
    ("options", "built", "message"),
    [
        (
            {"model": "mlp"},
            {"features": False},
            "model mlp needs field features.npy, .* has npy: build it with --features",
        ),
        (
            {"model": "cnn"},
            {"images": False},
            "model cnn needs field npy, .* has features.npy: build it from audio",
        ),
        ({"model": "cnn", "conv1_kernel": 40}, {}, "conv1_kernel 40 is larger than its input of 32 pixels"),
        ({"model": "cnn", "conv2_kernel": 17}, {}, "conv2_kernel 17 is larger than its input of 16 pixels"),
        ({"model": "cnn-plus"}, {"size": 16}, "cnn-plus needs images of at least 32x32, got 16x16"),
        (
            {"model": "cnn", "train_view": "slice"},
            {"slices": 0},
            "the shard set has no slices: use --train-view full",
        ),
        (
            {"model": "cnn", "select_by": "slice_mean"},
            {"slices": 0},
            "the shard set has no slices: use --select-by full",
        ),
        ({"model": "mlp", "device": "cuda"}, {}, "PyTorch sees no CUDA device"),
        ({"model": "mlp", "val_fold": 9}, {}, "--val-fold must be one of the set's folds 1, 2, got 9"),
        (
            {"model": "mlp", "val_fold": None},
            {},
            "has folds 1, 2: use --val-fold K, --test-fold K or --folds all",
        ),
        ({"model": "mlp", "val_fold": None, "test_fold": 1}, {}, "no fold is left for training"),
        ({"model": "mlp", "val_fold": None, "folds": "all"}, {}, "three folds or more, .* has 2"),
        (
            {"model": "mlp", "val_fold": None, "folds": "all", "nodes": 2},
            {},
            "use it without --devices and --nodes",
        ),
        ({"model": "mlp", "nodes": 0}, {}, "nodes must be an integer, 1 or more, got 0"),
        ({"model": "mlp", "batch_size": 0}, {}, "batch_size must be an integer, 1 or more, got 0"),
        ({"model": "mlp", "dropout": 1.0}, {}, "dropout must be at least 0 and below 1"),
        ({"model": "resnet"}, {}, "model must be one of mlp, cnn, vgg16, transfer, cnn-plus, got resnet"),
        (
            {"model": "mlp", "hiden_size": 3},
            {},
            "unknown training option hiden_size: choose from batch_size, conv1_channels",
        ),
    ],
)
def test_bad_input_raises_one_line(
    make_set: Callable[..., Path],
    tmp_path: Path,
    options: dict[str, Any],
    built: dict[str, Any],
    message: str,
) -> None:
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    made = make_set(tmp_path / "set", ["fold1", "fold2"], clips=2, **built)
    with pytest.raises(UsageError, match=message) as caught:
        train(made, defaults(**{"epochs": 1, "val_fold": 1, "device": "cpu", **options}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "checkpoint.ckpt").exists()


def test_a_split_without_samples_is_named(make_set: Callable[..., Path], tmp_path: Path) -> None:
    made = make_set(tmp_path / "set", ["train", "val"], clips=2)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["splits"]["val"] = {"full": [], "slice": []}
    (made / "manifest.json").write_text(json.dumps({**manifest, "set_id": set_id(manifest)}))
    with pytest.raises(UsageError, match="split val has no labelled samples to score"):
        train(made, defaults("mlp", **SMALL), tmp_path / "run")


def test_data_wait_is_measured_and_small(folded: Path, tmp_path: Path) -> None:
    found = train(folded, defaults("cnn", **SMALL | {"epochs": 2}, val_fold=1), tmp_path / "run")
    seconds = found["seconds"]
    assert 0 < seconds["data_wait"] < seconds["step"] < seconds["total"]


TRAIN = """
import json, sys
from pathlib import Path
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
import torch
torch.set_num_threads(1)
options = {"model": "mlp", "train_view": "both", **json.loads(sys.argv[3])}
config = defaults(epochs=3, batch_size=12, hidden_size=16, dropout=0.0, val_fold=1, device="cpu", mixup=0.0,
                  **options)
train(Path(sys.argv[1]), config, Path(sys.argv[2]), resume=(Path(sys.argv[2]) / "checkpoint.ckpt").exists())
"""


def start(shard_set: Path, out: Path, options: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "SHARDWAVE_QUIET": "1", **environment}
    script = out.parent / "program.py"  # a file: Lightning starts it again for a second device
    if not script.exists():
        script.write_text(TRAIN)
    command = [sys.executable, str(script), str(shard_set), str(out), json.dumps(options)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(*processes: subprocess.Popen[str]) -> None:
    """Wait until all have ended well; none is left behind."""
    try:
        for process in processes:
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_two_processes_share_each_batch(folded: Path, tmp_path: Path) -> None:
    """DDP with gloo on two CPU processes: equal samples in each global batch give equal losses."""
    end(
        start(folded, tmp_path / "one", {}),
        start(folded, tmp_path / "devices", {"devices": 2, "strategy": "ddp"}),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1])}
    end(*(start(folded, tmp_path / "nodes", {"nodes": 2}, NODE_RANK=str(rank), **place) for rank in (0, 1)))
    end(
        start(folded, tmp_path / "nodes", {"nodes": 2}, NODE_RANK="1", **place)
    )  # resumed when all is done: waits for nobody
    one = result.read(tmp_path / "one")
    for name in ("devices", "nodes"):
        two = result.read(tmp_path / name)
        assert two["state"] == "COMPLETE" and sum(map(sum, two["confusion"]["val_full"])) == 9
        for before, after in zip(one["history"], two["history"], strict=True):
            assert after["train_loss"] == pytest.approx(before["train_loss"], rel=1e-3)
            assert after["val_loss"] == pytest.approx(before["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_batch_normalisation_in_two_processes_on_the_cpu(folded: Path, tmp_path: Path) -> None:
    """PyTorch's SyncBatchNorm refuses CPUs."""
    options = {"model": "cnn-plus", "train_view": "full", "devices": 2, "strategy": "ddp"}
    end(start(folded, tmp_path / "run", options))
    assert result.read(tmp_path / "run")["state"] == "COMPLETE"
