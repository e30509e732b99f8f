"""The frozen part of VGG16, computed once: a derived shard set of its outputs, which trainings of the head then read."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.models.networks.base import channels_last
from shardwave.models.networks.vgg16 import OUTPUTS, SIZE, Vgg16, Vgg16Backbone, Vgg16Head
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.precision import autocast
from shardwave.shards.build.writer import write_array_set
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import MANIFEST
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View

_log = logging.getLogger(__name__)
BATCH = 16  # images
_REMEDY = "give --weights FILE (a state dict of torchvision's vgg16), or --weights none for untrained convolutions"


def load(weights: str) -> Vgg16Backbone:
    """The frozen part with `weights`: `default` (torchvision's VGG16_Weights, downloaded or from its cache), `none`, or a file.

    Raises ShardwaveError where they cannot be had: never untrained weights unasked.
    """
    backbone = Vgg16Backbone()
    if weights == "none":
        backbone.initialise()
    else:
        state = _downloaded() if weights == "default" else _from_file(Path(weights))
        features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
        try:
            backbone.features.load_state_dict(features)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ShardwaveError(f"--weights {weights}: not the weights of torchvision's vgg16 ({reason})") from None
    channels_last(backbone)
    return backbone


def _downloaded() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    try:
        return VGG16_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise ShardwaveError(f"the weights of VGG16 are not cached here and cannot be downloaded ({error}): {_REMEDY}") from None


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"--weights must be default, none or a file, got {path}: there is no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parsers raise
        raise ShardwaveError(f"--weights {path} is damaged, or no state dict ({type(error).__name__})") from error
    if not isinstance(state, dict) or not any(str(name).startswith("features.") for name in state):
        raise ShardwaveError(f"--weights {path}: no state dict of torchvision's vgg16 (it has no features.*)")
    return state


def derived_set(
    source: ShardSet, backbone: Vgg16Backbone, precision: str, device: torch.device
) -> tuple[ShardSet, dict[str, Any]]:
    """The set of the frozen part's outputs beside `source` (`SET.vgg16-<hash>`), computed where it is not there yet.

    The hash covers the set id of `source`: a set that was relabelled or rebuilt to other bytes has outputs of its own.

    Also what it took: {seconds, samples, cached}. Outputs are float16 [25088], within 2^-11 of what was computed.
    """
    about = {
        "kind": "backbone",
        "architecture": "vgg16",
        "cut": "avgpool",
        "weights": _digest(backbone),
        "resize": f"{SIZE}x{SIZE} bilinear, antialiased",
        "normalisation": "levels / 255, ImageNet mean and std, three equal channels",
        "precision": f"{precision}, stored as float16",
        "source": source.set_id,
    }
    name = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()[:12]
    folder = source.path.with_name(f"{source.path.name}.vgg16-{name}")
    samples = sum(entry["samples"] for entry in manifest.entries(source.manifest))
    begin, cached = time.perf_counter(), True
    try:  # of several trainings that want the same outputs, one computes them and the others wait
        held = FileLock(folder.with_name(f".{folder.name}.lock")).acquire()
    except OSError as error:
        raise ShardwaveError(
            f"{folder} cannot be written beside its shard set ({error.strerror}): copy the set to a folder that can be"
        ) from None
    with held:
        if not (folder / MANIFEST).exists():
            say(f"vgg16: computing the frozen part for {samples} images into {folder}, once for all trainings")
            cached = False
            network = backbone.to(device)
            arrays: dict[tuple[str, str], Any] = {
                (split, view): Outputs(source.view(split, view), network, precision, device)
                for split, views in source.manifest["splits"].items()
                for view in views
            }
            write_array_set(folder, source, arrays, about, device=device.type)
            backbone.to("cpu")
    _log.info("vgg16: outputs of the frozen part %s %s", "kept from before in" if cached else "written to", folder)
    return open_set(folder), {"seconds": time.perf_counter() - begin, "samples": samples, "cached": cached}


class Outputs:
    """The frozen part's outputs for a view, as an array of which one batch at a time exists. Shape: float16 [samples, 25088]."""

    def __init__(self, view: View, backbone: Vgg16Backbone, precision: str, device: torch.device) -> None:
        self.view, self.backbone, self.precision, self.device = view, backbone, precision, device
        self.dtype, self.shape = np.dtype("float16"), (len(view), OUTPUTS)
        self._start, self._batch = -1, np.empty((0, OUTPUTS), np.float16)

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, row: int) -> np.ndarray:
        start = row // BATCH * BATCH
        if start != self._start:
            images = self.view.gather(np.arange(start, min(start + BATCH, len(self))))["npy"]
            with torch.inference_mode(), autocast(self.precision, self.device):
                self._batch = self.backbone(torch.from_numpy(images).to(self.device)).half().cpu().numpy()
            self._start = start
        return self._batch[row - start]


def join(head: nn.Module, state: dict[str, Tensor]) -> Vgg16:
    """The whole network from a trained head and the frozen part's weights."""
    assert isinstance(head, Vgg16Head)
    backbone = Vgg16Backbone()
    backbone.load_state_dict(state)
    channels_last(backbone)
    return Vgg16(backbone, head)


def check_set(source: ShardSet, config: TrainConfig) -> None:
    """The frozen part wants images."""
    field = source.fields.get("npy")
    if field is None or field["dtype"] != "uint8" or len(field["shape"]) != 2:
        raise UsageError(f"model {config.model} needs images, the shard set {source.location} has none: build it from audio")


def _digest(backbone: Vgg16Backbone) -> str:
    digest = hashlib.sha256()
    for name, value in backbone.features.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
