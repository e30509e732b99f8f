"""The CUDA engine's kernels and batching on the CPU, against the reference; on a GPU `test_engines` runs the engine itself."""

import numpy as np
import pytest
import soundfile
import torch

from preprocess import batch
from preprocess.batch import BatchTransform
from preprocess.config import SpectrogramConfig
from preprocess.decode import decode
from preprocess.engine_torch_cuda import Clip, batches, clip_of, fill
from preprocess.errors import BadAudio
from tests.preprocess.conftest import INTERPRETED, RATE, Batches, music
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


pytestmark = [
    pytest.mark.skipif(not INTERPRETED, reason="the kernels are compiled here: test_engines runs them"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # rows of the buffer that belong to no clip are computed too
]


@pytest.mark.parametrize(("scale", "kept"), [("linear", batch.KEPT), ("linear", 0), ("log", batch.KEPT), ("mel", 0)])
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


@pytest.mark.parametrize(
    "settings",
    [
        {"n_fft": 512, "hop_length": 100, "image_size": 100, "slices": 0},
        {"n_fft": 1_024, "hop_length": 333, "image_size": 8, "slice_seconds": 0.3},
        {"n_fft": 4_096, "hop_length": 1_024, "image_size": 132, "slices": 12},
        {"n_fft": 64, "hop_length": 16, "image_size": 32, "slices": 3},
        {"image_size": 512, "slices": 2, "floor_db": -60},
        {"image_size": 64, "slices": 0, "floor_db": -3},
        {"image_size": 64, "slices": 3, "features": True},
        {"image_size": 64, "slices": 2, "features": True, "frequency_scale": "log"},
        {"image_size": 32, "slices": 3, "features": True, "fit": "pad", "fit_seconds": 0.4},
        {"image_size": 32, "slice_seconds": 0.1, "slice_overlap": 0.5, "fit": "crop", "fit_seconds": 0.3},
    ],
)
def test_settings(expected, settings):
    config = SpectrogramConfig(**settings)
    clips = [music(12_000, 4), music(3_000, 5)]
    made = Batches(config)(clips)
    for i, reference in enumerate(expected(config, clips)):
        assert_close(made.full[i], reference.full[0])
        assert_close(made.slices[i], reference.slices[0])
        if config.features:
            np.testing.assert_allclose(made.features[i], reference.features[0], rtol=2e-3, atol=2e-2)
    alone = Batches(config)(clips[1:])
    np.testing.assert_array_equal(alone.full[0], made.full[1])
    np.testing.assert_array_equal(alone.slices[0], made.slices[1])


def test_files_in_order_bad_ones_among_them(tmp_path, expected):
    config = SpectrogramConfig(image_size=16, slices=0)
    paths = [tmp_path / f"{i}.wav" for i in range(5)]
    for i, path in enumerate(paths):
        soundfile.write(path, music(3_000 + i, i), RATE, subtype="PCM_16")
    paths[2].write_bytes(b"no audio")
    made = list(Batches(config).stream(paths))
    assert [number for number, _ in made] == list(range(5)) and isinstance(made[2][1], BadAudio)
    for i in (0, 1, 3, 4):
        reference = expected(config, [decode(paths[i], RATE).samples])[0]
        assert_close(made[i][1].full, reference.full[0])
        assert made[i][1].samples == 3_000 + i


def test_batches_keep_order_and_bounds(monkeypatch):
    config = SpectrogramConfig()
    monkeypatch.setattr("preprocess.engine_torch_cuda.FRAMES", 18)
    lengths = (4, 0, 5, 6, 30, 0, 4)  # hops; four more lie between a clip and the next
    clips = [Clip(np.zeros(512 * n, np.float32), 0, 512 * n, (0, 1, 0.0, None)) if n else BadAudio("no") for n in lengths]
    made = list(batches(clips, config))
    assert [number for group in made for number, _ in group] == list(range(7))
    assert [len(group) for group in made] == [3, 1, 1, 2]
    monkeypatch.setattr("preprocess.engine_torch_cuda.PIXELS", 2 * 11 * 512**2)
    monkeypatch.setattr("preprocess.engine_torch_cuda.FRAMES", 1_000)
    made = list(batches([Clip(np.zeros(44_100, np.float32), 0, 44_100, (0, 1, 0.0, None))] * 5, config))
    assert [len(group) for group in made] == [2, 2, 1]
