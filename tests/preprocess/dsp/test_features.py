"""Features against librosa: every engine, whole clips and slices, within stated tolerances."""

import librosa
import numpy as np
import pytest
import torch

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names, feature_rows
from shardwave.preprocess.dsp.statistics import statistics
from shardwave.preprocess.engines.registry import make_engine
from tests.preprocess.conftest import RATE, music

CONFIG = SpectrogramConfig(features=True, image_size=32, slices=3)
# Per feature: tolerance of mean, standard deviation and median; tolerance of minimum and maximum. Single
# precision limits the contrast, because its valleys are the smallest magnitudes of a band. The roll-off bin
# may be the next one if the sum reaches exactly 85 %.
TOLERANCE = {
    "mfcc": (2e-3, 2e-3),
    "chroma": (1e-5, 1e-5),
    "spectral_centroid": (0.02, 0.02),  # Hz
    "spectral_bandwidth": (0.02, 0.02),  # Hz
    "spectral_contrast": (0.1, 1.0),  # dB
    "spectral_rolloff": (1.0, 11.0),  # Hz
    "zero_crossing_rate": (1e-6, 1e-6),
}


def with_librosa(clip, config):
    """The table of `features` by librosa, in double precision: [1 + slices, columns]."""
    y = np.pad(clip.astype(np.float64), (0, max(0, config.n_fft - len(clip))))
    magnitude = np.abs(librosa.stft(y, n_fft=config.n_fft, hop_length=config.hop_length, pad_mode="reflect"))
    shape = {"sr": config.sample_rate, "n_fft": config.n_fft}
    mel = librosa.feature.melspectrogram(S=magnitude**2, sr=config.sample_rate, n_mels=128)
    bands = sum("contrast" in row for row in feature_rows(config)) - 1
    rows = np.concatenate(
        [
            librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20),
            librosa.feature.chroma_stft(S=magnitude**2, tuning=0, **shape),
            librosa.feature.spectral_centroid(S=magnitude, **shape),
            librosa.feature.spectral_bandwidth(S=magnitude, **shape),
            librosa.feature.spectral_contrast(S=magnitude, n_bands=bands, **shape),
            librosa.feature.spectral_rolloff(S=magnitude, **shape),
            librosa.feature.zero_crossing_rate(y, frame_length=config.n_fft, hop_length=config.hop_length),
        ]
    )
    parts = [rows[:, start:stop] for start, stop in [(0, rows.shape[1]), *config.slice_bounds(len(clip))]]
    statistics = [np.mean, np.std, np.min, np.median, np.max]
    return np.stack([np.stack([f(part, axis=1) for f in statistics], axis=1).ravel() for part in parts])


def assert_close(made, expected, config):
    assert made.dtype == np.float32 and made.shape == expected.shape == (
        len(made),
        len(feature_names(config)),
    )
    for column, name in enumerate(feature_names(config)):
        row, statistic = name.rsplit("_", 1)
        usual, extreme = next(value for prefix, value in TOLERANCE.items() if row.startswith(prefix))
        tolerance = extreme if statistic in ("min", "max") else usual
        assert np.abs(made[:, column] - expected[:, column]).max() <= tolerance, name


CLIPS = {
    "3 s": music(3 * RATE),
    "shorter than a window": music(1_000),
    "silence": np.zeros(RATE, np.float32),
    "loud and clipped": np.clip(music(RATE, 3) * 20, -1, 1),
    "above full scale": music(2 * RATE, 4) * 100,
    "too quiet for images without a factor": music(RATE, 5) * np.float32(1e-10),
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_engine_equals_librosa(engine_of, name):
    made = engine_of(CONFIG)([CLIPS[name]])
    assert_close(made.features[0], with_librosa(CLIPS[name], CONFIG), CONFIG)


@pytest.mark.parametrize("name", CLIPS)
def test_the_reference_equals_librosa(name):
    made = make_engine("reference", "cpu", CONFIG)([CLIPS[name]])
    assert_close(made.features[0], with_librosa(CLIPS[name], CONFIG), CONFIG)


@pytest.mark.parametrize(
    ("rate", "n_fft", "hop"), [(8_000, 512, 200), (16_000, 1_024, 256), (44_100, 4_096, 1_024)]
)
@pytest.mark.parametrize("scale", ["linear", "mel"])
def test_other_rates_and_sizes(engine_of, rate, n_fft, hop, scale):
    config = SpectrogramConfig(
        rate, n_fft, hop, frequency_scale=scale, image_size=32, slices=2, features=True
    )
    clip = music(2 * rate, rate=rate)
    assert_close(engine_of(config)([clip]).features[0], with_librosa(clip, config), config)


def test_statistics_equal_numpy():
    rows = torch.randn(2, 3, 7, dtype=torch.float64)
    for frames in (1, 2, 6, 7):
        part = rows[:, :, :frames]
        expected = np.stack(
            [f(part.numpy(), axis=2) for f in (np.mean, np.std, np.min, np.median, np.max)], axis=2
        ).reshape(2, 15)
        np.testing.assert_allclose(statistics(part).numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(statistics(part.numpy()), expected, atol=1e-12)


def test_names():
    names = feature_names(CONFIG)
    assert len(names) == len(set(names)) == 5 * (20 + 12 + 1 + 1 + 7 + 1 + 1)
    assert names[:6] == ["mfcc1_mean", "mfcc1_std", "mfcc1_min", "mfcc1_median", "mfcc1_max", "mfcc2_mean"]
    assert feature_names(SpectrogramConfig()) == []
    assert (
        sum("contrast" in name for name in feature_names(SpectrogramConfig(sample_rate=8_000, features=True)))
        == 5 * 6
    )


def test_features_need_bins_below_200_hz():
    with pytest.raises(UsageError, match="features need"):
        SpectrogramConfig(n_fft=128, hop_length=64, features=True)
