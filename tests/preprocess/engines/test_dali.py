"""What is the DALI engine's own: batches ahead, views that need several samples."""

import numpy as np
import pytest
import soundfile

from shardwave.preprocess.config import SpectrogramConfig
from tests.preprocess.conftest import RATE, music

pytest.importorskip("nvidia.dali")
from shardwave.preprocess.engines import dali
from shardwave.preprocess.engines.dali import DaliEngine


def test_the_next_batch_is_decoded_before_the_first_has_ended(tmp_path):
    """Otherwise decoding and computing would take turns."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, music(RATE // 4), RATE, subtype="PCM_16")
    taken = []

    def sources(count):
        for number in range(count):
            taken.append(number)
            yield path

    stream = DaliEngine(SpectrogramConfig(image_size=32, slices=2), "cpu").stream(sources(60))
    first = next(stream)[1]
    assert len(taken) == dali.DEPTH * dali.BATCH
    for _, output in stream:
        np.testing.assert_array_equal(output.full, first.full)
        np.testing.assert_array_equal(output.slices, first.slices)
    assert len(taken) == 60


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_views_drawn_in_several_samples_equal_those_of_one(monkeypatch, scale):
    config = SpectrogramConfig(image_size=32, slices=9, features=True, frequency_scale=scale)
    clips = [music(RATE * seconds, seconds) for seconds in (1, 3, 2)]
    whole = DaliEngine(config, "cpu")(clips)
    monkeypatch.setattr(dali, "VIEWS", 4)
    monkeypatch.setattr(dali, "BATCH", 2)
    parts = DaliEngine(config, "cpu")(clips)
    np.testing.assert_array_equal(parts.full, whole.full)
    np.testing.assert_array_equal(parts.slices, whole.slices)
    np.testing.assert_array_equal(parts.features, whole.features)
