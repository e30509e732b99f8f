"""Checkpoints of trained networks: weights of the best epoch, settings and metadata."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shardwave.common import regular_file, typed
from shardwave.common.errors import DamagedFile, ShardwaveError, UsageError
from shardwave.models.networks.base import Inputs
from shardwave.models.networks.image_backbone import Transfer
from shardwave.models.runs.records import Checkpoint, CheckpointMetadata, LastCheckpoint, Settings
from shardwave.models.training.config import TrainConfig, backbone_of
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.storage import atomic

if TYPE_CHECKING:
    from shardwave.models.data.training_data import TrainingData

FORMAT = "shardwave-model-2"
NAME = "checkpoint.ckpt"
LARGEST = 1 << 26  # maximum number of values of a sample


@dataclasses.dataclass(frozen=True)
class Trained:
    """Trained network with the settings and the data it was trained on.

    Args:
        network: Module from raw batches, uint8 [batch, frequency, time] or float [batch, features], to logits
            [batch, classes]; in evaluation mode, on the CPU.
        field: Array field of the samples that the network takes.
        config: Training settings.
        classes: Names of the classes.
        set_id: Set id of the shard set.
        fingerprint: Fingerprint of the shard set.
        set_config: Configuration of the shard set, as in its manifest.
        spectrogram: Fields of `SpectrogramConfig`; None for a set without spectrograms.
        splits: Splits of the set by their role in the training: "train", "val", "test".
        selected: Score that selected the epoch, "full" or "slice_mean".
        epoch: Number of the epoch, from 1.
    """

    network: nn.Module
    field: str
    config: TrainConfig
    classes: list[str]
    set_id: str
    fingerprint: str
    set_config: Settings | None
    spectrogram: Settings | None
    splits: dict[str, list[str]]
    selected: str
    epoch: int

    @property
    def head(self) -> nn.Module:
        """Trained part of the network: for vgg16 and transfer the head on the outputs of the frozen part."""
        return self.network.head if isinstance(self.network, Transfer) else self.network


def save(
    path: Path, weights: dict[str, Tensor], inputs: Inputs, config: TrainConfig, metadata: CheckpointMetadata
) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: File to write.
        weights: State dict of the trained part of the network.
        inputs: Description of the network's input.
        config: Training settings.
        metadata: Return value of `describe`.
    """
    content: Checkpoint = {
        "format": FORMAT,
        "model": config.model,
        "config": dataclasses.asdict(config),
        "inputs": {"field": inputs.field, "shape": list(inputs.shape), "classes": inputs.classes},
        "state_dict": weights,
        **metadata,
    }
    write(path, content)


def describe(data: TrainingData, epoch: int) -> CheckpointMetadata:
    """Return the metadata of a checkpoint.

    Args:
        data: Data of the training.
        epoch: Number of the epoch, from 1.

    Returns:
        The metadata; for vgg16 and transfer with the state dict of the frozen part.
    """
    metadata: CheckpointMetadata = {
        "classes": list(data.source.classes),
        "set_id": data.source.set_id,
        "fingerprint": data.source.fingerprint,
        "set_config": data.source.manifest["config"],
        "spectrogram": data.spectrogram,
        "splits": {role: list(names) for role, names in data.roles._asdict().items()},
        "selected": data.selected,
        "epoch": epoch,
    }
    if data.frozen is not None:
        metadata["backbone"] = data.frozen.state_dict()
    return metadata


def write(path: Path, content: object) -> None:
    """Write `content` with `torch.save`, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic.write_bytes(path, buffer.getbuffer())


def read(path: Path) -> Any:
    """Read the content of a checkpoint without checking its fields.

    Raises:
        UsageError: The file does not exist.
        ShardwaveError: The file is damaged or not a checkpoint.
    """
    if not path.exists():
        folds = sorted(path.parent.glob(f"fold*/{path.name}"))
        if folds:
            raise UsageError(
                f"{path.parent} is a cross-validation: "
                f"give the run folder of one fold, such as {folds[0].parent}"
            )
        raise UsageError(
            f"{path.parent} has no {path.name}: give a run folder with at least one finished epoch"
        )
    try:
        with open(path, "rb", opener=regular_file.opener) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of torch.load have no common base class
        raise ShardwaveError(
            f"{path} is damaged, or not a checkpoint ({type(error).__name__}): "
            "train again, or restore the file"
        ) from error
    return content


def check_last(path: Path) -> None:
    """Raise ShardwaveError if a checkpoint that Lightning wrote is damaged."""
    typed.check(read(path), LastCheckpoint, path, "remove it to train from the start, or restore it")


def load(path: Path | str) -> Trained:
    """Load the network of a checkpoint.

    Raises:
        UsageError: The file does not exist, or its network cannot be imported.
        ShardwaveError: The file is damaged or not a checkpoint of this program.
    """
    from shardwave.models.networks.build import build_model

    path = Path(path)
    content = read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardwaveError(
            f"{path} is not a checkpoint of this program (format {FORMAT}): give another file, or train again"
        )
    typed.check(content, Checkpoint, path, "train again, or restore the file")
    config = typed.build(TrainConfig, content["config"], f"{path}: its config")
    state, described = content["state_dict"], content["inputs"]
    if described["classes"] != len(content["classes"]) or math.prod(described["shape"]) > LARGEST:
        raise DamagedFile(
            f"{path} is damaged: inputs of {described['shape']} and {described['classes']} classes "
            "do not fit the other fields; train again, or restore the file"
        )
    if content["spectrogram"] is not None:
        typed.build(SpectrogramConfig, content["spectrogram"], f"{path}: its spectrogram")
    field = described["field"]
    try:
        inputs = Inputs(field, tuple(described["shape"]), described["classes"], state["mean"], state["std"])
        network: nn.Module = build_model(config, inputs)
        network.load_state_dict(state)
        if "backbone" in content:
            from shardwave.models.networks.backbone import join

            network, field = join(network, backbone_of(config) or "", content["backbone"]), "npy"
    except (
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AssertionError,
        IndexError,
    ) as error:  # PyTorch raises all of them for wrong shapes
        reason = str(error).strip().split("\n")[-1].strip() or type(error).__name__
        raise ShardwaveError(
            f"{path} does not fit its model {config.model} ({reason}): train again"
        ) from None
    metadata = {entry.name: content[entry.name] for entry in dataclasses.fields(Trained)[3:]}
    return Trained(network.eval(), field, config, **metadata)
