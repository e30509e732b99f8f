"""Recordings decoded block by block, and the windows cut from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio import blocks, decode, streams


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [("wav", 22_050, 1), ("wav", 44_100, 2), ("flac", 48_000, 1), ("ogg", 22_050, 1), ("mp3", 44_100, 2)],
)
def test_joined_blocks_are_the_decoded_file(
    suffix: str, rate: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a lost or repeated sample at the border of two blocks, also within the resampler."""
    monkeypatch.setattr(blocks, "BLOCK", 10_007)
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, noise(3.3, rate, channels), rate)
    parts = [part._replace(samples=part.samples.copy()) for part in blocks.decode_blocks(path, 22_050)]
    assert sum(len(part.samples) > 0 for part in parts) > 5
    joined = np.concatenate([part.samples for part in parts])
    np.testing.assert_allclose(joined, decode.decode(path, 22_050).samples, atol=1e-6)
    assert parts[0].total == pytest.approx(3.3, abs=0.06) and parts[-1].defect is None


def test_a_large_mpeg_file_is_not_copied_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy of the frames of a long MP3 file is on disk, since a file of memfd_create is in memory."""
    soundfile.write(tmp_path / "noise.mp3", noise(2, 22_050), 22_050)
    expected = decode.decode(tmp_path / "noise.mp3", 22_050).samples
    monkeypatch.setattr(streams, "MAPPED", 1_000)
    monkeypatch.setattr(streams.os, "memfd_create", None)
    parts = [part.samples.copy() for part in blocks.decode_blocks(tmp_path / "noise.mp3", 22_050)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_a_cut_recording_is_decoded_up_to_its_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.wav", noise(4, 22_050), 22_050, "PCM_16")
    content = (tmp_path / "noise.wav").read_bytes()
    (tmp_path / "noise.wav").write_bytes(content[: len(content) // 2])
    parts = list(blocks.decode_blocks(tmp_path / "noise.wav", 22_050))
    assert sum(len(part.samples) for part in parts) == pytest.approx(2 * 22_050, abs=50)
    assert parts[-1].defect
    (tmp_path / "noise.wav").write_bytes(b"no audio")
    with pytest.raises(BadAudio, match="not audio"):
        list(blocks.decode_blocks(tmp_path / "noise.wav", 22_050))


@pytest.mark.parametrize(("seconds", "hop"), [(1.0, 1.0), (1.0, 0.3), (2.5, 0.7), (0.11, 0.037)])
def test_windows_are_the_parts_of_the_recording_that_their_times_name(seconds: float, hop: float) -> None:
    rate, rng = 1_000, np.random.default_rng(1)
    for total in (2_600, 5_000, 7_777):
        samples = np.arange(total, dtype=np.float32)
        cuts = np.sort(rng.integers(0, total, 9))
        found = list(blocks.windows(np.split(samples, cuts), rate, seconds, hop, least=3))
        size = round(seconds * rate)
        for number, window in enumerate(found):
            begin = round(window.start * rate)
            np.testing.assert_array_equal(window.samples, samples[begin : begin + size])
            assert window.end - window.start == pytest.approx(seconds)
            if number < len(found) - 1:
                assert window.start == number * hop
        assert total - 3 <= round(found[-1].end * rate) <= total  # nothing at the end is left out
        assert round(found[-2].start * rate) + round(hop * rate) + size + 4 > total - size


def test_a_recording_of_about_one_window_is_one_window() -> None:
    samples = np.zeros(1_000, np.float32)
    for least, count in ((5, 0), (6, 1)):
        assert len(list(blocks.windows([samples], 1_000, 1.006, 1.0, least))) == count
    assert len(list(blocks.windows([samples], 1_000, 0.994, 0.5, 6))) == 1
    assert list(blocks.windows([], 1_000, 1.0, 1.0, 6)) == []
