"""Weight matrices: against librosa's, and the resize against Pillow's and hand-worked cases."""

import librosa
import numpy as np
import pytest
from PIL import Image

from shardwave.preprocess.dsp.filters import banded, chroma_bands, log_bands, mel_bands, resize, resize_matrix


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [(1_025, 512), (1_293, 512), (129, 512), (1, 512), (2, 8), (5, 512), (512, 512), (40_000, 64)],
)
def test_resize_rows_are_averages(size_in, size_out):
    matrix = resize_matrix(size_in, size_out)
    assert matrix.shape == (size_out, size_in) and matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)


def test_resize_by_hand():
    np.testing.assert_array_equal(resize_matrix(4, 4), np.eye(4))
    enlarged = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]  # half-pixel centres at -0.25, 0.25, 0.75, 1.25
    np.testing.assert_allclose(resize_matrix(2, 4), enlarged)
    reduced = [
        [0.5, 0.375, 0.125, 0],
        [0, 0.125, 0.375, 0.5],
    ]  # the first row: 1, 3, 3, 1 eighths on pixels -1 … 2, the outer one goes to the edge
    np.testing.assert_allclose(resize_matrix(4, 2), reduced)


@pytest.mark.parametrize(("size_in", "size_out"), [(1_025, 512), (1_293, 512), (129, 512), (700, 100)])
def test_resize_equals_pillow_away_from_the_edge(size_in, size_out):
    """Pillow's bilinear filter is the same triangle.

    At the edge it renormalises the weights; ours repeats the edge pixel.
    """
    row = np.random.default_rng(0).standard_normal(size_in).astype(np.float32)
    theirs = np.asarray(Image.fromarray(row[None]).resize((size_out, 1), Image.Resampling.BILINEAR))[0]
    margin = 2 + size_out // size_in
    np.testing.assert_allclose(
        (resize_matrix(size_in, size_out) @ row)[margin:-margin], theirs[margin:-margin], atol=1e-4
    )


@pytest.mark.parametrize(
    ("rate", "n_fft", "count"), [(22_050, 2_048, 512), (22_050, 2_048, 128), (16_000, 512, 40)]
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_mel_equals_librosa(rate, n_fft, count):
    theirs = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=count)
    np.testing.assert_allclose(mel_bands(rate, n_fft, count), theirs, rtol=0, atol=1e-6 * theirs.max())


@pytest.mark.parametrize(("rate", "n_fft"), [(22_050, 2_048), (8_000, 512)])
def test_chroma_equals_librosa(rate, n_fft):
    np.testing.assert_allclose(
        chroma_bands(rate, n_fft), librosa.filters.chroma(sr=rate, n_fft=n_fft, tuning=0), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("rate", "n_fft", "count"),
    [(22_050, 2_048, 512), (22_050, 2_048, 64), (44_100, 1_024, 1_024), (1_000, 16, 8)],
)
def test_log_bands(rate, n_fft, count):
    bands = log_bands(rate, n_fft, count)
    np.testing.assert_allclose(bands.sum(axis=1), 1, atol=1e-6)
    frequency = np.arange(n_fft // 2 + 1) * rate / n_fft
    centre = bands @ frequency
    assert (np.diff(centre) > 0).mean() > 0.9 and centre[-1] < rate / 2
    wide = (
        frequency > 2 * count * rate / n_fft
    )  # where bands are far wider than bins their spacing is even in log frequency
    if wide.any() and count == 64:
        top = centre[centre > 3_000]
        ratios = top[1:] / top[:-1]
        np.testing.assert_allclose(ratios, (rate / 2 / 20) ** (1 / (count + 1)), rtol=0.01)


def test_banded_keeps_the_matrix():
    matrix = mel_bands(22_050, 2_048, 100)
    np.testing.assert_array_equal(banded(matrix).dense(1_025), matrix)
    narrow = banded(np.eye(1, dtype=np.float32))
    np.testing.assert_array_equal(narrow.dense(1), [[1]])


@pytest.mark.parametrize(("size_in", "size_out"), [(1_293, 512), (129, 512), (40_000, 64)])
def test_parts_of_columns_make_up_the_matrix(size_in, size_out):
    matrix, whole = resize(size_in, size_out), np.zeros((size_out, size_in), np.float32)
    for start in range(0, size_in, 1_000):
        stop = min(start + 1_000, size_in)
        rows, weights = matrix.part(start, stop)
        assert weights.shape == (rows.stop - rows.start, stop - start)
        whole[rows, start:stop] = weights
    np.testing.assert_array_equal(whole, resize_matrix(size_in, size_out))
