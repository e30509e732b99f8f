"""The reference engine compared with librosa, with golden vectors, and with the definition in the design."""

from pathlib import Path

import librosa
import numpy as np
import pytest

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.reference import ReferenceEngine, decibels, power
from shardwave.preprocess.engines.registry import make_engine
from tests.preprocess.conftest import RATE, music

GOLDEN = Path(__file__).parents[1] / "golden.npz"


@pytest.mark.parametrize(("n_fft", "hop"), [(2_048, 512), (1_024, 256), (512, 100)])
@pytest.mark.parametrize("samples", [2_048, 2_049, 10_000, 3 * RATE])
def test_power_equals_librosa(samples, n_fft, hop):
    clip = music(samples)
    theirs = (
        np.abs(librosa.stft(clip.astype(np.float64), n_fft=n_fft, hop_length=hop, pad_mode="reflect")) ** 2
    )
    mine = power(clip, SpectrogramConfig(n_fft=n_fft, hop_length=hop))
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12 * theirs.max())


@pytest.mark.parametrize("scale", ["linear", "mel"])
def test_decibels_equal_librosa(scale):
    clip = music(3 * RATE)
    spectrum = np.abs(librosa.stft(clip.astype(np.float64), pad_mode="reflect")) ** 2
    if scale == "mel":
        spectrum = librosa.feature.melspectrogram(S=spectrum, sr=RATE, n_mels=128)
    theirs = librosa.power_to_db(spectrum, ref=np.max, amin=1e-300, top_db=80)
    mine = decibels(clip, SpectrogramConfig(frequency_scale=scale, image_size=128))
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)


def test_the_size_of_a_thirty_second_clip():
    assert decibels(music(661_794), SpectrogramConfig()).shape == (1_025, 1_293)


def test_short_clips_are_padded_with_zeros():
    clip = music(700)
    config = SpectrogramConfig()
    np.testing.assert_array_equal(power(clip, config), power(np.pad(clip, (0, 2_048 - 700)), config))


def test_silence_is_all_floor_and_the_loudest_point_is_white():
    engine = ReferenceEngine(SpectrogramConfig(image_size=64))
    made = engine([np.zeros(RATE, np.float32), np.ones(RATE, np.float32)])
    assert made.full[0].max() == 0 and made.slices[0].max() == 0
    assert made.full[1, 0].max() > 0


def test_low_frequencies_come_first_and_time_runs_right():
    t = np.arange(RATE) / RATE
    low_then_high = np.concatenate([np.sin(2 * np.pi * 500 * t), np.sin(2 * np.pi * 9_000 * t)]).astype(
        np.float32
    )
    image = ReferenceEngine(SpectrogramConfig(image_size=64, slices=2))([low_then_high])
    full = image.full[0]
    rows = np.array([500, 9_000]) / (RATE / 2) * 64
    assert np.abs(full[:, 16].argmax() - rows[0]) <= 1 and np.abs(full[:, 48].argmax() - rows[1]) <= 1
    first, second = image.slices[0]
    assert np.abs(first[:, 32].argmax() - rows[0]) <= 1 and np.abs(second[:, 32].argmax() - rows[1]) <= 1


def test_loudness_leaves_no_trace():
    engine = ReferenceEngine(SpectrogramConfig(image_size=64))
    clip = music(RATE)
    np.testing.assert_array_equal(engine([clip]).full, engine([clip * np.float32(2**-20)]).full)


def test_slices_share_the_clips_maximum():
    half = music(RATE)
    made = ReferenceEngine(SpectrogramConfig(image_size=64, slices=2))(
        [np.concatenate([half * np.float32(0.01), half])]
    ).slices[0]
    quieter = 40 * 255 / 80  # levels in 40 dB
    assert (
        abs(int(made[1].max()) - int(made[0][:, :56].max()) - quieter) <= 20
    )  # the last columns hear the loud half begin


@pytest.mark.parametrize(
    ("fit", "samples"), [("pad", RATE // 2), ("pad", 2 * RATE), ("crop", RATE // 2), ("crop", 2 * RATE)]
)
def test_fitting_is_silence_at_the_end_or_a_cut(fit, samples):
    """Images and features equal those of a clip padded or cut before; slices in silence are omitted."""
    shape = {"image_size": 64, "slices": 4, "features": True}
    clip = music(samples)
    by_hand = np.pad(clip, (0, max(0, RATE - samples)))[: RATE if fit == "crop" else None]
    made = ReferenceEngine(SpectrogramConfig(**shape, fit=fit, fit_seconds=1.0))([clip])
    plain = ReferenceEngine(SpectrogramConfig(**shape))([by_hand])
    heard = 2 if samples < RATE else 4  # the third would begin at frame 22, 0.511 s
    np.testing.assert_array_equal(made.full, plain.full)
    np.testing.assert_array_equal(made.slices[0], plain.slices[0][:heard])
    np.testing.assert_array_equal(made.features[0], plain.features[0][: 1 + heard])
    if samples < RATE:
        assert made.full[0][:, 40:].max() == 0 and made.full[0][:, :30].max() > 100


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
def test_golden_vectors(scale):
    """Results equal the stored ones of the first version; features except the last digits of float32."""
    golden = np.load(GOLDEN)
    config = SpectrogramConfig(frequency_scale=scale, image_size=32, slices=3, features=scale == "linear")
    made = make_engine("reference", "cpu", config)([golden["clip"].astype(np.float32) / 32_768])
    images = np.concatenate([made.full, made.slices[0]])
    assert (
        np.abs(images.astype(int) - golden[scale]).max() <= 1
    )  # a level may round the other way in another NumPy
    assert (images != golden[scale]).mean() < 1e-3
    if made.features is not None:
        np.testing.assert_allclose(made.features[0], golden["features"], rtol=1e-4, atol=1e-4)
