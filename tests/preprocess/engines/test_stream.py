"""Files through every engine: order, what is told about them, and bad ones among them."""

import dataclasses
import zlib

import numpy as np
import pytest
import soundfile

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.config import DEFAULTS, SpectrogramConfig
from shardwave.preprocess.engines.base import ClipOutput
from shardwave.preprocess.engines.registry import make_engine
from tests.preprocess.conftest import RATE, music
from tests.preprocess.engines.test_engines import assert_close

CONFIG = SpectrogramConfig(image_size=64, slices=2, features=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good files of many kinds, and bad ones between them, more than one batch."""
    folder = tmp_path_factory.mktemp("audio")
    kinds = [
        ("wav", "PCM_16", RATE, 1),
        ("wav", "PCM_16", RATE, 2),
        ("wav", "PCM_24", RATE, 1),
        ("wav", "PCM_16", 44_100, 2),
    ]
    kinds += [
        ("au", "PCM_16", RATE, 1),
        ("flac", "PCM_16", RATE, 1),
        ("ogg", "VORBIS", RATE, 1),
        ("mp3", "MPEG_LAYER_III", RATE, 1),
    ]
    paths = []
    for number in range(20):
        suffix, subtype, rate, channels = kinds[number % len(kinds)]
        path = folder / f"{number:02d}.{suffix}"
        samples = music(rate // 2 + 97 * number, number, rate)
        soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), rate, subtype=subtype)
        paths.append(path)
        if number % 4 == 0:
            bad = folder / f"{number:02d} bad.wav"
            bad.write_bytes([b"", b"no audio", path.read_bytes()[:-6_000]][number // 4 % 3])
            paths.append(bad)
    short = folder / "short.wav"
    soundfile.write(short, music(500), RATE, subtype="PCM_16")
    return [*paths, short, folder / "missing.wav"]


FITTED = dataclasses.replace(CONFIG, fit="crop", fit_seconds=0.55)  # some files are shorter, some longer


@pytest.mark.parametrize("config", [CONFIG, FITTED], ids=["as they are", "fitted"])
def test_files_of_all_kinds(engine_of, expected, files, config):
    made = list(engine_of(config).stream(iter(files), summed=True))
    assert [number for number, _ in made] == list(range(len(files)))
    for (_, output), path in zip(made, files, strict=True):
        if "bad" in path.name or "missing" in path.name:
            assert isinstance(output, BadAudio) and str(output)
            continue
        assert isinstance(output, ClipOutput)
        decoded = decode(path, RATE)
        assert output[3:-2] == (len(decoded.samples), *decoded[1:-2])
        assert output.crc32 == zlib.crc32(path.read_bytes())
        reference = expected(config, [decoded.samples])[0]
        assert_close(output.full, reference.full[0])
        assert_close(output.slices, reference.slices[0])
        assert output.features.shape == reference.features[0].shape
        np.testing.assert_allclose(output.features[:, :5], reference.features[0][:, :5], rtol=1e-4, atol=1e-3)


def test_no_files(engine_of):
    assert list(engine_of(CONFIG).stream([])) == []


def test_a_stream_may_be_left_early(engine_of, files):
    first = next(iter(engine_of(CONFIG).stream(files)))
    assert first[0] == 0
    assert len(list(engine_of(CONFIG).stream(files[:3]))) == 3


def test_decoding_ahead_equals_file_after_file(files):
    """The way of the CUDA engine, on the CPU: bad files in their order; and it may be left before its end."""
    engine = make_engine("torch", "cpu", CONFIG)
    plain = list(engine.stream(files, summed=True))
    for _ in range(2):
        made = list(engine.pipelined(iter(files), True, DEFAULTS))
        for output, (_, expected) in zip(made, plain, strict=True):
            assert type(output) is type(expected)
            if isinstance(expected, BadAudio):
                assert str(output) == str(expected)
                continue
            np.testing.assert_array_equal(output.full, expected.full)
            np.testing.assert_array_equal(output.slices, expected.slices)
            np.testing.assert_array_equal(output.features, expected.features)
            assert output[3:] == expected[3:]
        np.testing.assert_array_equal(
            next(engine.pipelined(iter(files), True, DEFAULTS)).full, plain[0][1].full
        )
