"""Where machine code is kept, and vectors of sixteen floats against NumPy."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shardwave.preprocess.engines.numba.numba_cache import cache_folder, compiled, holds_engine
from shardwave.preprocess.engines.numba.simd import LANES, accumulate, traced, transpose, transpose_to_bytes

RNG = np.random.default_rng(0)


def test_the_cache_belongs_to_the_sources(tmp_path, monkeypatch):
    cache_folder.cache_clear()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path and folder.name.startswith("compiled-") and not holds_engine()
    code = (
        "import numpy as np; from shardwave.preprocess.config import SpectrogramConfig as C; "
        "from shardwave.preprocess.engines.registry import make_engine"
    )
    run = f"{code}; make_engine('numba', 'cpu', C(image_size=16))([np.zeros(99, np.float32)])"
    subprocess.run([sys.executable, "-c", run], check=True)
    assert holds_engine()
    cache_folder.cache_clear()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "folder"))
    (tmp_path / "file").write_text("in the way")
    assert cache_folder() is None
    cache_folder.cache_clear()


def test_a_changed_source_names_another_folder(tmp_path):
    names = set()
    (tmp_path / "preprocess" / "engines" / "numba").mkdir(parents=True)
    module = tmp_path / "preprocess" / "engines" / "numba" / "numba_cache.py"
    module.write_text(Path(cache_folder.__wrapped__.__code__.co_filename).read_text())
    for constant in (1, 2):
        (tmp_path / "preprocess" / "features.py").write_text(f"MELS = {constant}")
        code = "from numba_cache import cache_folder; print(cache_folder().name)"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=module.parent, capture_output=True, text=True, check=True
        )
        names.add(run.stdout)
    assert len(names) == 2


@traced
def _arithmetic(a, b, out):
    x, y = a.load(0), b.load(0)
    results = [
        x + y,
        x - y,
        x * y,
        x / y,
        x.maximum(y),
        x.minimum(y),
        x.below(y),
        x.maximum(0.0).sqrt(),
        y.log2(),
        a.broadcast(3) * 2.0,
    ]
    for i, result in enumerate(results):
        out.store(i * LANES, result)


@traced
def _sum(a, count, out):
    out.store(0, accumulate(count, lambda i: a.load(i * LANES)))


@traced
def _turn(a, out, flat):
    rows = [a.load(i * LANES) for i in range(LANES)]
    for i, (column, part) in enumerate(zip(transpose(rows), transpose_to_bytes(rows), strict=True)):
        out.store(i * LANES, column)
        flat.store_bytes(i * LANES, part)


@compiled
def arithmetic(a, b, out):
    _arithmetic(a, b, out)


@compiled
def total(a, count, out):
    _sum(a, count, out)


@compiled
def turn(a, out, flat):
    _turn(a, out, flat)


def test_arithmetic():
    a, b = RNG.standard_normal(LANES).astype(np.float32), RNG.uniform(0.1, 9, LANES).astype(np.float32)
    out = np.empty((10, LANES), np.float32)
    arithmetic(a, b, out.reshape(-1))
    expected = [
        a + b,
        a - b,
        a * b,
        a / b,
        np.maximum(a, b),
        np.minimum(a, b),
        a < b,
        np.sqrt(np.maximum(a, 0)),
        np.log2(b),
    ]
    np.testing.assert_allclose(out[:9], expected, rtol=1e-6, atol=2e-5)
    np.testing.assert_array_equal(out[9], 2 * a[3])


@pytest.mark.parametrize("exponent", [-120, -20, -1, 0, 1, 30, 120])
def test_logarithm(exponent):
    """1.5e-5 everywhere; exact enough at powers of two; zero lies below every number."""
    b = np.ldexp(RNG.uniform(0.5, 2, LANES), exponent).astype(np.float32)
    b[:2] = np.float32(2.0) ** exponent, 0
    out = np.empty((10, LANES), np.float32)
    arithmetic(b, b, out.reshape(-1))
    np.testing.assert_allclose(
        np.delete(out[8], 1), np.log2(np.delete(b, 1).astype(np.float64)), rtol=1e-6, atol=2e-5
    )
    assert out[8, 1] <= -126


@pytest.mark.parametrize("count", [1, 2, 7])
def test_sums_and_transposes(count):
    a = RNG.uniform(0, 256, (LANES, LANES)).astype(np.float32)
    out = np.empty(LANES, np.float32)
    total(a.reshape(-1), count, out)
    np.testing.assert_allclose(out, a[:count].sum(axis=0), rtol=1e-6)
    turned, flat = np.empty((LANES, LANES), np.float32), np.empty((LANES, LANES), np.uint8)
    turn(a.reshape(-1), turned.reshape(-1), flat.reshape(-1))
    np.testing.assert_array_equal(turned, a.T)
    np.testing.assert_array_equal(flat, a.T.astype(np.uint8))
