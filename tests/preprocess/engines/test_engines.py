"""Conformance suite of all engines: equal to the reference within the tolerance, for every kind of clip."""

import numpy as np
import pytest

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import WITH_STRIPS, make_engine, make_strip_engine
from tests.preprocess.conftest import RATE, music

WHOLE = SpectrogramConfig(slices=0)
SLICED = SpectrogramConfig(image_size=128)


def assert_close(made, expected):
    """At most 1 level off on 99.9 % of pixels and never more than 4."""
    assert made.dtype == expected.dtype == np.uint8 and made.shape == expected.shape
    difference = np.abs(made.astype(np.int16) - expected)
    assert difference.max(initial=0) <= 4
    assert (difference > 1).mean() <= 0.001 if difference.size else True


@pytest.fixture
def check(engine_of, expected):
    """`check(config, clips)`: the engine's output for clips, together and alone, against the reference's."""

    def compare(config, clips):
        engine = engine_of(config)
        made = engine(clips)
        for i, reference in enumerate(expected(config, clips)):
            assert_close(made.full[i], reference.full[0])
            assert_close(made.slices[i], reference.slices[0])
        alone = engine(clips[-1:])
        np.testing.assert_array_equal(alone.full[0], made.full[-1])
        np.testing.assert_array_equal(alone.slices[0], made.slices[-1])
        return made

    return compare


CLIPS = {
    "one sample": np.array([0.5], np.float32),
    "two samples": np.array([0.5, -0.25], np.float32),
    "shorter than a window": music(1_500),
    "a window": music(2_048),
    "a window and one sample": music(2_049),
    "sixteen frames": music(15 * 512),
    "3 s": music(3 * RATE),
    "silence": np.zeros(3 * RATE, np.float32),
    "DC": np.ones(3 * RATE, np.float32),
    "full-scale square": np.where(np.arange(3 * RATE) // 50 % 2, np.float32(1), np.float32(-1)),
    "full-scale noise": np.random.default_rng(1).choice(np.array([-1, 1], np.float32), 3 * RATE),
    "tone": np.sin(2 * np.pi * 1_000 * np.arange(3 * RATE) / RATE).astype(np.float32),
    "impulse": np.eye(1, 3 * RATE, 20_000, dtype=np.float32)[0],
    "silence, then noise": np.concatenate([np.zeros(RATE, np.float32), music(RATE)]),
    "very quiet": music(RATE) * np.float32(1e-25),
    "very loud": music(RATE) * np.float32(1e25),
}


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize("name", CLIPS)
def test_kinds_of_clips(check, name, scale):
    made = check(SpectrogramConfig(frequency_scale=scale, image_size=128), [CLIPS[name]])
    if name == "silence":
        assert made.full.max() == 0 and made.slices[0].max() == 0
    elif scale != "mel":  # narrow mel bands may be empty
        assert made.full.max() > 0


def test_default_size_and_a_batch_of_different_lengths(check):
    check(
        SpectrogramConfig(), [music(2 * RATE, 1), CLIPS["one sample"], music(4 * RATE, 2), CLIPS["silence"]]
    )


@pytest.mark.parametrize("samples", [661_794, round(29.98 * RATE)])
def test_thirty_seconds(check, samples):
    made = check(WHOLE, [music(samples)])
    assert made.slices[0].shape == (0, 512, 512) and made.features is None


@pytest.mark.parametrize("size", [8, 12, 20, 100, 132, 1_000, 1_040])
def test_image_sizes(check, size):
    check(SpectrogramConfig(image_size=size, slices=2), [music(RATE)])


@pytest.mark.parametrize(
    ("n_fft", "hop"), [(512, 512), (512, 100), (1_024, 333), (4_096, 1_024), (2_048, 2_048), (64, 16)]
)
@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
def test_transform_sizes(check, n_fft, hop, scale):
    check(
        SpectrogramConfig(n_fft=n_fft, hop_length=hop, image_size=64, slices=3, frequency_scale=scale),
        [music(20_000)],
    )


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
def test_sample_rates(check, rate, scale):
    config = SpectrogramConfig(sample_rate=rate, image_size=64, frequency_scale=scale, floor_db=-60)
    check(config, [music(rate, rate=rate)])


@pytest.mark.parametrize(
    "config",
    [
        {"slices": 1}, {"slices": 7}, {"slices": 300}, {"slice_seconds": 0.5}, {"slice_seconds": 100.0},
        {"slice_seconds": 0.5, "slice_overlap": 0.6},
    ],
)  # fmt: skip
def test_slices(check, config):
    settings = SpectrogramConfig(image_size=32, **config)
    clip = music(3 * RATE)
    made = check(settings, [clip])
    assert len(made.slices[0]) == len(settings.slice_bounds(len(clip)))


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.0])
@pytest.mark.parametrize(
    "slices", [{"slices": 4}, {"slice_seconds": 0.5, "slice_overlap": 0.5}, {"slices": 0}]
)
def test_fitting(check, fit, seconds, slices):
    """Clips that are longer, shorter and as long as `fit_seconds`.

    The last clip is twice as loud after the cropped part, which must not affect its images.
    """
    config = SpectrogramConfig(image_size=32, fit=fit, fit_seconds=seconds, **slices)
    clips = [
        CLIPS["one sample"],
        music(RATE // 3),
        music(RATE),
        np.concatenate([music(2 * RATE), 2 * music(RATE, 1)]),
    ]
    made = check(config, clips)
    for clip, parts in zip(clips, made.slices, strict=True):
        assert len(parts) == len(config.slice_bounds(len(clip)))


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_features_of_fitted_clips(engine_of, expected, fit):
    config = SpectrogramConfig(image_size=32, fit=fit, fit_seconds=1.0, slices=3, features=True)
    clips = [music(RATE // 2), music(2 * RATE, 1), music(RATE, 2)]
    made = engine_of(config)(clips)
    for i, reference in enumerate(expected(config, clips)):
        np.testing.assert_allclose(made.features[i], reference.features[0], rtol=2e-3, atol=2e-2)


def test_fitted_samples_of_16_bits_are_as_good_as_floats(engine_of):
    config = SpectrogramConfig(image_size=32, fit="pad", fit_seconds=1.0, slices=3)
    engine = engine_of(config)
    if not engine.integers:
        pytest.skip("takes floats alone")
    clip = np.round(music(RATE // 2) * 32_768).astype(np.int16)
    np.testing.assert_array_equal(engine([clip]).full, engine([clip / np.float32(32_768)]).full)


def test_a_clip_is_not_changed_and_may_be_read_only(engine_of):
    clip = music(RATE)
    before = clip.copy()
    clip.setflags(write=False)
    engine_of(SLICED)([clip])
    np.testing.assert_array_equal(clip, before)


def test_the_same_bytes_every_time(engine_of):
    """What was computed before leaves no trace, and a second engine agrees to the bit."""
    clip = music(2 * RATE, 5)
    first = engine_of(SLICED)([clip])
    engine_of(SLICED)([music(5 * RATE, 6)])
    again = engine_of(SLICED)([clip])
    engine = engine_of(SLICED)
    fresh = make_engine(engine.name, engine.device, SLICED)([clip])
    for other in (again, fresh):
        np.testing.assert_array_equal(first.full, other.full)
        np.testing.assert_array_equal(first.slices[0], other.slices[0])


def test_empty_batch(engine_of):
    made = engine_of(SLICED)([])
    assert made.full.shape == (0, 128, 128) and made.slices == []


@pytest.mark.slow
def test_ten_minutes(check):
    config = SpectrogramConfig(image_size=64)
    check(config, [music(600 * RATE)])


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize("name", ["a window", "3 s", "silence", "very quiet"])
def test_strips_hold_all_frames_and_equal_the_reference(engine_name, expected, scale, name):
    config = SpectrogramConfig(frequency_scale=scale, image_size=52, features=True)
    if engine_name[0] not in WITH_STRIPS:
        with pytest.raises(UsageError, match="layout strip needs one of the engines numba, torch, reference"):
            make_strip_engine(*engine_name, config)
        return
    clip = CLIPS[name]
    made = make_strip_engine(*engine_name, config)([clip, clip])
    reference = make_strip_engine("reference", "cpu", config)([clip])
    for strip in made.full:
        assert strip.shape == (52, config.frames(len(clip))) and strip.flags.f_contiguous
        assert_close(strip, reference.full[0])
    assert [part.shape[0] for part in made.slices] == [0, 0] and made.features[0].shape[0] == 11


def test_strips_of_a_clip_that_is_computed_in_parts(engine_name, monkeypatch):
    if engine_name[0] not in WITH_STRIPS:
        pytest.skip("an engine without strips")
    import shardwave.preprocess.engines.numba.engine as numba_engine
    import shardwave.preprocess.engines.torch as torch_engine

    config = SpectrogramConfig(image_size=24)
    clip = music(20 * RATE)
    whole = make_strip_engine(*engine_name, config)([clip]).full[0]
    monkeypatch.setattr(numba_engine, "ONE_PASS", 1 << 16)
    monkeypatch.setattr(numba_engine, "CHUNK", 7)
    monkeypatch.setattr(torch_engine, "PART", 100)
    assert_close(make_strip_engine(*engine_name, config)([clip]).full[0], whole)
