"""Classification of samples in memory, without a shard set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from shardwave.common.errors import UsageError
from shardwave.models.data.training_data import resolve_device
from shardwave.models.evaluation.reliability import scaled
from shardwave.models.runs.checkpoint import Trained
from shardwave.models.training import precision
from shardwave.models.training.learner import SCORE_VIEWS
from shardwave.models.training.numerics import fixed_numerics
from shardwave.models.training.precision import DTYPES, autocast
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.base import EngineOutput
from shardwave.preprocess.engines.registry import make_engine, make_strip_engine, resolve

BATCH = 1 << 18  # values of the images or features that the network takes at a time; bounds its memory


def spectrogram_config(trained: Trained) -> SpectrogramConfig:
    """Return the parameters of the spectrogram that the network of a run takes.

    Raises:
        UsageError: The run was trained on a table of features, or on a field that is not computed from audio.
    """
    if trained.spectrogram is None:
        raise UsageError(
            f"the run of model {trained.config.model} was trained on a table of features and cannot classify "
            "audio: predict a shard set built with --table"
        )
    if trained.field not in ("npy", "features.npy"):
        raise UsageError(
            f"model {trained.config.model} takes the field {trained.field}, which this command cannot "
            "compute from audio: use a run of mlp on features, cnn, cnn-plus or vgg16, or predict whole files"
        )
    return SpectrogramConfig(**trained.spectrogram).restricted([trained.field])


class AudioClassifier:
    """Compute the class probabilities of clips from the view whose score selected the epoch.

    Args:
        trained: The trained network.
        device: "auto", "cpu" or "cuda".
        temperature: Temperature of the probabilities, see `calibration`.

    Raises:
        UsageError: The run cannot classify audio, or the device is not available.
    """

    def __init__(self, trained: Trained, device: str = "auto", temperature: float = 1.0) -> None:
        self._temperature = temperature
        self.config = spectrogram_config(trained)
        self.trained, self.device = trained, resolve_device(device)
        self._width = trained.config.image_size if trained.field == "npy" else None
        make = make_engine if self._width is None else make_strip_engine
        self._engine = make(*resolve("auto", self.device.type), self.config)
        self._precision = precision.resolve(trained.config.precision, self.device)
        self._network = trained.network.to(self.device, DTYPES[self._precision]).eval()

    def __call__(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Classify clips.

        Args:
            clips: Mono samples at `config.sample_rate`, each float32 [time], finite.

        Returns:
            Class probabilities, float64 [clips, classes].
        """
        views = self._views(self._engine(clips))
        inputs = np.concatenate(views)
        parts = []
        with torch.inference_mode(), fixed_numerics(), autocast(self._precision, self.device):
            for part in torch.split(torch.from_numpy(inputs), max(1, BATCH // inputs[0].size)):
                parts.append(self._network(part.to(self.device)).float().softmax(1))
        probabilities = torch.cat(parts).double().cpu().numpy()
        ends = np.cumsum([len(rows) for rows in views])[:-1]
        means = np.stack([rows.mean(0) for rows in np.split(probabilities, ends)])
        return means if self._temperature == 1 else scaled(means, self._temperature)

    def _views(self, output: EngineOutput) -> Sequence[np.ndarray]:
        """Return the images or features of the scored view of each clip, [views, ...]."""
        is_sliced = SCORE_VIEWS[self.trained.selected] == "slice"
        if self.trained.field == "features.npy":
            assert output.features is not None
            return [rows[1:] if is_sliced else rows[:1] for rows in output.features]
        if self._width is None:
            return output.slices if is_sliced else [image[None] for image in output.full]
        return [self._cut(strip, self._width, is_sliced) for strip in output.full]

    def _cut(self, strip: np.ndarray, width: int, is_sliced: bool) -> np.ndarray:
        """Cut the images of a clip from its strip [size, frames], uint8 [views, size, width]."""
        from shardwave.shards.read.cut import cut

        size, frames = strip.shape
        spans = np.array(self.config.frame_bounds(frames) if is_sliced else [(0, frames)])
        images = np.empty((len(spans), size, width), np.uint8)
        cut(strip.ctypes.data + spans[:, 0] * size, spans[:, 1] - spans[:, 0], images)
        return images
