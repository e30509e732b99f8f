"""One training by Lightning's Trainer, leaving a run folder: result.json, checkpoint.ckpt, clips.npz, errors.csv, figures."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation import clip_csv
from shardwave.models.evaluation.evaluate import predictions, score
from shardwave.models.evaluation.metrics import ClipPredictions
from shardwave.models.networks.base import parameters
from shardwave.models.runs import checkpoint, clip_table, result
from shardwave.models.runs.checkpoint import write as write_checkpoint
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.learner import SCORE_VIEWS, Learner
from shardwave.models.training.lightning_module import Classifier
from shardwave.models.training.malloc import keep_freed_memory
from shardwave.models.training.recorder import LAST, Recorder
from shardwave.models.training.threads import limited, useful_threads

_FREE = ("device", "devices", "nodes", "strategy")  # what a resumed run may change


def run(
    data: TrainingData,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    command: str = "train",
    save_seconds: float,
    title: str | None = None,
    draws: bool = True,
) -> dict[str, Any]:
    """Train once on opened data. Of the processes of several devices, the first one locks and writes the run folder.

    Args:
        data: The data, opened for `config`.
        config: The training.
        out: The run folder.
        resume: Go on with an interrupted run in `out`.
        command: The name of the command in result.json.
        save_seconds: The least time between two saved states.
        title: The text beside the progress bar; the model by default.
        draws: Whether to draw figures.

    Returns:
        What result.json holds.
    """
    primary = _is_first(config)
    finished = None if primary or not _is_complete(out, resume) else result.read(out)
    with result.open_run(out, resume) if primary else contextlib.nullcontext(finished) as earlier:
        if earlier is not None:
            check_same(earlier, config, data, out)
            if earlier["state"] == "COMPLETE":
                return earlier
        begin = time.perf_counter() - (earlier or {}).get("seconds", {}).get("total", 0.0)  # of before an interruption
        table = clip_table.clip_table(data.source, data.field) if primary else None
        kept = {}  # until the saved state is read, the result shows what it goes on with
        if earlier is not None and (out / LAST).exists():
            kept = {name: earlier[name] for name in ("history", "best_epoch", "seconds") if name in earlier}
        with result.Result(out, command, writes=primary, **about(data, config, table), **kept) as written:
            if table is not None:
                table.write(out)
            recorder = Recorder(written, data, config, save_seconds, title or config.model, begin)
            learner = _fit(data, config, out, recorder, resume)
            if not primary:
                return written.fields
            best = recorder.history.best
            assert best is not None
            trained = checkpoint.load(out / checkpoint.NAME)
            test = score(trained.head, data.test_batches(), "test", data.field, data.device, config.precision)
            clip_csv.write_errors(out / clip_csv.ERRORS, _wrong(data, trained, test.predictions), trained.classes)
            scores = {name: value for name, value in best.items() if name not in ("epoch", "per_class", "confusion")}
            written.fields |= {
                "best_epoch": best["epoch"],
                "scores": scores | test.scores,
                "per_class": best["per_class"] | test.per_class,
                "confusion": best["confusion"] | test.confusion,
                "history": recorder.history.entries,
                "parameters": parameters(learner.network),
                "seconds": recorder.seconds | ({"backbone": data.backbone_cost} if data.backbone_cost else {}),
            }
            if draws:
                _draw(out, config, data, written.fields)
            written.fields["seconds"]["total"] = time.perf_counter() - begin
        (out / LAST).unlink(missing_ok=True)
        return written.fields


def _fit(data: TrainingData, config: TrainConfig, out: Path, recorder: Recorder, resume: bool) -> Learner:
    """Train by a Trainer, from the saved state on where there is one."""
    keep_freed_memory()
    last = out / LAST if resume and (out / LAST).exists() else None
    if last is not None:
        checkpoint.check_last(last)  # a damaged one is named, before Lightning falls over it
    elif resume and recorder.result.writes:
        say(f"{out} holds no saved state: the training starts anew at epoch 1")
    with warnings.catch_warnings(), _quiet():
        # about DataLoader workers, log intervals and the like: our reader has its own
        warnings.filterwarnings("ignore", module="lightning")
        trainer = pl.Trainer(
            accelerator="gpu" if data.device.type == "cuda" else "cpu",
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=recorder.epochs,
            callbacks=[recorder],
            plugins=[AtomicCheckpoints()],
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
        threads = useful_threads(learner.network, config.batch_size // trainer.world_size)
        recorder.result.fields["threads"] = threads
        with recorder.interruption, _exit_as_interrupt(trainer), limited(threads):
            trainer.fit(Classifier(learner, data), ckpt_path=last, weights_only=True)
    recorder.interruption.raise_if_requested()
    return learner


class AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written under a temporary name in the run folder itself and renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        write_checkpoint(Path(path), checkpoint)


def _wrong(data: TrainingData, trained: checkpoint.Trained, test: dict[str, ClipPredictions]) -> list[clip_csv.ClipRow]:
    """The validation and test clips that the trained network gets wrong, by the score that selected it."""
    view = SCORE_VIEWS[data.selected]
    rows: list[clip_csv.ClipRow] = []
    for names, views, found in ((data.roles.val, data.val, None), (data.roles.test, data.test, test.get(view))):
        if names and view in views:
            batches = data.evaluation_batches(views[view])
            found = found or predictions(trained.head, batches, data.field, data.device, trained.config.precision)
            rows += clip_csv.clip_rows(found, views[view], ", ".join(names))
    return clip_csv.wrong(rows, trained.classes)


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


def about(data: TrainingData, config: TrainConfig, table: clip_table.ClipTable | None) -> dict[str, Any]:
    """What result.json says of a training before it starts."""
    return {
        "model": config.model,
        "params": config.params(),
        "seed": config.seed,
        "config": dataclasses.asdict(config),
        **clip_table.about(data.source, table),
        "folds": {role: list(names) for role, names in data.roles._asdict().items()},
        "selected_by": data.selected,
    }


def check_same(earlier: dict[str, Any], config: TrainConfig, data: TrainingData, out: Path) -> None:
    """Raise UsageError where the run in `out` was started with another configuration or on another shard set."""
    before, now = earlier["config"], dataclasses.asdict(config)
    for name in now:
        if name not in _FREE and before.get(name) != now[name]:
            raise UsageError(
                f"--resume: the run was started with {name} {before.get(name)}, not {now[name]}; "
                "give the same options, or another --out"
            )
    clip_table.check_same_set(earlier, out, data.source, data.field)


def _draw(out: Path, config: TrainConfig, data: TrainingData, fields: dict[str, Any]) -> None:
    from shardwave.models.runs import figures

    title = f"{config.model} on {Path(data.path).name}"
    figures.curves(out / "curves.png", fields["history"], data.selected, fields["best_epoch"], title)
    for side, name in (("test", "test"), ("val", "validation"), ("train", "training")):
        matrix = fields["confusion"].get(f"{side}_{data.selected}")
        if matrix is not None:
            text = f"{title}: {name}, {figures.NAMES[data.selected]}, epoch {fields['best_epoch']}"
            figures.confusion(out / "confusion.png", matrix, list(data.source.classes), text)
            return


@contextlib.contextmanager
def _exit_as_interrupt(trainer: pl.Trainer) -> Iterator[None]:
    """Lightning turns KeyboardInterrupt into SystemExit: raise KeyboardInterrupt again."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


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
