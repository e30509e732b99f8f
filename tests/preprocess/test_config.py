"""The spectrogram's parameters: their rules, frames and slices."""

import subprocess
import sys

import pytest

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig


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
        {"slice_seconds": float("inf")},
        {"slice_seconds": float("nan")},
        {"slice_overlap": 1.0, "slice_seconds": 1.0},
        {"slice_overlap": -0.1, "slice_seconds": 1.0},
        {"slice_overlap": 0.5},
        {"fit": "squeeze"},
        {"fit_seconds": 1.0},
        {"fit_seconds": 0.0, "fit": "pad"},
        {"fit_seconds": float("nan"), "fit": "crop"},
        {"fit_seconds": 3_601.0, "fit": "pad"},
        {"fit_seconds": None, "fit": "crop"},
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
    assert (
        all(0 <= start < stop <= 5 for start, stop in config.slice_bounds(100))
        and len(config.slice_bounds(100)) == 10
    )
    assert SpectrogramConfig(slices=0).slice_bounds(661_794) == []


def test_slices_of_a_length():
    config = SpectrogramConfig(slice_seconds=3.0)
    bounds = config.slice_bounds(661_794)
    assert len(bounds) == 10 and {stop - start for start, stop in bounds} == {129}
    assert config.slice_bounds(22_050) == [(0, 44)]
    assert config.slice_bounds(0) == config.slice_bounds(1) == [(0, 5)]


@pytest.mark.parametrize(("overlap", "step"), [(0.0, 129), (0.5, 64), (0.25, 97), (0.999, 1)])
def test_slices_that_overlap(overlap, step):
    config = SpectrogramConfig(slice_seconds=3.0, slice_overlap=overlap)
    bounds = config.slice_bounds(661_794)
    assert {stop - start for start, stop in bounds} == {129}
    assert [start for start, _ in bounds] == list(range(0, 1_293 - 129 + 1, step))


def test_fitting():
    """10,000 Hz and a hop of 100: frame f stands at f / 100 s."""
    shape = {"sample_rate": 10_000, "hop_length": 100, "n_fft": 256, "fit_seconds": 2.0}
    pad, crop = (SpectrogramConfig(slices=4, fit=fit, **shape) for fit in ("pad", "crop"))
    for config in (pad, crop):
        assert [config.fitted(samples) for samples in (0, 1, 19_999, 20_000)] == [20_000] * 4
        assert config.frames(1) == config.frames(20_000) == 201
        assert config.slice_bounds(20_000) == [(0, 50), (50, 100), (100, 150), (150, 201)]
        assert config.slice_bounds(12_000) == [
            (0, 50),
            (50, 100),
            (100, 150),
        ]  # the last would begin after its end
        assert config.slice_bounds(0) == [(0, 50)]
        for samples in (0, 1, 12_000, 50_000):  # an engine may count what it has fitted already
            assert config.frames(config.fitted(samples)) == config.frames(samples)
    assert pad.fitted(50_000) == 50_000 and pad.slice_bounds(50_000)[-1] == (375, 501)
    assert crop.fitted(50_000) == 20_000 and crop.slice_bounds(50_000) == crop.slice_bounds(20_000)
    tiny = SpectrogramConfig(slices=2, fit="crop", **{**shape, "fit_seconds": 1e-6})
    assert tiny.fitted(50_000) == 1 and tiny.frames(50_000) == 3


@pytest.mark.parametrize(
    ("settings", "samples", "unused"),
    [
        ({}, 100_000, (0, 0)),
        ({"slices": 0}, 100_000, (0, 0)),
        ({"slices": 7}, 123, (0, 0)),
        ({"slice_seconds": 3.0}, 100_000, (0, 10_000)),
        ({"slice_seconds": 3.0}, 90_000, (0, 0)),
        ({"slice_seconds": 3.0}, 20_000, (0, 0)),  # one slice of all of it
        ({"slice_seconds": 3.0, "slice_overlap": 0.5}, 100_000, (0, 10_000)),
        ({"fit": "crop", "fit_seconds": 4.0}, 100_000, (60_000, 60_000)),
        ({"fit": "crop", "fit_seconds": 4.0, "slice_seconds": 3.0}, 100_000, (60_000, 70_000)),
        ({"fit": "pad", "fit_seconds": 4.0, "slice_seconds": 3.0}, 35_000, (0, 5_000)),
        ({"fit": "pad", "fit_seconds": 4.0}, 100_000, (0, 0)),
        ({"fit": "crop", "fit_seconds": 4.0, "slices": 0}, 100_000, (60_000, 0)),
        ({"fit": "crop", "fit_seconds": 4.0}, 0, (0, 0)),
    ],
)
def test_what_no_view_holds(settings, samples, unused):
    assert (
        SpectrogramConfig(sample_rate=10_000, hop_length=100, n_fft=256, **settings).unused(samples) == unused
    )


def test_light_modules_load_no_heavy_ones():
    """The command line reads defaults and names from these; they must cost it nothing."""
    code = (
        "import sys, shardwave.preprocess.config, shardwave.preprocess.dsp.features, "
        "shardwave.preprocess.engines.registry, shardwave.common.errors, shardwave.common.environment\n"
    )
    code += (
        "print([m for m in ('torch', 'numba', 'librosa', 'soundfile', 'soxr', 'nvidia') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
