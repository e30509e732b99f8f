"""One training by Lightning's Trainer, leaving a run folder: result.json, checkpoint.ckpt, curves.png, confusion.png."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from models import checkpoint, result
from models.allocator import keep_freed_memory
from models.config import TrainConfig
from models.data import TrainingData
from models.evaluate import score
from models.history import History
from models.learner import Learner
from models.module import Classifier, ShardDataModule
from models.network import parameters
from models.recorder import LAST, Recorder, remove_last
from models.threads import limited, useful_threads
from preprocess.errors import UsageError

SAVE_SECONDS = 20.0
_FREE = ("device", "devices", "nodes", "strategy")  # what a resumed run may change


def train(
    set_path: Path | str,
    config: TrainConfig,
    out: Path,
    resume: bool = False,
    command: str = "train",
    save_seconds: float = SAVE_SECONDS,
) -> dict[str, Any]:
    """Train as `config` says on the shard set, and return what result.json holds.

    `config.folds` "all" cross-validates. `resume` goes on with an interrupted run in `out`, in mid-training; `save_seconds` is
    the least time between two states to go on from.
    """
    if config.folds == "all":
        from models.crossval import cross_validate

        return cross_validate(set_path, config, out, resume=resume, command=command, save_seconds=save_seconds)
    return run(TrainingData(set_path, config), config, out, resume=resume, command=command, save_seconds=save_seconds)


def run(
    data: TrainingData,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    command: str,
    save_seconds: float = SAVE_SECONDS,
    title: str | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Train once on opened data; `title` (default: the model) stands beside its progress, `figures`: whether to draw any."""
    primary = _is_first(config)
    earlier = result.open_run(out, resume) if primary else result.read(out) if _is_complete(out, resume) else None
    if earlier is not None:
        check_same(earlier, config, data)
        if earlier["state"] == "COMPLETE":
            return earlier
    keep_freed_memory()
    begin = time.perf_counter()
    history = History(data.selected)
    spent = (earlier or {}).get("seconds", {}).get("total", 0.0)  # before an interruption
    with result.Result(out, command, writes=primary, **about(data, config)) as written:
        recorder, learner = _train(data, config, out, written, history, resume, save_seconds, spent, title or config.model)
        if not primary:
            return written.fields
        assert history.best is not None
        scores = {name: value for name, value in history.best.items() if name not in ("epoch", "per_class", "confusion")}
        per_class, confusion = dict(history.best["per_class"]), dict(history.best["confusion"])
        trained = checkpoint.load(out / checkpoint.NAME)
        test = score(trained.head, data.test_batches(), "test", data.field, data.device, config.precision)
        scores |= test.scores
        per_class |= test.per_class
        confusion |= test.confusion
        if figures:
            _draw(out, config, history, data, confusion)
        written.fields |= {
            "best_epoch": history.best_epoch,
            "scores": scores,
            "per_class": per_class,
            "confusion": confusion,
            "history": history.entries,
            "parameters": parameters(learner.network),
            "seconds": {
                **recorder.seconds,
                "total": spent + time.perf_counter() - begin,
                **({"backbone": data.backbone_cost} if data.backbone_cost else {}),
            },
        }
    remove_last(out)
    return written.fields


def _train(
    data: TrainingData,
    config: TrainConfig,
    out: Path,
    written: result.Result,
    history: History,
    resume: bool,
    save_seconds: float,
    spent: float,
    title: str,
) -> tuple[Recorder, Learner]:
    epochs = config.stop_after or config.epochs
    if resume and (out / LAST).exists():
        checkpoint.read(out / LAST)  # a damaged one is named, before Lightning falls over it
    known = {
        "classes": list(data.source.classes),
        "fingerprint": data.source.fingerprint,
        "spectrogram": data.spectrogram,
        "selected": data.selected,
        **({"backbone": data.frozen.state_dict()} if data.frozen else {}),
    }

    def save_best(weights: dict[str, Tensor], epoch: int) -> None:
        checkpoint.save(out / checkpoint.NAME, weights, data.inputs, config, {**known, "epoch": epoch})

    recorder = Recorder(history, written, save_best, epochs, save_seconds, title, spent)
    with warnings.catch_warnings(), _quiet():
        warnings.filterwarnings(
            "ignore", module="lightning"
        )  # about DataLoader workers, log intervals and the like: our reader has its own
        trainer = pl.Trainer(
            accelerator="gpu" if data.device.type == "cuda" else "cpu",
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            sync_batchnorm=config.devices * config.nodes > 1,
            default_root_dir=out,
        )
        learner = data.learner(config, len(data.train_batches(config, 0, trainer.world_size)))
        last = out / LAST
        threads = useful_threads(learner.network, config.batch_size // trainer.world_size)
        written.fields["threads"] = threads
        with _interruptible(trainer), limited(threads):
            trainer.fit(
                Classifier(learner),
                datamodule=ShardDataModule(data, config),
                ckpt_path=last if resume and last.exists() else None,
                weights_only=True,
            )
    return recorder, learner


def _is_first(config: TrainConfig) -> bool:
    """Whether this process, of those that train together, is the one that writes.

    Lightning starts this program once per device; on several nodes people do (MASTER_ADDR, NODE_RANK), or torchrun or SLURM.
    """
    node = (
        next((os.environ[name] for name in ("NODE_RANK", "GROUP_RANK") if name in os.environ), "0") if config.nodes > 1 else "0"
    )
    return node == "0" and getattr(rank_zero_only, "rank", 0) == 0


def _is_complete(out: Path, resume: bool) -> bool:
    """Whether there is nothing to resume: then no process may wait for the others."""
    return resume and (out / result.RESULT).exists() and result.read(out)["state"] == "COMPLETE"


def about(data: TrainingData, config: TrainConfig) -> dict[str, Any]:
    """What result.json says of a training before it starts."""
    return {
        "model": config.model,
        "params": config.params(),
        "seed": config.seed,
        "config": dataclasses.asdict(config),
        "set": str(data.path),
        "fingerprint": data.source.fingerprint,
        "classes": list(data.source.classes),
        "folds": {role: list(names) for role, names in data.roles._asdict().items()},
        "selected_by": data.selected,
    }


def check_same(earlier: dict[str, Any], config: TrainConfig, data: TrainingData) -> None:
    """A resumed run goes on with the configuration and the kind of shard set that it began with."""
    before, now = earlier["config"], dataclasses.asdict(config)
    for name in now:
        if name not in _FREE and before.get(name) != now[name]:
            raise UsageError(
                f"--resume: the run was started with {name} {before.get(name)}, not {now[name]}; "
                "give the same options, or another --out"
            )
    if earlier["fingerprint"] != data.source.fingerprint or earlier["classes"] != list(data.source.classes):
        raise UsageError(
            f"--resume: the run was started on a set of fingerprint {earlier['fingerprint']}, "
            f"{data.path} has {data.source.fingerprint}, or other classes"
        )


def _draw(out: Path, config: TrainConfig, history: History, data: TrainingData, confusion: dict[str, Any]) -> None:
    from models import figures

    title = f"{config.model} on {Path(data.path).name}"
    figures.curves(out / "curves.png", history.entries, data.selected, history.best_epoch, title)
    for side, name in (("test", "test"), ("val", "validation"), ("train", "training")):
        matrix = confusion.get(f"{side}_{data.selected}")
        if matrix is not None:
            text = f"{title}: {name}, {figures.NAMES[data.selected]}, epoch {history.best_epoch}"
            figures.confusion(out / "confusion.png", matrix, list(data.source.classes), text)
            return


@contextlib.contextmanager
def _interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning makes of Ctrl-C an exit with SIGINT ignored from then on: let it stay what it is."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if in_main and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning announces devices and tips on standard error at every start; errors still show."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
