"""Tests of the numba engine only: two passes for long clips, memory, start, and each kernel."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.numba import engine as engine_numba
from shardwave.preprocess.engines.numba.engine import NumbaEngine
from tests.preprocess.conftest import RATE, music
from tests.preprocess.engines.test_engines import assert_close


@pytest.mark.parametrize("scale", ["linear", "log", "mel"])
@pytest.mark.parametrize("slices", [{"slices": 4}, {"slice_seconds": 0.7}, {"slices": 500}])
def test_two_passes_equal_one(monkeypatch, scale, slices):
    config = SpectrogramConfig(frequency_scale=scale, image_size=64, features=True, **slices)
    clips = [music(10 * RATE), np.zeros(10 * RATE, np.float32), music(3 * RATE) * np.float32(1e-25)]
    whole = NumbaEngine(config)(clips)
    monkeypatch.setattr(engine_numba, "ONE_PASS", 0)
    monkeypatch.setattr(engine_numba, "CHUNK", 5)
    parts = NumbaEngine(config)(clips)
    assert_close(parts.full, whole.full)
    for mine, theirs in zip(parts.slices, whole.slices, strict=True):
        assert_close(mine, theirs)
    for mine, theirs in zip(parts.features, whole.features, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("one_pass", [engine_numba.ONE_PASS, 0])
@pytest.mark.parametrize("length", [1, 1_000, 2_048, 2_049, 30_000])
def test_sixteen_bits_equal_floats_to_the_bit(monkeypatch, length, one_pass):
    monkeypatch.setattr(engine_numba, "ONE_PASS", one_pass)
    engine = NumbaEngine(SpectrogramConfig(image_size=64, slices=3, features=True))
    noise = np.random.default_rng(0).integers(-32_768, 32_768, length)
    clips = [clip.astype(np.int16) for clip in (noise, noise * 0, noise * 0 - 32_768, noise // 10_000)]
    made, expected = engine(clips), engine([clip.astype(np.float32) / 32_768 for clip in clips])
    np.testing.assert_array_equal(made.full, expected.full)
    np.testing.assert_array_equal(made.slices, expected.slices)
    np.testing.assert_array_equal(made.features, expected.features)


def run(code, **environment):
    root = os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MEMORY = """
from pathlib import Path
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import make_engine
engine = make_engine(ENGINE, "cpu", SpectrogramConfig(features=FEATURES))
(_, made), = engine.stream([Path(PATH)])
assert made.full.any() and made.slices.any()
# getrusage would return the peak of the parent process if that is larger
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak[0].split()[1]) / 1024)
"""


def memory_mb(engine, folder, minutes, rate, features):
    """Peak memory in MB of a new process that computes images from a file.

    Skips the test if the system does not report it.
    """
    if not os.path.exists("/proc/self/status"):
        pytest.skip("Linux tells a process's peak memory there")
    path = folder / "long.wav"
    channels = 2 if rate > RATE else 1
    soundfile.write(
        path, np.tile(music(60 * rate, rate=rate)[:, None], (minutes, channels)), rate, subtype="PCM_16"
    )
    return float(
        run(
            MEMORY.replace("PATH", repr(str(path)))
            .replace("ENGINE", repr(engine))
            .replace("FEATURES", str(features))
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("minutes", "rate", "features"), [(10, RATE, True), (10, 44_100, True), (40, RATE, False)]
)
def test_memory_stays_under_one_gigabyte(tmp_path, minutes, rate, features):
    assert memory_mb("numba", tmp_path, minutes, rate, features) < 1_000


def test_features_load_torch_and_images_do_not():
    code = """
import sys
import numpy as np
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import make_engine
make_engine("numba", "cpu", SpectrogramConfig(image_size=32))([np.ones(3000, np.float32)])
print("torch" in sys.modules, "soundfile" in sys.modules)
"""
    assert run(code).split() == ["False", "False"]


@pytest.mark.slow
def test_only_the_first_start_on_a_machine_compiles(tmp_path):
    """Measured in processor time, which other programs do not affect.

    16-bit samples after floats must compile nothing more.
    """
    code = """
import time
import numpy as np
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import make_engine
engine = make_engine("numba", "cpu", SpectrogramConfig())
engine([np.ones(3000, np.float32)])
print(time.process_time())
engine([np.ones(3000, np.int16)])
print(time.process_time())
"""
    first, with_integers = map(float, run(code, NUMBA_CACHE_DIR=str(tmp_path)).split())
    assert with_integers - first < first / 4
    again = float(run(code, NUMBA_CACHE_DIR=str(tmp_path)).split()[1])
    assert again < first / 2


def test_without_a_writable_cache_folder():
    """The engine compiles for the process then."""
    code = """
import shardwave.preprocess.engines.numba.numba_cache
shardwave.preprocess.engines.numba.numba_cache.cache_folder = lambda: None
import numpy as np
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import make_engine
print(make_engine("numba", "cpu", SpectrogramConfig(image_size=32))([np.ones(3000, np.float32)]).full.any())
"""
    assert run(code).strip() == "True"
