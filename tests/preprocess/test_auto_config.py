"""Numbers that the clips decide, and presets."""

import itertools

import pytest

from shardwave.common.errors import UsageError
from shardwave.preprocess.auto_config import PRESETS, AutoConfig, preset_values
from shardwave.preprocess.config import SpectrogramConfig


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ([44_100], 22_050),
        ([22_050] * 3, 22_050),
        ([8_000], 8_000),
        ([8_000, 16_000, 44_100], 16_000),
        ([8_000, 44_100], 8_000),  # a rate that there is, never one between two
        ([], 22_050),
    ],
)
def test_audio_is_not_upsampled(rates, chosen):
    for order in itertools.permutations(rates):
        assert AutoConfig({}).resolve([1.0], order).sample_rate == chosen
    assert AutoConfig({"sample_rate": 44_100}).resolve([1.0], rates).sample_rate == 44_100


@pytest.mark.parametrize(
    ("lengths", "chosen"),
    [
        ([30.0], 10),
        ([5.0], 10),
        ([4.99], 10),  # 0.499 s: codecs add or take some milliseconds
        ([4.5], 9),
        ([1.0], 2),
        ([0.98], 0),  # one slice would be the whole clip once more
        ([0.08], 0),
        ([0.5] * 20 + [77.0], 0),
        ([0.1] + [30.0] * 20, 10),  # a few short clips do not decide for the others
        ([], 10),
    ],
)
def test_slices_are_half_a_second_or_more(lengths, chosen):
    for order in (lengths, lengths[::-1]):
        assert AutoConfig({}).resolve(order, [22_050]).slices == chosen
    assert AutoConfig({"slices": "auto"}).resolve(lengths, [22_050]).slices == chosen
    assert AutoConfig({"slices": 7}).resolve(lengths, [22_050]).slices == 7


def test_slices_are_no_shorter_than_a_window():
    assert AutoConfig({"sample_rate": 2_000}).resolve([5.0], [2_000]).slices == 4  # a window is 1.024 s


def test_slices_of_a_length_replace_the_number():
    assert AutoConfig({"slice_seconds": 1.0}).resolve([30.0], [22_050]) == SpectrogramConfig(
        slices=0, slice_seconds=1.0
    )


def test_length_to_fit_to():
    lengths = [1.0] * 10 + [2.004] * 9 + [60.0]
    crop, pad = (AutoConfig({"fit": fit}).resolve(lengths, [22_050]) for fit in ("crop", "pad"))
    assert (crop.fit_seconds, crop.slices) == (1.0, 2)
    assert (pad.fit_seconds, pad.slices) == (2.0, 4)
    assert AutoConfig({"fit": "crop"}).resolve([0.0001], [22_050]).fit_seconds == 0.01
    assert AutoConfig({"fit": "pad", "fit_seconds": 3.0}).resolve(lengths, [22_050]).fit_seconds == 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 510},
        {"slices": -1},
        {"slice_overlap": 0.5},
        {"fit_seconds": 2.0},
        {"fit": "crop", "fit_seconds": -1.0},
    ],
)
def test_wrong_values_are_refused_when_it_is_made(wrong):
    with pytest.raises(UsageError, match=str(list(wrong.values())[-1])):
        AutoConfig(wrong)


def test_presets_are_valid_at_every_rate():
    for name, rate in itertools.product(PRESETS, (4_000, 8_000, 16_000, 22_050, 44_100)):
        config = AutoConfig({**preset_values(name), "sample_rate": rate}).resolve([1.0], [rate])
        assert config.sample_rate == rate
    with pytest.raises(UsageError, match="preset must be one of music, sound, speech, notes, got noise"):
        preset_values("noise")


@pytest.mark.parametrize(
    ("rate", "n_fft"), [(8_000, 256), (16_000, 512), (44_100, 512)]
)  # the last at 22,050 Hz
def test_a_window_in_seconds(rate, n_fft):
    config = AutoConfig({"window_seconds": 0.032}).resolve([1.0], [rate])
    assert (config.n_fft, config.hop_length) == (n_fft, n_fft // 4)
    config = AutoConfig({"window_seconds": 0.032, "n_fft": 1_024}).resolve([1.0], [rate])
    assert (config.n_fft, config.hop_length) == (1_024, 256)
