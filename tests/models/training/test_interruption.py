"""Ctrl-C and SIGTERM at any moment of a training, also in its first seconds.

`--resume` continues with the epochs that the history shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.models.evaluation import evaluate
from shardwave.models.runs import checkpoint, result
from shardwave.models.training.config import defaults
from shardwave.models.training.learner import Learner
from shardwave.models.training.recorder import LAST
from shardwave.models.training.train import train

CONFIG = defaults(
    "mlp", epochs=3, batch_size=8, hidden_size=16, device="cpu", val_fold=1, train_view="slice"
)  # 11 steps an epoch
STEPS = 11


@pytest.fixture(scope="module")
def whole(folded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same training without an interruption."""
    return train(folded, CONFIG, tmp_path_factory.mktemp("full") / "run")


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    after = Learner.after_step

    def stepped(learner: Learner) -> None:
        after(learner)
        if learner.steps == step:
            action()

    monkeypatch.setattr(Learner, "after_step", stepped)


def send(kind: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), kind)


def goes_on(
    folded: Path, out: Path, whole: dict[str, Any], capfd: pytest.CaptureFixture[str], epochs: int
) -> None:
    """The interrupted run says so, holds its state, and ends as the one without an interruption."""
    stopped = result.read(out)
    assert stopped["state"] == "INTERRUPTED" and len(stopped.get("history", [])) == epochs
    assert stopped.get("history", []) == whole["history"][:epochs]
    assert (out / checkpoint.NAME).exists() == (epochs > 0)
    if epochs:
        assert checkpoint.load(out / checkpoint.NAME).epoch == stopped["best_epoch"]
    capfd.readouterr()
    resumed = train(folded, CONFIG, out, resume=True)
    assert f"resuming after {epochs} of 3 epochs" in capfd.readouterr().err
    assert resumed["history"] == whole["history"] and resumed["scores"] == whole["scores"]
    assert not (out / LAST).exists() and not list(out.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("kind", "step", "epochs"),
    [
        (signal.SIGINT, 1, 0),
        (signal.SIGTERM, STEPS, 1),
        (signal.SIGINT, STEPS + 6, 1),
        (signal.SIGINT, 3 * STEPS, 3),
    ],
)
def test_a_signal_in_a_batch_saves_the_state(
    folded: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    kind: signal.Signals,
    step: int,
    epochs: int,
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    at_step(monkeypatch, step, send(kind))
    with pytest.raises(KeyboardInterrupt):
        train(folded, CONFIG, tmp_path / "run")
    monkeypatch.undo()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    goes_on(folded, tmp_path / "run", whole, capfd, epochs)


def test_a_signal_in_a_validation_takes_effect_after_it_with_a_message(
    folded: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    validate = Learner.validation_step

    def interrupted(learner: Learner, batch: Any, view: int) -> None:
        if learner.steps == 2 * STEPS and view == 0:
            send(signal.SIGINT)()
        validate(learner, batch, view)

    monkeypatch.setattr(Learner, "validation_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(folded, CONFIG, tmp_path / "run")
    monkeypatch.undo()
    assert "the state is saved after the validation of this epoch" in capfd.readouterr().err
    goes_on(folded, tmp_path / "run", whole, capfd, 2)


def test_a_signal_during_final_scoring_loses_no_epoch(
    folded: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "PredictionAccumulator", lambda: send(signal.SIGTERM)())
    with pytest.raises(KeyboardInterrupt):
        train(folded, CONFIG, tmp_path / "run")
    monkeypatch.undo()
    at_step(monkeypatch, 1, lambda: pytest.fail("it is trained anew"))
    goes_on(folded, tmp_path / "run", whole, capfd, 3)


@pytest.mark.parametrize("save_seconds", [0.0, 20.0])
def test_a_second_signal_during_saving_leaves_the_earlier_state_or_none(
    folded: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    save_seconds: float,
) -> None:
    out, fsync, sent = tmp_path / "run", os.fsync, []

    def first() -> None:
        sent.append(1)
        send(signal.SIGINT)()

    def interrupted(descriptor: int) -> None:
        if sent and "last.ckpt" in os.readlink(f"/proc/self/fd/{descriptor}"):
            sent.append(2)
            send(signal.SIGINT)()
        fsync(descriptor)

    at_step(monkeypatch, STEPS + 6, first)
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(folded, CONFIG, out, save_seconds=save_seconds)
    monkeypatch.undo()
    assert sent == [1, 2] and not list(out.glob(".*.tmp")) and (out / LAST).exists() == (save_seconds == 0)
    assert train(folded, CONFIG, out, resume=True)["history"] == whole["history"]
    told = (
        "resuming after 1 of 3 epochs"
        if save_seconds == 0
        else "holds no saved state: training starts from epoch 1"
    )
    assert told in capfd.readouterr().err


@pytest.mark.slow
def test_cross_validation_continues_within_the_interrupted_epoch(
    make_set: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folded = make_set(tmp_path / "set", ["fold1", "fold2", "fold3"], clips=4)
    config = defaults(
        "mlp", epochs=2, batch_size=4, hidden_size=16, device="cpu", folds="all", train_view="slice"
    )
    whole = train(folded, config, tmp_path / "full")
    begun = []

    def fourth() -> None:
        begun.append(1)
        if len(begun) == 4:  # the trainings of fold 1, the first of fold 2, and then this one
            send(signal.SIGINT)()

    at_step(monkeypatch, 3, fourth)
    with pytest.raises(KeyboardInterrupt):
        train(folded, config, tmp_path / "run")
    monkeypatch.undo()
    assert result.read(tmp_path / "run")["state"] == "INTERRUPTED"
    assert (
        result.read(tmp_path / "run" / "fold2")["state"] == "INTERRUPTED"
        and (tmp_path / "run" / "fold2" / LAST).exists()
    )
    capfd.readouterr()
    resumed = train(folded, config, tmp_path / "run", resume=True)
    assert f"{tmp_path / 'run' / 'fold2'}: resuming after 0 of" in capfd.readouterr().err
    assert resumed["scores"] == whole["scores"] and resumed["state"] == "COMPLETE"


SLOW = """
import sys, time
from pathlib import Path
from shardwave.models.training.config import defaults
from shardwave.models.training.learner import Learner
from shardwave.models.training.train import train
after = Learner.after_step
Learner.after_step = lambda self: (after(self), time.sleep(0.1))
config = defaults("mlp", epochs=50, batch_size=8, hidden_size=16, device="cpu", val_fold=1,
                  train_view="slice")
train(Path(sys.argv[1]), config, Path(sys.argv[2]), resume=True)
"""


def test_a_run_folder_is_locked_until_its_process_ends(folded: Path, tmp_path: Path) -> None:
    out, config = (
        tmp_path / "run",
        defaults(
            "mlp", epochs=50, batch_size=8, hidden_size=16, device="cpu", val_fold=1, train_view="slice"
        ),
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folded), str(out)], env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "result.json").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        for resume in (True, False):
            with pytest.raises(ShardwaveError, match="another process trains or searches in .*run: wait"):
                train(folded, config, out, resume=resume)
    finally:
        process.kill()
        process.communicate()
    for name in (".last.ckpt.123.tmp", ".result.json.4.tmp"):
        (out / name).write_bytes(b"half")
    short = defaults(
        "mlp",
        epochs=50,
        stop_after=1,
        batch_size=8,
        hidden_size=16,
        device="cpu",
        val_fold=1,
        train_view="slice",
    )
    with pytest.raises(
        Exception, match="started with stop_after None, not 1"
    ):  # the lock is free: it looks at the run
        train(folded, short, out, resume=True)
    assert not list(out.glob(".*.tmp"))
