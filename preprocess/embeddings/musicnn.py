"""musicnn: convolutional networks for music tagging (Pons & Serra 2019), with musically motivated filters.

Filters along frequency describe timbre, filters along time describe rhythm; three convolutions over time with
residual connections follow. The input of the output layer is the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from shardwave.preprocess.embeddings.base import Embedding, load_weights
from shardwave.preprocess.weights import store

BANDS, EPSILON = 96, 1e-3  # EPSILON: of TensorFlow's batch normalisation
TIMBRAL, TEMPORAL = (38, 67), (128, 64, 32)  # heights in bands, and lengths in frames, of the filters
FRONT, MIDDLE = 2 * 204 + 3 * 51, 64  # channels


class _Convolution(nn.Module):
    """Convolution, ReLU, batch normalisation, in this order.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Size of the kernel, (frames, bands), or frames for a convolution over time alone.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int] | int) -> None:
        super().__init__()
        over_time = isinstance(kernel, int)
        self.conv: nn.Module
        self.norm: nn.Module
        if over_time:
            self.conv, self.norm = nn.Conv1d(inputs, outputs, kernel), nn.BatchNorm1d(outputs, EPSILON)  # type: ignore[arg-type]
        else:
            self.conv, self.norm = nn.Conv2d(inputs, outputs, kernel), nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, batch: Tensor) -> Tensor:
        out: Tensor = self.norm(F.relu(self.conv(batch)))
        return out


class Musicnn(Embedding):
    """musicnn without its output layer: [batch, 187, 96] -> [batch, 200]. New objects have random weights."""

    sample_rate, frame_hop, window, window_hop = 16_000, 256, 187, 93

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, EPSILON)
        self.timbral = nn.ModuleList(_Convolution(1, 204, (7, height)) for height in TIMBRAL)
        self.temporal = nn.ModuleList(_Convolution(1, 51, (length, 1)) for length in TEMPORAL)
        self.middle = nn.ModuleList(_Convolution(inputs, MIDDLE, 7) for inputs in (FRONT, MIDDLE, MIDDLE))
        pooled = 2 * (FRONT + 3 * MIDDLE)
        self.pooled_norm = nn.BatchNorm1d(pooled, EPSILON)
        self.dense = nn.Linear(pooled, 200)
        self.output_norm = nn.BatchNorm1d(200, EPSILON)
        self.mel = MelSpectrogram(
            self.sample_rate, 512, hop_length=self.frame_hop, n_mels=BANDS, norm="slaney", mel_scale="slaney",
            pad_mode="constant",
        )  # fmt: skip

    def spectrogram(self, samples: Tensor) -> Tensor:
        """Compute log10(1 + 10^4 power) of 96 mel bands (Slaney's), float32 [frames, 96]."""
        return torch.log10(1 + 1e4 * self.mel(samples)).T

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows [batch, 187, 96] to embeddings [batch, 200]."""
        image = self.input_norm(windows.unsqueeze(1))
        padded = F.pad(image, (0, 0, 3, 3))
        front = [block(padded).amax(3) for block in self.timbral]
        for block, length in zip(self.temporal, TEMPORAL, strict=True):
            centred = F.pad(image, (0, 0, (length - 1) // 2, length // 2))
            front.append(block(centred).amax(3))
        maps = [torch.cat(front, 1)]
        for number, block in enumerate(self.middle):
            out = block(F.pad(maps[-1], (3, 3)))
            maps.append(out + maps[-1] if number else out)
        features = torch.cat(maps, 1)  # [batch, channels, frames]
        pooled = torch.stack((features.amax(2), features.mean(2)), 2).flatten(1)
        vectors: Tensor = self.output_norm(F.relu(self.dense(self.pooled_norm(pooled))))
        return vectors


def from_tensorflow(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the variables of the original network to the state dict of `Musicnn`.

    Args:
        variables: Variables by name, as in the original's checkpoint. Kernels are [frames, bands, in, out].
    """
    blocks = [
        f"{part}.{i}"
        for part, count in (("timbral", 2), ("temporal", 3), ("middle", 3))
        for i in range(count)
    ]
    norms = ["input_norm", *(f"{block}.norm" for block in blocks), "pooled_norm", "output_norm"]
    state: dict[str, Tensor] = {}
    for number, name in enumerate(norms):
        source = f"batch_normalization{_suffix(number)}"
        for ours, theirs in (("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"),
                             ("running_var", "moving_variance")):  # fmt: skip
            state[f"{name}.{ours}"] = variables[f"{source}/{theirs}"]
    for number, name in enumerate(blocks):
        source = f"conv2d{_suffix(number)}"
        kernel = variables[f"{source}/kernel"].permute(3, 2, 0, 1)  # [out, in, frames, bands]
        if name.startswith("middle"):  # one input channel, whose bands are the channels of `Musicnn`
            kernel = kernel.squeeze(1).transpose(1, 2)
        state[f"{name}.conv.weight"] = kernel.contiguous()
        state[f"{name}.conv.bias"] = variables[f"{source}/bias"]
    state["dense.weight"], state["dense.bias"] = (
        variables["dense/kernel"].T.contiguous(),
        variables["dense/bias"],
    )
    return state


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def _make(prefix: str) -> Musicnn:
    network = Musicnn()
    tensors = {
        key.removeprefix(prefix): value
        for key, value in store.load("musicnn").items()
        if key.startswith(prefix)
    }
    own = {key: value for key, value in network.state_dict().items() if key.startswith("mel.")}
    load_weights(network, {**own, **from_tensorflow(tensors)}, "musicnn")
    return network


def make_msd() -> Musicnn:
    """Create musicnn with the weights trained on the Million Song Dataset."""
    return _make("msd.")


def make_mtt() -> Musicnn:
    """Create musicnn with the weights trained on MagnaTagATune."""
    return _make("mtt.")
