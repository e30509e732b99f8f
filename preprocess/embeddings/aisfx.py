"""aiSFX: a convolutional network for sound effects (Ma & Lerch 2022, model X-Sequential-CE).

Four blocks of two convolutions (Kong et al. 2018, "DCASE 2018 Challenge Surrey cross-task baseline") on
windows of 2.3 s; the mean over frequency and the maximum over time are the embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shardwave.preprocess.embeddings.base import Embedding, load_weights
from shardwave.preprocess.weights import store

N_FFT, BANDS = 2_048, 96
LARGEST = 9.457798957824707  # value of the training data's spectrograms that is scaled to 1


class _Block(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation and ReLU, then max pooling."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, batch: Tensor) -> Tensor:
        batch = F.relu(self.bn1(self.conv1(batch)))
        return F.max_pool2d(F.relu(self.bn2(self.conv2(batch))), self.pool)


class Aisfx(Embedding):
    """aiSFX without its classifiers: [batch, 100, 96] -> [batch, 512]. New objects have random weights."""

    sample_rate, frame_hop, window, window_hop = 44_100, 1_024, 100, 50
    bands: Tensor
    taper: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv_block1 = _Block(1, 64, 2)
        self.conv_block2 = _Block(64, 128, 2)
        self.conv_block3 = _Block(128, 256, 2)
        self.conv_block4 = _Block(256, 512, 1)
        self.register_buffer("bands", mel_bands(), persistent=False)
        self.register_buffer("taper", torch.hann_window(N_FFT, periodic=False), persistent=False)

    def spectrogram(self, samples: Tensor) -> Tensor:
        """Compute log10(1 + 10^4 power) of 96 mel bands, scaled, float32 [frames, 96]."""
        padded = F.pad(samples, (N_FFT // 2, N_FFT // 2))
        spectrum = torch.stft(
            padded, N_FFT, self.frame_hop, window=self.taper, center=False, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log10(1 + 1e4 * (self.bands @ power)).T / LARGEST

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows [batch, 100, 96] to embeddings [batch, 512]."""
        maps = windows.unsqueeze(1)
        for block in (self.conv_block1, self.conv_block2, self.conv_block3, self.conv_block4):
            maps = block(maps)
        return maps.mean(3).amax(2)


def mel_bands() -> Tensor:
    """Return the weights of the mel bands, float32 [96, 1025].

    Triangles in HTK's mel scale (mel = 1127 ln(1 + f / 700)) from 0 to 22,050 Hz, linear in mel, each with
    the sum 1.
    """

    def mel(frequency: Tensor) -> Tensor:
        return 1127.01048 * torch.log1p(frequency / 700)

    bins = mel(torch.linspace(0, Aisfx.sample_rate / 2, N_FFT // 2 + 1, dtype=torch.float64))
    edges = torch.linspace(0, float(bins[-1]), BANDS + 2, dtype=torch.float64)
    width = edges[1]
    weights = (1 - (bins - edges[1:-1, None]).abs() / width).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def make() -> Aisfx:
    """Create aiSFX with its weights."""
    network = Aisfx()
    load_weights(network, store.load("aisfx"), "aisfx")
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
