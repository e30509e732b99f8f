"""Weights of the frozen image networks, and derived shard sets that store their outputs."""

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
from shardwave.models.networks.efficientnet_lite0 import EfficientNetLite0Backbone
from shardwave.models.networks.image_backbone import SIZE, ImageBackbone, Transfer, TransferHead
from shardwave.models.networks.vgg16 import Vgg16Backbone
from shardwave.models.runs.records import BackboneCost
from shardwave.models.training.config import TrainConfig
from shardwave.models.training.numerics import POLICY, fixed_numerics
from shardwave.models.training.precision import autocast
from shardwave.preprocess.weights import store
from shardwave.shards.build.writer import write_array_set
from shardwave.shards.format.layout import MANIFEST
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet, View

_log = logging.getLogger(__name__)
BATCH = 16  # images
_REMEDY = "use --weights FILE (a state dict of {}), or --weights none for random weights"
_PUBLISHED = {"vgg16": "torchvision's vgg16", "efficientnet-lite0": "efficientnet_lite_pytorch's lite0"}


def make(name: str) -> ImageBackbone:
    """Create the frozen part of a network, one of `BACKBONES`, with unset or random weights."""
    return Vgg16Backbone() if name == "vgg16" else EfficientNetLite0Backbone()


def load(name: str, weights: str) -> ImageBackbone:
    """Load the frozen part of an image network.

    Args:
        name: One of `BACKBONES`.
        weights: "default" (vgg16: torchvision's `VGG16_Weights.DEFAULT`, from torchvision's cache or
            downloaded; efficientnet-lite0: as `shardwave fetch` stored them), "none" (untrained), or the path
            of a state dict of the published network.

    Raises:
        ShardwaveError: The weights are not at hand, or the file is damaged or has other weights.
        UsageError: The file does not exist.
    """
    backbone = make(name)
    if weights == "none":
        backbone.initialise()
    else:
        state = _default(name) if weights == "default" else _from_file(Path(weights), name)
        own = backbone.state_of(state)
        remedy = _REMEDY.format(_PUBLISHED[name])
        if not own:
            raise ShardwaveError(
                f"--weights {weights}: not the weights of {_PUBLISHED[name]} (other names): {remedy}"
            )
        try:
            backbone.features.load_state_dict(own)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ShardwaveError(
                f"--weights {weights}: not the weights of {_PUBLISHED[name]} ({reason}): {remedy}"
            ) from None
    channels_last(backbone)
    return backbone


def _default(name: str) -> dict[str, Tensor]:
    """Return the published weights, from a cache or downloaded."""
    if name != "vgg16":
        return store.load(name)
    from torchvision.models import VGG16_Weights

    try:
        state: dict[str, Tensor] = VGG16_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise ShardwaveError(
            f"the weights of VGG16 are not in torchvision's cache and cannot be downloaded ({error}): "
            f"{_REMEDY.format(_PUBLISHED[name])}"
        ) from None
    return state


def _from_file(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"--weights must be default, none or a file, got {path}, which does not exist")
    remedy = _REMEDY.format(_PUBLISHED[name])
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of torch.load have no common base class
        raise ShardwaveError(
            f"--weights {path} is damaged, or not a state dict ({type(error).__name__}): {remedy}"
        ) from error
    if not isinstance(state, dict):
        raise ShardwaveError(f"--weights {path}: not a state dict of {_PUBLISHED[name]}: {remedy}")
    return state


@fixed_numerics()
def derived_set(
    source: ShardSet, backbone: ImageBackbone, precision: str, device: torch.device
) -> tuple[ShardSet, BackboneCost]:
    """Open the derived set of the outputs of the frozen part, `SET.<network>-<hash>` beside `source`.

    The set is computed if it does not exist. The hash covers the set id of `source`, the weights, the
    precision, the kind of the device and its numerics (see `numerics.POLICY`). Outputs are stored as
    float16 [outputs], which rounds them by at most 2^-11 of their value.

    Args:
        source: Set of images.
        backbone: Frozen part of the network.
        precision: Name of Lightning's precision.
        device: Device that computes the outputs.

    Returns:
        The derived set and its cost.

    Raises:
        ShardwaveError: The folder of `source` is not writable.
    """
    identity = outputs_identity(backbone, source.set_id, _digest(backbone), precision, device)
    if source.is_strip:  # the images depend on the chosen slices and their width
        identity["images"] = f"{source.fingerprint}, {source.field('npy')['shape']}"
    name = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:12]
    folder = source.path.with_name(f"{source.path.name}.{backbone.name}-{name}")
    views = [(split, view) for split in source.splits for view in source.views_of(split)]
    samples = sum(len(source.view(split, view)) for split, view in views)
    begin, cached = time.perf_counter(), True
    try:  # if several trainings need the same outputs, one computes them and the others wait
        lock = FileLock(folder.with_name(f".{folder.name}.lock")).acquire()
    except OSError as error:
        raise ShardwaveError(
            f"{folder} cannot be written ({error.strerror}): copy the shard set to a writable folder"
        ) from None
    with lock:
        if not (folder / MANIFEST).exists():
            say(
                f"{backbone.name}: computing the outputs of the frozen part for {samples} images, once, into "
                f"{folder}"
            )
            cached = False
            network = backbone.to(device)
            arrays: dict[tuple[str, str], Any] = {
                (split, view): Outputs(source.view(split, view), network, precision, device)
                for split, view in views
            }
            write_array_set(folder, source, arrays, identity, device=device.type)
            backbone.to("cpu")
    _log.info("outputs of the frozen part %s %s", "found in" if cached else "written to", folder)
    return open_set(folder), {"seconds": time.perf_counter() - begin, "samples": samples, "cached": cached}


def outputs_identity(
    backbone: ImageBackbone, set_id: str, weights: str, precision: str, device: torch.device
) -> dict[str, str]:
    """Describe all inputs that determine the outputs of the frozen part.

    Args:
        backbone: Frozen part of the network.
        set_id: Set id of the images.
        weights: Digest of the weights.
        precision: Name of Lightning's precision.
        device: Device that computes the outputs; only its kind counts.

    Returns:
        Descriptions by name; the manifest of the derived set stores them as its configuration.
    """
    return {
        "kind": "backbone",
        "architecture": backbone.name,
        "cut": backbone.cut,
        "weights": weights,
        "resize": f"{SIZE}x{SIZE} bilinear, antialiased",
        "normalisation": backbone.normalisation,
        "precision": f"{precision}, stored as float16",
        "device": device.type,
        "numerics": ", ".join(f"{name} {value}" for name, value in POLICY.items()),
        "source": set_id,
    }


class Outputs:
    """Array-like of the outputs of the frozen part for a view: float16 [samples, outputs].

    Rows are computed on access, in batches; only the last batch is held in memory.

    Args:
        view: View of images.
        backbone: Frozen part of the network, on `device`.
        precision: Name of Lightning's precision.
        device: Device that computes the outputs.
    """

    def __init__(self, view: View, backbone: ImageBackbone, precision: str, device: torch.device) -> None:
        self.view, self.backbone, self.precision, self.device = view, backbone, precision, device
        self.dtype, self.shape = np.dtype("float16"), (len(view), backbone.outputs)
        self._start, self._batch = -1, np.empty((0, backbone.outputs), np.float16)

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


def join(head: nn.Module, name: str, state: dict[str, Tensor]) -> Transfer:
    """Build the complete network from a trained head and a frozen part.

    Args:
        head: Trained head.
        name: Name of the frozen part, one of `BACKBONES`.
        state: State dict of the frozen part.
    """
    assert isinstance(head, TransferHead)
    backbone = make(name)
    backbone.load_state_dict(state)
    channels_last(backbone)
    return Transfer(backbone, head)


def check_set(source: ShardSet, config: TrainConfig) -> None:
    """Raise UsageError if `source` has no images."""
    field = source.fields.get("npy")
    if field is None or field["dtype"] != "uint8" or len(field["shape"]) != 2:
        raise UsageError(
            f"model {config.model} needs images, but {source.location} has none: build a set from audio"
        )


def _digest(backbone: ImageBackbone) -> str:
    digest = hashlib.sha256()
    for name, value in backbone.features.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
