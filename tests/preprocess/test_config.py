"""The spectrogram's parameters: their rules, frames and slices."""

import subprocess
import sys

import pytest

from preprocess.config import SpectrogramConfig
from preprocess.errors import UsageError


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 500},
        {"n_fft": 1_000},
        {"n_fft": 8},
        {"hop_length": 0},
        {"hop_length": 4_096},
        {"frequency_scale": "bark"},
        {"image_size": 510},
        {"image_size": 4},
        {"floor_db": 0.0},
        {"floor_db": -200.0},
        {"slices": -1},
        {"slice_seconds": 0.0},
        {"n_fft": 128, "hop_length": 64, "features": True},
    ],
)
def test_wrong_values_name_the_option_and_the_value(wrong):
    with pytest.raises(UsageError) as caught:
        SpectrogramConfig(**wrong)
    assert str(next(iter(wrong.values()))) in str(caught.value)
    assert next(iter(wrong)) in str(caught.value)


def test_frames():
    config = SpectrogramConfig()
    assert config.bins == 1_025
    assert config.frames(661_794) == 1_293
    assert config.frames(1) == config.frames(2_048) == 5


def test_slices_cover_the_clip():
    config = SpectrogramConfig(slices=10)
    bounds = config.slice_bounds(661_794)
    assert bounds[0][0] == 0 and bounds[-1][1] == 1_293
    assert all(stop == start for (_, stop), (start, _) in zip(bounds, bounds[1:], strict=False))
    assert {stop - start for start, stop in bounds} == {129, 130}
    assert all(0 <= start < stop <= 5 for start, stop in config.slice_bounds(100)) and len(config.slice_bounds(100)) == 10
    assert SpectrogramConfig(slices=0).slice_bounds(661_794) == []


def test_slices_of_a_length():
    config = SpectrogramConfig(slice_seconds=3.0)
    bounds = config.slice_bounds(661_794)
    assert len(bounds) == 10 and {stop - start for start, stop in bounds} == {129}
    assert config.slice_bounds(22_050) == [(0, 44)]


def test_light_modules_load_no_heavy_ones():
    """The command line reads defaults and names from these; they must cost it nothing."""
    code = "import sys, preprocess.config, preprocess.features, preprocess.engine, preprocess.errors, preprocess.environment\n"
    code += "print([m for m in ('torch', 'numba', 'librosa', 'soundfile', 'soxr', 'nvidia') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
