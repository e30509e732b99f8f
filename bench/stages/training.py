"""Training steps of each model on batches from shards, from a resident copy, and on one synthetic batch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from shardwave.bench.harness import limits
from shardwave.bench.harness.record import Params, Record
from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import Case, timed
from shardwave.models.data.batches import Batches
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.config import TrainConfig, defaults
from shardwave.models.training.fit import fit, take_step
from shardwave.models.training.learner import Batch
from shardwave.models.training.malloc import keep_freed_memory
from shardwave.models.training.precision import DTYPES, autocast, resolved
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.read.resident import Resident

STAGE, UNIT = "training", "samples/s"
HEADLINE = "cnn 512 x 512"  # the record of the step "training" of a clip; images have the default size
IMAGE_SIZE = 128  # pixels, as in the guides
BATCH = 32


def run(scope: Scope) -> Iterator[Record]:
    """Measure every model at 128 x 128 pixels, and the CNN at 512 x 512 too.

    The MLP trains on features, the head of VGG16 on cached outputs.

    Yields:
        Records in samples per second, and in seconds per epoch.
    """
    path = labelled_set(scope, IMAGE_SIZE, scope.pick(8, 60))
    for model in ("mlp", "cnn", "cnn-plus"):
        yield from _model(scope, path, config_of(model), model)
    yield from _model(scope, backbone_set(scope), config_of("vgg16"), "vgg16 head")
    yield from _model(
        scope, labelled_set(scope, 512, 8), config_of("cnn", batch_size=scope.pick(4, 16)), HEADLINE
    )


def config_of(model: str, **changes: Any) -> TrainConfig:
    """Return the default training of a model, with `changes`.

    VGG16 has random weights, which cost the same and need no download.
    """
    # slices give ten times as many samples as full views
    options = {"weights": "none"} if model == "vgg16" else {"train_view": "slice"}
    return defaults(model, **{"batch_size": BATCH, "precision": "32-true", **options, **changes})


def labelled_set(scope: Scope, image_size: int, clips: int, slices: int = 10) -> Path:
    """Build a shard set with images and features, split into train and val, at first use; return its path.

    Args:
        scope: Scope of the run.
        image_size: Height and width of the images in pixels.
        clips: Number of clips.
        slices: Slices of each clip.
    """
    folder = scope.subfolder(f"labelled-{image_size}-{clips}-{slices}")
    if not (folder / "set" / "manifest.json").exists():
        for path in scope.audio[:clips]:
            target = folder / "audio" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
        config = SpectrogramConfig(image_size=image_size, slices=slices, features=True)
        options = BuildOptions(engine="numba", device="cpu", val_fraction=0.25, workers=scope.workers)
        build(folder / "audio", folder / "set", config, options)
    return folder / "set"


def backbone_set(scope: Scope) -> Path:
    """Build a small shard set, because the convolutions of VGG16 take 0.2 s per image on two cores."""
    return labelled_set(scope, 224, scope.pick(8, 16), slices=scope.pick(0, 4))


def steps(
    data: TrainingData, config: TrainConfig, batches: Callable[[], Iterable[Batch]]
) -> Callable[[], None]:
    """Return a function that trains one model: forward pass, backward pass and optimiser step per batch.

    The steps have the precision of `config`, as those of `fit`.

    Args:
        data: Training data; its device is that of the training.
        config: Training settings.
        batches: Returns the batches of one call.
    """
    keep_freed_memory()
    config = resolved(config, data.device)
    learner = data.learner(config, 1).to(data.device, DTYPES[config.precision])
    optimizer, schedule = learner.optimizers()
    learner.train()

    def run() -> None:
        for batch in batches():
            with autocast(config.precision, data.device):
                loss = learner.training_step(data.to_device(batch))
            take_step(learner, loss, optimizer, schedule)
        learner.reset_epoch()  # discards the predictions

    return run


def peaks(device: str, per_sample: float, quick: bool) -> list[Case]:
    """Return baseline cases: a matrix product and two convolutions in float32.

    Args:
        device: Device of torch.
        per_sample: Floating-point operations that count as one sample.
        quick: Whether to use a smaller matrix.
    """
    cuda = device == "cuda"
    size = 8_192 if cuda else 1_024 if quick else 2_048
    peaks = [("matrix product peak", limits.matmul(device, torch.float32, size), {"size": size})]
    for channels, side in ((64, 112), (256, 28)):  # early and late in a network such as VGG16
        convolution = limits.convolution(device, torch.float32, 64 if cuda else 8, channels, side)
        peaks.append(
            (f"convolution peak, {channels} channels", convolution, {"channels": channels, "side": side})
        )
    return [
        Case(name, "baseline", run, operations / per_sample, {**params, "flops_per_sample": per_sample})
        for name, (run, operations), params in peaks
    ]


def least_seconds(scope: Scope, device: str, config: TrainConfig, operations: float) -> float | None:
    """Return the least seconds that `operations` take, or None if no peak is known.

    The peak is measured on the CPU in float32.

    Args:
        scope: Scope of the run.
        device: Device of the training.
        config: Training; its precision decides whether the peak applies.
        operations: Floating-point operations.
    """
    return (
        scope.machine.least(flops=operations)[0]
        if device == "cpu" and config.precision == "32-true"
        else None
    )


def limit_cases(
    scope: Scope,
    device: str,
    config: TrainConfig,
    prefix: str,
    work: float,
    params: Params,
    operations: float,
) -> list[Case]:
    """Return a list with the case of the limit; empty if no peak is known (see `least_seconds`).

    Args:
        scope: Scope of the run.
        device: Device of the training.
        config: Training settings.
        prefix: Text before the name of the resource in the case's name.
        work: Samples of one call.
        params: Parameters of the group.
        operations: Floating-point operations of one call.
    """
    known = least_seconds(scope, device, config, operations) is not None
    return [scope.machine.limit_case(prefix, work, params, flops=operations)] if known else []


def _flops_per_sample(data: TrainingData, config: TrainConfig, batch: Batch) -> float:
    """Count the operations of a step per sample: products and convolutions, forward and backward."""
    learner = data.learner(config, 1).to(data.device)
    with FlopCounterMode(display=False) as counter:
        learner.training_step(data.to_device(batch)).backward()
    return counter.get_total_flops() / len(batch["cls"])


def _model(scope: Scope, path: Path, config: TrainConfig, name: str) -> Iterator[Record]:
    data = TrainingData(path, config)
    batch_size = min(config.batch_size, len(data.train))
    resident = Resident(data.train, data.device, (data.field,))
    count = min(len(data.train) // batch_size, _steps(scope, name))
    from_shards = Batches(
        data.train, data.train, data.field, batch_size, seed=0, pin=data.device.type == "cuda"
    )
    from_copy = Batches(data.train, resident, data.field, batch_size, seed=0)
    one = data.to_device(next(iter(from_copy)))
    params = {
        "group": name, "model": config.model, "batch_size": batch_size, "shape": list(data.inputs.shape),
        "steps": count,
        "device": data.device.type, "precision": config.precision,
    }  # fmt: skip
    flops = _flops_per_sample(data, config, one)
    operations = flops * count * batch_size
    least = least_seconds(scope, data.device.type, config, operations)
    clip_step = (
        {"clip_step": {"step": "Training steps of the CNN", "work": 10, "when": "epoch"}}
        if name == HEADLINE
        else {}
    )

    def case(source: str, batches: Callable[[], Iterable[Batch]], **more: Any) -> Case:
        run = steps(data, config, batches)
        return Case(f"{name}: {source}", "ours", run, count * batch_size, {**params, **more}, least=least)

    cases = [
        case("from shards", lambda: itertools.islice(from_shards, count)),
        case("from a resident copy", lambda: itertools.islice(from_copy, count)),
        case("one synthetic batch", lambda: itertools.repeat(one, count), **clip_step),
    ]
    for peak in peaks(data.device.type, flops, scope.quick):
        cases.append(
            dataclasses.replace(peak, name=f"{name}: {peak.name}", params={**peak.params, "group": name})
        )
    cases += limit_cases(scope, data.device.type, config, f"{name}: ", count * batch_size, params, operations)
    yield from timed(STAGE, UNIT, cases, scope.plan, seconds=scope.pick(1, 15))
    if scope.quick and name == HEADLINE:  # one epoch takes longer than the other cases together
        return
    epochs = scope.pick(1, 3)
    repeats = [fit(data, dataclasses.replace(config, epochs=epochs)).seconds for _ in range(scope.pick(1, 3))]
    middle = sorted(repeats, key=lambda seconds: seconds["total"])[len(repeats) // 2]
    spent = {
        "training steps": middle["step"],
        "waiting for data": middle["data_wait"],
        "validation": middle["validation"],
    }
    spent["start and the rest"] = max(0.0, middle["total"] - sum(spent.values()))
    parts = {part: seconds / epochs for part, seconds in spent.items()}
    params = {**params, "parts": parts, "whole": "An epoch", "epochs": epochs, "samples": len(data.train)}
    yield Record(
        STAGE, f"{name}: one epoch", "ours", "s", [seconds["total"] / epochs for seconds in repeats], params
    )


def _steps(scope: Scope, name: str) -> int:
    """Return the number of steps of a repeat, which takes half a second to a few seconds on two cores."""
    return (
        scope.pick(2, 20) if name in ("mlp", "vgg16 head") else scope.pick(1, 6 if "512" not in name else 2)
    )
