"""checkpoint.ckpt: the best epoch's weights and all that rebuilds the network; loads with `weights_only=True`."""

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
from shardwave.models.networks.vgg16 import Vgg16
from shardwave.models.runs.records import Checkpoint, LastCheckpoint
from shardwave.models.training.config import TrainConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.storage import atomic

if TYPE_CHECKING:
    from shardwave.models.data.training_data import TrainingData

FORMAT = "shardwave-model-2"
NAME = "checkpoint.ckpt"
LARGEST = 1 << 26  # values of a sample


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what it was trained on."""

    network: nn.Module  # raw batches -> logits, in evaluation mode, on the CPU
    field: str  # of the shard set's samples that it takes
    config: TrainConfig
    classes: list[str]
    set_id: str  # of the shard set
    fingerprint: str  # of the shard set's configuration
    set_config: dict[str, Any] | None  # that configuration, as the manifest has it
    spectrogram: dict[str, Any] | None  # SpectrogramConfig's fields; None for a set of features alone
    splits: dict[str, list[str]]  # the set's splits by role: train, val, test
    selected: str  # "full" or "slice_mean"
    epoch: int

    @property
    def head(self) -> nn.Module:
        """The part that was trained: of vgg16 the head, which takes the frozen part's outputs."""
        return self.network.head if isinstance(self.network, Vgg16) else self.network


def save(path: Path, weights: dict[str, Tensor], inputs: Inputs, config: TrainConfig, about: dict[str, Any]) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: The file.
        weights: The state dict of the part that was trained.
        inputs: What the network takes.
        config: The training.
        about: What `describe` returns.
    """
    content = {
        "format": FORMAT,
        "model": config.model,
        "config": dataclasses.asdict(config),
        "inputs": {"field": inputs.field, "shape": list(inputs.shape), "classes": inputs.classes},
        "state_dict": weights,
        **about,
    }
    write(path, content)


def describe(data: TrainingData, epoch: int) -> dict[str, Any]:
    """Return what a checkpoint says of its epoch and data: the set, the splits' roles, of vgg16 the frozen part's state."""
    return {
        "classes": list(data.source.classes),
        "set_id": data.source.set_id,
        "fingerprint": data.source.fingerprint,
        "set_config": data.source.manifest["config"],
        "spectrogram": data.spectrogram,
        "splits": {role: list(names) for role, names in data.roles._asdict().items()},
        "selected": data.selected,
        "epoch": epoch,
        **({"backbone": data.frozen.state_dict()} if data.frozen else {}),
    }


def write(path: Path, content: Any) -> None:
    """`torch.save` into memory, then atomically into the file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic.write_bytes(path, buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; raises UsageError where there is none, ShardwaveError where it is damaged."""
    if not path.exists():
        folds = sorted(path.parent.glob(f"fold*/{path.name}"))
        if folds:
            raise UsageError(f"{path.parent} is a cross-validation: name the run folder of one fold, as {folds[0].parent}")
        raise UsageError(f"{path.parent} has no {path.name}: train first, or name a run folder that finished an epoch")
    try:
        with open(path, "rb", opener=regular_file.opener) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parsers raise: RuntimeError, UnpicklingError, EOFError, KeyError, ...
        raise ShardwaveError(
            f"{path} is damaged, or no checkpoint ({type(error).__name__}): train again, or restore the file"
        ) from error
    return content


def check_last(path: Path) -> None:
    """Raise ShardwaveError where the checkpoint `path` that Lightning wrote is damaged, before Lightning falls over it."""
    typed.check(read(path), LastCheckpoint, path, "remove it to train from the start, or restore it")


def load(path: Path | str) -> Trained:
    """Rebuild the network of a checkpoint."""
    from shardwave.models.networks.build import build_model

    path = Path(path)
    content = read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardwaveError(f"{path} is not a checkpoint of this program's models (format {FORMAT})")
    typed.check(content, Checkpoint, path, "train again, or restore the file")
    config = typed.build(TrainConfig, content["config"], f"{path}: its config")
    state, about = content["state_dict"], content["inputs"]
    if about["classes"] != len(content["classes"]) or math.prod(about["shape"]) > LARGEST:
        raise DamagedFile(f"{path} is damaged: inputs of {about['shape']} and {about['classes']} classes do not fit the others")
    if content["spectrogram"] is not None:
        typed.build(SpectrogramConfig, content["spectrogram"], f"{path}: its spectrogram")
    field = about["field"]
    try:
        inputs = Inputs(field, tuple(about["shape"]), about["classes"], state["mean"], state["std"])
        network: nn.Module = build_model(config, inputs)
        network.load_state_dict(state)
        if "backbone" in content:
            from shardwave.models.networks.backbone import join

            network, field = join(network, content["backbone"]), "npy"
    except (RuntimeError, KeyError, ValueError, TypeError, AssertionError, IndexError) as error:  # of PyTorch, for wrong shapes
        reason = str(error).strip().split("\n")[-1].strip() or type(error).__name__
        raise ShardwaveError(f"{path} does not fit its model {config.model}: {reason}") from None
    known = {each.name: content[each.name] for each in dataclasses.fields(Trained)[3:]}
    return Trained(network.eval(), field, config, **known)
