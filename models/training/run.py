"""Training with Lightning's Trainer, which writes the files of a run folder."""

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
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.models.data.training_data import TrainingData
from shardwave.models.evaluation.evaluate import score
from shardwave.models.evaluation.held_out import write_predictions_and_errors
from shardwave.models.networks.base import parameters
from shardwave.models.runs import checkpoint, clip_table, result
from shardwave.models.runs.checkpoint import write as write_checkpoint
from shardwave.models.runs.records import RunResult, Settings, scores
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.learner import Learner
from shardwave.models.training.lightning_module import Classifier
from shardwave.models.training.malloc import keep_freed_memory
from shardwave.models.training.numerics import fixed_numerics
from shardwave.models.training.precision import resolved
from shardwave.models.training.recorder import LAST, Recorder
from shardwave.models.training.threads import limit_threads, useful_threads
from shardwave.models.training.tracking import logged

_FREE = ("device", "devices", "nodes", "strategy", "logger")  # fields that may change when a run is resumed


def run(
    data: TrainingData,
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    command: str = "train",
    save_seconds: float,
    title: str | None = None,
    draw_figures: bool = True,
    log_folder: Path | None = None,
) -> RunResult:
    """Train once with Lightning's Trainer and write a run folder.

    If several processes train together, only the first one locks and writes the run folder.

    Args:
        data: Data that was opened for `config`.
        config: Training settings.
        out: Run folder.
        resume: Whether to continue an interrupted run in `out`.
        command: Name of the command in result.json.
        save_seconds: Minimum interval between two saved states, in seconds.
        title: Text beside the progress bar; the name of the model by default.
        draw_figures: Whether to draw curves.png and confusion.png.
        log_folder: Folder of the files of `config.logger`, which contains `out`; None: `out`.

    Returns:
        The content of result.json. A process other than the first one returns it without scores.

    Raises:
        UsageError: `out` holds a run, and `resume` is false or the run was started with other settings or
            another set.
        ShardwaveError: The training loss became infinite or NaN, a file is damaged, or another process uses
            `out`.
        KeyboardInterrupt: Training was interrupted; its state is saved.
    """
    config = resolved(config, data.device)
    primary = _is_primary(config)
    finished = None if primary or not _is_complete(out, resume) else result.read(out)
    with result.open_run(out, resume) if primary else contextlib.nullcontext(finished) as earlier:
        if earlier is not None:
            check_same(earlier, config, data, out)
            if earlier["state"] == "COMPLETE":
                return earlier
        begin = time.perf_counter() - result.earlier_seconds(earlier)
        table = clip_table.clip_table(data.source, data.field) if primary else None
        saved: Settings = {}  # shown by the result until the saved state is read
        if earlier is not None and (out / LAST).exists():
            names = ("history", "best_epoch", "seconds")
            saved = {name: value for name, value in earlier.items() if name in names}
        log_folder = log_folder or out
        name = "" if out == log_folder else out.relative_to(log_folder).as_posix()
        described = {"model": config.model, "seed": config.seed, **config.params()}
        with (
            result.Result(out, command, writes=primary, **run_fields(data, config, table), **saved) as record,
            logged(config.logger if primary else None, log_folder, name, described) as tracker,
        ):
            if table is not None:
                table.write(out)
            recorder = Recorder(record, data, config, save_seconds, title or config.model, begin)
            learner = _fit(data, config, out, recorder, resume, tracker)
            if not primary:
                return record.fields
            best = recorder.history.best
            assert best is not None
            trained = checkpoint.load(out / checkpoint.NAME)
            test = score(trained.head, data.test_batches(), "test", data.field, data.device, config.precision)
            if tracker is not None and test.scores:
                tracker.log_metrics(test.scores, best["epoch"])
            write_predictions_and_errors(out, data, trained, test.predictions)
            if data.backbone_cost is not None:
                recorder.seconds["backbone"] = data.backbone_cost
            record.fields |= {
                "best_epoch": best["epoch"],
                "scores": {**scores(best), **test.scores},
                "per_class": best["per_class"] | test.per_class,
                "confusion": best["confusion"] | test.confusion,
                "history": recorder.history.entries,
                "parameters": parameters(learner.network),
                "seconds": recorder.seconds,
            }
            if draw_figures:
                _draw(out, config, data, record.fields)
            record.fields["seconds"]["total"] = time.perf_counter() - begin
        (out / LAST).unlink(missing_ok=True)
        return record.fields


@fixed_numerics()
def _fit(
    data: TrainingData,
    config: TrainConfig,
    out: Path,
    recorder: Recorder,
    resume: bool,
    tracker: Logger | None,
) -> Learner:
    """Train with a Trainer, from the saved state if there is one."""
    keep_freed_memory()
    last = out / LAST if resume and (out / LAST).exists() else None
    if last is not None:
        checkpoint.check_last(last)  # Lightning's own errors do not name the file
    elif resume and recorder.result.writes:
        say(f"{out} holds no saved state: training starts from epoch 1")
    with warnings.catch_warnings(), _quiet():
        # warnings about DataLoader workers and log intervals do not apply to Batches
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
            logger=tracker or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # PyTorch synchronises batch statistics on GPUs only; on CPUs, each process uses those of its part
            sync_batchnorm=config.devices * config.nodes > 1 and data.device.type == "cuda",
            default_root_dir=out,
        )
        data.use_device(trainer.strategy.root_device)  # of this process
        learner = data.learner(config, len(data.train_batches(config, 0, trainer.world_size)))
        threads = useful_threads(learner.network, config.batch_size // trainer.world_size)
        recorder.result.fields["threads"] = threads
        with recorder.interruption, _exit_as_interrupt(trainer), limit_threads(threads):
            trainer.fit(Classifier(learner, data), ckpt_path=last, weights_only=True)
    recorder.interruption.raise_if_requested()
    return learner


class AtomicCheckpoints(TorchCheckpointIO):
    """Lightning plugin that writes checkpoints atomically, under a temporary name in the run folder."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint atomically."""
        write_checkpoint(Path(path), checkpoint)


def _is_primary(config: TrainConfig) -> bool:
    """Return whether this process is the one that writes the run folder.

    Lightning starts the program once per device. On several nodes the user (with NODE_RANK), torchrun or
    SLURM starts it once per node.
    """
    node = (
        next((os.environ[name] for name in ("NODE_RANK", "GROUP_RANK") if name in os.environ), "0")
        if config.nodes > 1
        else "0"
    )
    return node == "0" and getattr(rank_zero_only, "rank", 0) == 0


def _is_complete(out: Path, resume: bool) -> bool:
    """Return whether the run is complete. The processes of a complete run must not wait for each other."""
    return resume and (out / result.RESULT).exists() and result.read(out)["state"] == "COMPLETE"


def run_fields(data: TrainingData, config: TrainConfig, table: clip_table.ClipTable | None) -> Settings:
    """Return the fields of result.json that are known before a training starts.

    Args:
        data: Data of the training.
        config: Training settings.
        table: Table of the clips of the set; None omits the number of clips.

    Returns:
        Some of the fields of `RunResult`.
    """
    return {
        "model": config.model,
        "params": config.params(),
        "seed": config.seed,
        "config": dataclasses.asdict(config),
        **clip_table.set_fields(data.source, table),
        "folds": {role: list(names) for role, names in data.roles._asdict().items()},
        "selected_by": data.selected,
        "select_metric": config.select_metric,
    }


def check_same(earlier: RunResult, config: TrainConfig, data: TrainingData, out: Path) -> None:
    """Raise UsageError if an earlier run cannot be resumed, since its settings or its shard set differ.

    Args:
        earlier: Content of result.json of the earlier run.
        config: Current training settings.
        data: Current data.
        out: Run folder of the earlier run.
    """
    before, now = earlier["config"], dataclasses.asdict(config)
    for name in now:
        if name not in _FREE and before.get(name) != now[name]:
            raise UsageError(
                f"--resume: the run was started with {name} {before.get(name)}, not {now[name]}; "
                "use the same options, or another --out"
            )
    clip_table.check_same_set(earlier, out, data.source, data.field)


def _draw(out: Path, config: TrainConfig, data: TrainingData, fields: RunResult) -> None:
    from shardwave.models.runs import figures

    title = f"{config.model} on {Path(data.path).name}"
    figures.curves(out / "curves.png", fields["history"], data.selected, fields["best_epoch"], title)
    for split, name in (("test", "test"), ("val", "validation"), ("train", "training")):
        matrix = fields["confusion"].get(f"{split}_{data.selected}")
        if matrix is not None:
            text = f"{title}: {name}, {figures.NAMES[data.selected]}, epoch {fields['best_epoch']}"
            figures.confusion(out / "confusion.png", matrix, list(data.source.classes), text)
            return


@contextlib.contextmanager
def _exit_as_interrupt(trainer: pl.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt in place of the SystemExit that Lightning raises after an interruption."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages about devices and tips; errors are still shown."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
