"""Decoding: formats, rates, channels, and every way in which a file can be bad."""

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.decode import decode, looks_like_audio

ROOT = Path(__file__).resolve().parents[3]
RATE = 22_050
FORMATS = [
    ("wav", "PCM_U8", 2**-7),
    ("wav", "PCM_16", 2**-15),
    ("wav", "PCM_24", 2**-23),
    ("wav", "PCM_32", 2**-24),
    ("wav", "FLOAT", 2**-24),
    ("wav", "DOUBLE", 2**-24),
    ("au", "PCM_16", 2**-15),
    ("au", "PCM_24", 2**-23),
    ("au", "FLOAT", 2**-24),
    ("aiff", "PCM_16", 2**-15),
    ("aiff", "PCM_S8", 2**-7),
    ("aiff", "FLOAT", 2**-24),
    ("flac", "PCM_16", 2**-15),
    ("flac", "PCM_24", 2**-23),
    ("ogg", "VORBIS", 0.05),
    ("ogg", "OPUS", 0.05),
    ("mp3", "MPEG_LAYER_III", 0.05),
]


def tone(seconds=0.6, rate=RATE, channels=1):
    """A sum of two sines, a different phase per channel: float64 [time, channels]."""
    t = np.arange(int(seconds * rate))[:, None] / rate
    phase = np.arange(channels)[None]
    return 0.4 * np.sin(2 * np.pi * 440 * t + phase) + 0.2 * np.sin(2 * np.pi * 1234 * t + 2 * phase)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("suffix", "subtype", "step"), FORMATS)
def test_the_checksum_of_what_was_read(tmp_path, suffix, subtype, step, channels):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(rate=24_000, channels=channels), 24_000, subtype=subtype)
    if suffix == "wav":  # chunks before and behind the samples
        data = path.read_bytes()
        extra = b"LIST" + struct.pack("<I", 5_000) + bytes(range(250)) * 20
        data = data[:12] + extra + data[12:] + extra
        path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    for rate in (24_000, 8_000):
        decoded = decode(path, rate, 1_000, summed=True)
        assert decoded.crc32 == zlib.crc32(path.read_bytes())
        assert decode(path, rate).crc32 is None and (decode(path, rate).samples == decoded.samples).all()


def test_the_checksum_of_a_tiny_clip_between_large_chunks(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.full(3, 0.5), RATE, subtype="PCM_16")
    data, extra = path.read_bytes(), b"LIST" + struct.pack("<I", 3_000_000) + bytes(3_000_000)
    data = data[:12] + extra + data[12:] + extra
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    decoded = decode(path, RATE, summed=True)
    assert decoded.crc32 == zlib.crc32(path.read_bytes()) and decoded.samples.tolist() == [0.5] * 3


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("suffix", "subtype", "step"), FORMATS)
def test_formats(tmp_path, suffix, subtype, step, channels):
    if suffix == "mp3" and channels > 2:
        channels = 2
    rate = 24_000 if subtype == "OPUS" else RATE
    samples = tone(rate=rate, channels=channels)
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, samples, rate, subtype=subtype)
    decoded = decode(path, rate)
    assert (decoded.source_rate, decoded.channels) == (rate, channels)
    assert decoded.samples.dtype == np.float32 and decoded.samples.shape == (len(samples),)
    assert decoded.seconds == len(samples) / rate
    error = np.abs(decoded.samples - samples.mean(axis=1))
    assert (
        error[500:-500].mean() if step > 0.01 else error.max()
    ) <= step  # on average where the format is lossy


UNCOMPRESSED = [
    (suffix, kind)
    for suffix in ("wav", "au", "aiff")
    for kind in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
]


@pytest.mark.parametrize(
    ("suffix", "subtype"), [*UNCOMPRESSED, ("wav", "PCM_U8"), ("au", "PCM_S8"), ("aiff", "PCM_S8")]
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_uncompressed_files_equal_libsndfile(tmp_path, suffix, subtype, channels, caplog):
    """Our own conversion against libsndfile's, more samples than one piece, to the last bit."""
    samples = np.random.default_rng(0).integers(-(2**31), 2**31, (100_003, channels)).astype(np.int32)
    samples[:4] = [[-(2**31)], [2**31 - 1], [-1], [0]]
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, samples if "PCM" in subtype else samples / 2**31, RATE, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1, dtype=np.float64)
    with caplog.at_level("DEBUG"):
        decoded = decode(path, RATE).samples
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=0 if channels == 1 else 2**-23)
    assert "our own" in caplog.text
    kept = decode(path, RATE, integers=True).samples
    assert kept.dtype == (np.int16 if (suffix, subtype, channels) == ("wav", "PCM_16", 1) else np.float32)
    np.testing.assert_array_equal(kept / 32_768 if kept.dtype == np.int16 else kept, decoded)
    assert decode(path, RATE // 2, integers=True).samples.dtype == np.float32
    arrays = []
    into = decode(
        path, RATE, integers=True, allocate=lambda *form: arrays.append(np.empty(*form)) or arrays[-1]
    )
    assert len(arrays) == 1 and np.shares_memory(into.samples, arrays[0])  # a GPU needs no copy of it
    np.testing.assert_array_equal(into.samples, kept)


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "PCM_16"])
def test_big_endian_and_extensible_wav(tmp_path, subtype):
    path, samples = tmp_path / "clip.wav", tone(channels=2)
    for how in ({"format": "WAV", "endian": "BIG"}, {"format": "WAVEX"}):
        soundfile.write(path, samples, RATE, subtype=subtype, **how)
        np.testing.assert_allclose(decode(path, RATE).samples, samples.mean(axis=1), rtol=0, atol=2**-15)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_other_rates_go_through_soxr_hq(tmp_path, rate, suffix):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(3.0, rate, 2), rate, subtype="PCM_16")
    whole = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    np.testing.assert_allclose(
        decode(path, RATE).samples, soxr.resample(whole, rate, RATE, quality="HQ"), rtol=0, atol=1e-6
    )


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, tone(), RATE, format="WAV", subtype="PCM_16")
    assert len(decode(path, RATE).samples) == len(tone())
    plain = tmp_path / "clip"
    plain.write_bytes(path.read_bytes())
    assert looks_like_audio(plain)


def test_other_kinds_do_not_look_like_audio(tmp_path):
    contents = {
        "README.md": b"# Readme\n",
        "labels.csv": "path,label\n".encode("utf-16"),
        "a.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "a.jpg": b"\xff\xd8\xff\xe0" + bytes(100),
        "a.avi": b"RIFF\0\0\0\0AVI ",
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert not looks_like_audio(tmp_path / name), name
    os.mkfifo(tmp_path / "pipe")
    assert not looks_like_audio(tmp_path / "pipe")
    assert not looks_like_audio(tmp_path)
    assert not looks_like_audio(tmp_path / "missing")


def test_a_broken_file_with_an_audio_name_is_for_decode_to_judge(tmp_path):
    (tmp_path / "jazz.00054.wav").write_bytes(b"\0" * 1_000)
    assert looks_like_audio(tmp_path / "jazz.00054.wav")


def reason(path):
    with pytest.raises(BadAudio) as caught:
        decode(path, RATE)
    message = str(caught.value)
    assert message and "\n" not in message and str(path.parent) not in message
    return message


def wav(samples: bytes, *, data=None, riff=None, channels=1, rate=RATE, bits=16, after=b"") -> bytes:
    """A WAV file whose header may lie."""
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data"
    body += struct.pack("<I", len(samples) if data is None else data) + samples + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


SAMPLES = (tone(2.0)[:, 0] * 32_767).astype("<i2").tobytes()


def test_files_that_are_no_audio(tmp_path):
    path = tmp_path / "clip.wav"
    for content, expected in [
        (b"", "empty"),
        (b"no audio at all" * 100, "not audio"),
        (bytes(5_000), "not audio"),
        (b"RIFF", "not audio"),
    ]:
        path.write_bytes(content)
        assert expected in reason(path)
    assert reason(tmp_path / "missing.wav") == "the file does not exist"
    assert "regular" in reason(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    assert "regular" in reason(tmp_path / "pipe.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(SAMPLES))
    path.chmod(0)
    assert "unreadable" in reason(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (wav(b""), "no samples"),
        (wav(SAMPLES)[:-5_000], "truncated"),
        (wav(SAMPLES)[:44], "truncated"),
        (wav(SAMPLES)[:40], "without samples"),
        (wav(SAMPLES, data=2 * len(SAMPLES)), "truncated"),
        (wav(SAMPLES, data=len(SAMPLES) // 2), "is wrong"),
        (wav(SAMPLES, data=len(SAMPLES) // 2, riff=36 + len(SAMPLES) // 2), "is wrong"),
        (wav(SAMPLES, rate=1), "rate of 1 Hz"),
        (wav(SAMPLES, rate=0), "rate of 0 Hz"),
        (wav(SAMPLES, channels=30_000), "30000 channels"),
        (b".snd" + struct.pack(">5I", 24, len(SAMPLES), 3, RATE, 2**32 - 1) + SAMPLES, "4294967295 channels"),
        (wav(SAMPLES)[:12] + b"data" + struct.pack("<I", len(SAMPLES)) + SAMPLES, "without a format"),
    ],
)
def test_wav_headers_that_lie(tmp_path, content, expected):
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    assert expected in reason(path)


@pytest.mark.parametrize(
    "content",
    [
        wav(
            SAMPLES, data=0xFFFFFFFF, riff=0xFFFFFFFF
        ),  # lengths left open by a writer that could not seek: FFmpeg
        wav(SAMPLES, data=0xFFFFFFFF),
        wav(SAMPLES, data=0xFFFFFFDB, riff=0xFFFFFFFF),  # GStreamer
        wav(SAMPLES, data=0x80000000, riff=0x80000024),  # arecord
        wav(SAMPLES, data=0x7FFFEFDC, riff=0x7FFFF000),  # SoX
        wav(SAMPLES, data=0, riff=0),  # FFmpeg, killed
        wav(SAMPLES, data=0),
        wav(SAMPLES, after=b"LIST" + struct.pack("<I", 4) + b"abcd"),
        wav(SAMPLES, after=b"ID3" + bytes(range(256)) * 100),
        wav(SAMPLES, after=bytes(10_000)),
    ],
)
def test_wav_files_that_are_unusual_but_whole(tmp_path, content):
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    np.testing.assert_array_equal(
        decode(path, RATE).samples, np.frombuffer(SAMPLES, "<i2") / np.float32(32_768)
    )


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("au", "PCM_16"), ("aiff", "PCM_16"), ("aiff", "PCM_24"), ("wav", "PCM_24"), ("wav", "FLOAT")],
)
def test_other_headers_that_lie(tmp_path, suffix, subtype):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(2.0), RATE, subtype=subtype)
    whole = path.read_bytes()
    for cut in (len(whole) // 2, 60):
        path.write_bytes(whole[:cut])
        assert "truncated" in reason(path) or "without" in reason(path)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("flac", "PCM_16"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")]
)
@pytest.mark.parametrize("part", [0.3, 0.7, 0.9])
def test_compressed_files_cut_short(tmp_path, suffix, subtype, part):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(4.0, 24_000), 24_000, subtype=subtype)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert "truncated" in reason(path)


def mp3(path, seconds=4.0):
    soundfile.write(path, tone(seconds), RATE, format="MP3", subtype="MPEG_LAYER_III")
    return path.read_bytes()


def test_a_damaged_mp3_says_where(tmp_path):
    path = tmp_path / "clip.mp3"
    whole = mp3(path)
    path.write_bytes(whole[: len(whole) // 2] + bytes(range(1, 251)) * 40)
    assert re.search(r"damaged: at byte \d+ of \d+, after \d+ MPEG frames", reason(path))


@pytest.mark.parametrize(
    "tag", [b"TAG" + bytes(125), b"APETAGEX" + b"x" * 6_000, b"LYRICSBEGIN" + b"la" * 3_000, bytes(9_000)]
)
def test_an_mp3_with_a_tag_behind_it_is_whole(tmp_path, tag):
    path = tmp_path / "clip.mp3"
    whole = mp3(path)
    before = decode(path, RATE).samples
    path.write_bytes(whole + tag)
    assert np.array_equal(decode(path, RATE).samples, before)


def test_the_mp3_decoder_comments_on_nothing(tmp_path):
    """libmpg123 reports damaged frames, and some frames of LAME, on the standard error of C.

    Standard error of Python must not change.
    """
    path = tmp_path / "clip.mp3"
    content = bytearray(mp3(path, 20.0))
    for at in range(4_000, len(content) - 4_000, 400):  # frames keep their headers, and lose what follows
        if content[at] != 0xFF and content[at - 1] != 0xFF:
            content[at] ^= 0x55
    path.write_bytes(content)
    code = """
import sys, threading
from shardwave.preprocess.audio.c_stderr import silenced
from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.decode import decode
def read():
    for _ in range(3):
        try: decode(sys.argv[1], 22050)
        except BadAudio: pass
with silenced():
    print("seen", file=sys.stderr)
threads = [threading.Thread(target=read) for _ in range(4)]
[one.start() for one in threads]
[one.join() for one in threads]
import soundfile; soundfile.read(sys.argv[1])
"""
    told = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=120
    ).stderr
    noise = told.removeprefix("seen\n")
    assert noise != told and "libmpg123" in noise, (
        "the file must be one that the decoder comments on, outside of our reader"
    )
    alone = subprocess.run(
        [sys.executable, "-c", code.replace("import soundfile; soundfile.read(sys.argv[1])", ""), path],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert alone.stderr == "seen\n"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_numbers(tmp_path, value, channels):
    samples = tone(channels=channels)
    samples[1_000, channels - 1] = value
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, RATE, subtype="DOUBLE" if value == 1e30 else "FLOAT")
    assert "NaN, infinite" in reason(path)


def test_one_sample(tmp_path):
    path = tmp_path / "clip.wav"
    for rate in (RATE, 44_100, 8_000):
        soundfile.write(path, np.array([0.5]), rate, subtype="PCM_16")
        assert len(decode(path, RATE).samples) >= 1


def test_a_lying_flac_header(tmp_path):
    """The sample count of STREAMINFO (36 bits at byte 21) made far larger than the stream."""
    path = tmp_path / "clip.flac"
    soundfile.write(path, tone(2.0), RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[22] = 0x7F
    path.write_bytes(content)
    assert "states 2130750532 samples, the file holds 44100" in reason(path)
