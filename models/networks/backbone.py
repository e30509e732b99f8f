"""Weights of the frozen part of VGG16, and derived shard sets that store its outputs."""

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
from shardwave.models.runs.records import BackboneCost
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.numerics import POLICY, fixed_numerics
from shardwave.models.training.precision import autocast
from shardwave.shards.build.writer import write_array_set
from shardwave.shards.format import manifest
from shardwave.shards.format.layout import MANIFEST
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View

_log = logging.getLogger(__name__)
BATCH = 16  # images
_REMEDY = "use --weights FILE (a state dict of torchvision's vgg16), or --weights none for random weights"


def load(weights: str) -> Vgg16Backbone:
    """Load the frozen part of VGG16.

    Args:
        weights: "default" (torchvision's `VGG16_Weights.DEFAULT`, from torchvision's cache or downloaded),
            "none" (untrained), or the path of a state dict of torchvision's vgg16.

    Raises:
        ShardwaveError: The weights cannot be downloaded, or the file is damaged or has other weights.
        UsageError: The file does not exist.
    """
    backbone = Vgg16Backbone()
    if weights == "none":
        backbone.initialise()
    else:
        state = _downloaded() if weights == "default" else _from_file(Path(weights))
        features = {
            name.removeprefix("features."): value
            for name, value in state.items()
            if name.startswith("features.")
        }
        try:
            backbone.features.load_state_dict(features)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ShardwaveError(
                f"--weights {weights}: not the weights of torchvision's vgg16 ({reason}): {_REMEDY}"
            ) from None
    channels_last(backbone)
    return backbone


def _downloaded() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    try:
        state: dict[str, Tensor] = VGG16_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise ShardwaveError(
            f"the weights of VGG16 are not in torchvision's cache and cannot be downloaded ({error}): "
            f"{_REMEDY}"
        ) from None
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"--weights must be default, none or a file, got {path}, which does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of torch.load have no common base class
        raise ShardwaveError(
            f"--weights {path} is damaged, or not a state dict ({type(error).__name__}): {_REMEDY}"
        ) from error
    if not isinstance(state, dict) or not any(str(name).startswith("features.") for name in state):
        raise ShardwaveError(
            f"--weights {path}: not a state dict of torchvision's vgg16 (no keys features.*): {_REMEDY}"
        )
    return state


@fixed_numerics()
def derived_set(
    source: ShardSet, backbone: Vgg16Backbone, precision: str, device: torch.device
) -> tuple[ShardSet, BackboneCost]:
    """Open the derived set of the outputs of the frozen part, `SET.vgg16-<hash>` beside `source`.

    The set is computed if it does not exist. The hash covers the set id of `source`, the weights, the
    precision, the kind of the device and its numerics (see `numerics.POLICY`). Outputs are stored as
    float16 [25088], which rounds them by at most 2^-11 of their value.

    Args:
        source: Set of images.
        backbone: Frozen part of VGG16.
        precision: Name of Lightning's precision.
        device: Device that computes the outputs.

    Returns:
        The derived set and its cost.

    Raises:
        ShardwaveError: The folder of `source` is not writable.
    """
    identity = outputs_identity(source.set_id, _digest(backbone), precision, device)
    name = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
    folder = source.path.with_name(f"{source.path.name}.vgg16-{name}")
    samples = sum(entry["samples"] for entry in manifest.entries(source.manifest))
    begin, cached = time.perf_counter(), True
    try:  # if several trainings need the same outputs, one computes them and the others wait
        lock = FileLock(folder.with_name(f".{folder.name}.lock")).acquire()
    except OSError as error:
        raise ShardwaveError(
            f"{folder} cannot be written ({error.strerror}): copy the shard set to a writable folder"
        ) from None
    with lock:
        if not (folder / MANIFEST).exists():
            say(f"vgg16: computing the outputs of the frozen part for {samples} images, once, into {folder}")
            cached = False
            network = backbone.to(device)
            arrays: dict[tuple[str, str], Any] = {
                (split, view): Outputs(source.view(split, view), network, precision, device)
                for split, views in source.manifest["splits"].items()
                for view in views
            }
            write_array_set(folder, source, arrays, identity, device=device.type)
            backbone.to("cpu")
    _log.info("vgg16: outputs of the frozen part %s %s", "found in" if cached else "written to", folder)
    return open_set(folder), {"seconds": time.perf_counter() - begin, "samples": samples, "cached": cached}


def outputs_identity(set_id: str, weights: str, precision: str, device: torch.device) -> dict[str, str]:
    """Describe all inputs that determine the outputs of the frozen part.

    Args:
        set_id: Set id of the images.
        weights: Digest of the weights.
        precision: Name of Lightning's precision.
        device: Device that computes the outputs; only its kind counts.

    Returns:
        Descriptions by name; the manifest of the derived set stores them as its configuration.
    """
    return {
        "kind": "backbone",
        "architecture": "vgg16",
        "cut": "avgpool",
        "weights": weights,
        "resize": f"{SIZE}x{SIZE} bilinear, antialiased",
        "normalisation": "levels / 255, ImageNet mean and std, three equal channels",
        "precision": f"{precision}, stored as float16",
        "device": device.type,
        "numerics": ", ".join(f"{name} {value}" for name, value in POLICY.items()),
        "source": set_id,
    }


class Outputs:
    """Array-like of the outputs of the frozen part for a view: float16 [samples, 25088].

    Rows are computed on access, in batches; only the last batch is held in memory.

    Args:
        view: View of images.
        backbone: Frozen part of VGG16, on `device`.
        precision: Name of Lightning's precision.
        device: Device that computes the outputs.
    """

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
        values: np.ndarray = self._batch[row - start]
        return values


def join(head: nn.Module, state: dict[str, Tensor]) -> Vgg16:
    """Build the complete VGG16 from a trained head and the state dict of the frozen part."""
    assert isinstance(head, Vgg16Head)
    backbone = Vgg16Backbone()
    backbone.load_state_dict(state)
    channels_last(backbone)
    return Vgg16(backbone, head)


def check_set(source: ShardSet, config: TrainConfig) -> None:
    """Raise UsageError if `source` has no images."""
    field = source.fields.get("npy")
    if field is None or field["dtype"] != "uint8" or len(field["shape"]) != 2:
        raise UsageError(
            f"model {config.model} needs images, but {source.location} has none: build a set from audio"
        )


def _digest(backbone: Vgg16Backbone) -> str:
    digest = hashlib.sha256()
    for name, value in backbone.features.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
