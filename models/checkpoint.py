"""checkpoint.ckpt: the best epoch's weights and all that rebuilds the network; loads with `weights_only=True`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.network import Inputs
from models.vgg16 import Vgg16
from preprocess.config import SpectrogramConfig
from preprocess.errors import ShardwaveError, UsageError
from shards import atomic

FORMAT = "shardwave-model-1"
NAME = "checkpoint.ckpt"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what it was trained on."""

    network: nn.Module  # raw batches -> logits, in evaluation mode, on the CPU
    field: str  # of the shard set's samples that it takes
    config: TrainConfig
    classes: list[str]
    fingerprint: str  # of the shard set's configuration
    spectrogram: dict[str, Any] | None  # SpectrogramConfig's fields; None for a set of features alone
    selected: str  # "whole" or "slice_mean"
    epoch: int

    @property
    def head(self) -> nn.Module:
        """The part that was trained: of vgg16 the head, which takes the frozen part's outputs."""
        return self.network.head if isinstance(self.network, Vgg16) else self.network


def save(path: Path, weights: dict[str, Tensor], inputs: Inputs, config: TrainConfig, about: dict[str, Any]) -> None:
    """Write atomically. `about`: classes, fingerprint, spectrogram, selected, epoch, and for vgg16 the `backbone` state."""
    content = {
        "format": FORMAT,
        "model": config.model,
        "config": dataclasses.asdict(config),
        "inputs": {"field": inputs.field, "shape": list(inputs.shape), "classes": inputs.classes},
        "state_dict": weights,
        **about,
    }
    write(path, content)


def write(path: Path, content: Any) -> None:
    """`torch.save` under a temporary name, synced and renamed; the temporary file is removed when that fails.

    Raises:
        OSError: The file could not be written, for example for want of space; `filename` names it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        atomic.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__  # torch raises a RuntimeError over it
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror, str(path)) from None
        raise


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; raises UsageError where there is none, ShardwaveError where it is damaged."""
    if not path.exists():
        raise UsageError(f"{path.parent} has no {path.name}: train first, or name a run folder that finished an epoch")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parsers raise: RuntimeError, UnpicklingError, EOFError, KeyError, ...
        raise ShardwaveError(
            f"{path} is damaged, or no checkpoint ({type(error).__name__}): train again, or restore the file"
        ) from error
    return content


def load(path: Path, model: str | None = None) -> Trained:
    """Rebuild the network of a checkpoint; `model` names the one expected (another raises UsageError)."""
    from models.registry import build_model

    content = read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ShardwaveError(f"{path} is not a checkpoint of this program's models (format {FORMAT})")
    if model is not None and content["model"] != model:
        raise UsageError(f"{path} is a checkpoint of model {content['model']}, not of {model}")
    config, state, about = TrainConfig(**content["config"]), content["state_dict"], content["inputs"]
    inputs = Inputs(about["field"], tuple(about["shape"]), about["classes"], state["mean"], state["std"])
    network: nn.Module = build_model(config, inputs)
    field = inputs.field
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ShardwaveError(f"{path} does not fit its model {config.model}: {str(error).splitlines()[-1].strip()}") from None
    if "backbone" in content:
        from models.backbone import join

        network, field = join(network, content["backbone"]), "npy"
    if content["spectrogram"] is not None:
        SpectrogramConfig(**content["spectrogram"])  # checked when built
    return Trained(
        network.eval(),
        field,
        config,
        content["classes"],
        content["fingerprint"],
        content["spectrogram"],
        content["selected"],
        content["epoch"],
    )
