"""The CUDA engine's arithmetic and batching on the CPU, against the reference; on a GPU `test_engines` runs the engine itself."""

import numpy as np
import pytest
import torch

from preprocess import batch
from preprocess.batch import BatchTransform
from preprocess.config import SpectrogramConfig
from preprocess.engine_torch_cuda import Clip, batches, clip_of, fill
from preprocess.errors import BadAudio
from tests.preprocess.conftest import RATE, music
from tests.preprocess.test_engines import assert_close

CLIPS = [
    music(3 * RATE, 1),
    np.array([0.5], np.float32),
    music(3 * RATE, 2),
    np.zeros(RATE, np.float32),
    music(RATE, 3) * np.float32(1e-25),
    music(1_500),
    np.ones(5_000, np.float32),
]


def laid(clips, config):
    ready = [clip_of(clip, config) for clip in clips]
    buffer = np.full(batch.buffer_samples(sum(batch.extent(len(clip), config) for clip in clips), config), np.nan, np.float32)
    return torch.from_numpy(buffer), fill(buffer, ready, config)


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize("kept", [batch.KEPT, 0])
def test_images_of_a_ragged_batch(monkeypatch, expected, scale, kept):
    """Whether the power is kept or computed twice, in one chunk or many."""
    monkeypatch.setattr(batch, "KEPT", kept)
    monkeypatch.setattr(batch, "CHUNK", 100)
    config = SpectrogramConfig(frequency_scale=scale, image_size=128, slices=3)
    images, features = BatchTransform(config, "cpu")(*laid(CLIPS, config))
    assert features is None and len(images) == 4 * len(CLIPS)
    for i, reference in enumerate(expected(config, CLIPS)):
        views = images[4 * i : 4 * i + 4].numpy()
        assert_close(views[0], reference.full[0])
        assert_close(views[1:], reference.slices[0])


def test_batches_keep_order_and_bounds(monkeypatch):
    config = SpectrogramConfig()
    monkeypatch.setattr("preprocess.engine_torch_cuda.FRAMES", 18)
    lengths = (4, 0, 5, 6, 30, 0, 4)  # hops; four more lie between a clip and the next
    clips = [Clip(np.zeros(512 * n, np.float32), 0, 512 * n, (0, 1, 0.0)) if n else BadAudio("no") for n in lengths]
    made = list(batches(clips, config))
    assert [number for group in made for number, _ in group] == list(range(7))
    assert [len(group) for group in made] == [3, 1, 1, 2]
    monkeypatch.setattr("preprocess.engine_torch_cuda.PIXELS", 2 * 11 * 512**2)
    monkeypatch.setattr("preprocess.engine_torch_cuda.FRAMES", 1_000)
    made = list(batches([Clip(np.zeros(44_100, np.float32), 0, 44_100, (0, 1, 0.0))] * 5, config))
    assert [len(group) for group in made] == [2, 2, 1]
