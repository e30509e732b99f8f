"""Every sample that a reference decoder (FFmpeg's libraries, through PyAV) finds in a file is decoded.

Otherwise the file is refused with the true reason. The files are of several encoders: without headers, with
wrong headers, concatenated, truncated and damaged.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from shardwave.common.errors import BadAudio
from shardwave.preprocess.audio.decode import decode, looks_like_audio
from shardwave.preprocess.audio.probe import probe
from shardwave.preprocess.config import Limits

ROOT = Path(__file__).resolve().parents[3]
FRAME = 1_152  # samples of the longest MPEG frame
MUXER_OPTIONS = ("write_xing", "id3v2_version", "rf64", "movflags")
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def sound(rate: int, channels: int = 2, seconds: float = 1.3) -> np.ndarray:
    """A sweep with noise: float64 [time, channels]."""
    t = np.arange(int(rate * seconds)) / rate
    noise = 0.02 * np.random.default_rng(rate).standard_normal((len(t), channels))
    return 0.3 * np.sin(2 * np.pi * 300 * t * (1 + t))[:, None] + noise


@functools.cache
def encoded(
    container: str,
    codec: str,
    rate: int = 44_100,
    channels: int = 2,
    options: tuple = (),
    seconds: float = 1.3,
) -> bytes:
    """A file that FFmpeg's muxer and encoder make; Vorbis by libsndfile."""
    samples = sound(rate, channels, seconds)
    if codec == "vorbis":
        vorbis = io.BytesIO()
        soundfile.write(vorbis, samples, rate, format="OGG", subtype="VORBIS")
        return vorbis.getvalue()
    for_muxer = {key: value for key, value in options if key in MUXER_OPTIONS}
    for_encoder = {key: value for key, value in options if key not in MUXER_OPTIONS}
    layout = "mono" if channels == 1 else "stereo"
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=for_muxer) as output:
            stream = output.add_stream(codec, rate=rate, layout=layout, options=for_encoder)
            if codec == "wmav2":
                stream.bit_rate = 128_000
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples.T, np.float32), format="fltp", layout=layout
            )
            frame.rate, frame.pts = rate, 0
            fifo = av.AudioFifo()
            for converted in av.AudioResampler(format=stream.format, layout=layout, rate=rate).resample(
                frame
            ):
                fifo.write(converted)
            size = stream.codec_context.frame_size or 1_024
            while part := fifo.read(size) or fifo.read(0, partial=True):
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def reference(path: Path) -> tuple[int, int]:
    """(Rate in Hz, samples) as FFmpeg decodes the file."""
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        samples = 0
        for packet in container.demux(audio):
            with contextlib.suppress(av.error.InvalidDataError):  # the command goes on too
                samples += sum(frame.samples for frame in packet.decode())
        return audio.rate, samples


def length(path: Path, rate: int, **options: object) -> int:
    return len(decode(path, rate, **options).samples)


def reason(path: Path, **options: object) -> str:
    with pytest.raises(BadAudio) as caught:
        decode(path, 22_050, **options)
    return str(caught.value)


def id3(size: int = 600, version: int = 3, footer: bool = False) -> bytes:
    """An ID3v2 tag."""
    length = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    head = b"ID3" + bytes([version, 0, 0x10 if footer else 0]) + length
    return head + b"TIT2".ljust(size, b"x") + (b"3DI" + head[3:] if footer else b"")


ID3V1 = b"TAG" + b"x" * 125
APE = (
    b"APETAGEX"
    + struct.pack("<4I", 2_000, 64, 1, 0xA0000000)
    + bytes(8 + 64)
    + b"APETAGEX"
    + struct.pack("<4I", 2_000, 64, 1, 1 << 31)
    + bytes(8)
)
TAGGED = {
    "plain": lambda data: data,
    "id3v2.3": lambda data: id3() + data,
    "id3v2.4 with a footer": lambda data: id3(version=4, footer=True) + data,
    "two id3v2": lambda data: id3() + id3(40_000, 4) + data,
    "id3v1": lambda data: data + ID3V1,
    "ape and id3v1": lambda data: data + APE + ID3V1,
    "id3v2 and zeros": lambda data: id3() + bytes(3_000) + data,
}  # fmt: skip
XING = {"header": (), "no header": (("write_xing", "0"), ("id3v2_version", "0"))}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("header", XING)
@pytest.mark.parametrize(
    "quality",
    [(("b", "48000"),), (("q", "4"), ("flags", "+qscale"), ("global_quality", "472"))],
    ids=["cbr", "vbr"],
)
def test_mp3_of_every_rate_with_and_without_a_header(
    tmp_path: Path, rate: int, header: str, quality: tuple
) -> None:
    """libsndfile alone: 0.3 of such a VBR file without a header, and some CBR files refused."""
    for channels in (1, 2):
        path = tmp_path / f"{channels}.mp3"
        path.write_bytes(encoded("mp3", "libmp3lame", rate, channels, XING[header] + quality))
        assert abs(length(path, rate) - reference(path)[1]) <= FRAME
        if header == "header":
            assert 0 <= length(path, rate) - int(1.3 * rate) < 20, "encoder delay and padding are no sound"
        assert probe(path) == (length(path, rate) / rate, rate, channels)


@pytest.mark.parametrize("tag", TAGGED)
@pytest.mark.parametrize("header", XING)
def test_mp3_with_tags(tmp_path: Path, tag: str, header: str) -> None:
    path, plain = tmp_path / "tagged.mp3", tmp_path / "plain.mp3"
    plain.write_bytes(encoded("mp3", "libmp3lame", 44_100, 2, (*XING[header], ("id3v2_version", "0"))))
    path.write_bytes(TAGGED[tag](plain.read_bytes()))
    assert looks_like_audio(path.rename(tmp_path / "tagged"))
    np.testing.assert_array_equal(decode(tmp_path / "tagged", 44_100).samples, decode(plain, 44_100).samples)


def with_count(data: bytes, count: int) -> bytes:
    """The file with another frame count in its Xing header."""
    at = max(data.find(b"Xing"), data.find(b"Info"))
    return data[: at + 8] + struct.pack(">I", count) + data[at + 12 :]


def test_mp3_whose_header_counts_wrong(tmp_path: Path) -> None:
    data, path = encoded("mp3", "libmp3lame"), tmp_path / "x.mp3"
    path.write_bytes(with_count(data, 10))  # as of files that something was appended to
    assert abs(length(path, 44_100) - 1.3 * 44_100) <= 2 * FRAME
    path.write_bytes(with_count(data, 500))
    assert "its header counts 500 MPEG frames, the file holds" in reason(path)
    assert length(path, 44_100, limits=Limits(missing_seconds=100)) > 1.2 * 44_100


def test_joined_mp3(tmp_path: Path) -> None:
    one, path = encoded("mp3", "libmp3lame"), tmp_path / "x.mp3"
    two = encoded("mp3", "libmp3lame", options=(("write_xing", "0"), ("id3v2_version", "0")))
    for parts in ((one, two), (two, one), (one + ID3V1, id3() + two)):
        path.write_bytes(b"".join(parts))
        assert abs(length(path, 44_100) - reference(path)[1]) <= FRAME
        assert length(path, 44_100) >= 2.6 * 44_100
    path.write_bytes(two + encoded("mp3", "libmp3lame", 22_050, 1))
    assert "change at byte" in reason(
        path
    ) and "44100 Hz, 2 channels to layer 3, 22050 Hz, 1 channel" in reason(path)


def test_mp3_cut_and_damaged(tmp_path: Path) -> None:
    data, path = (
        encoded("mp3", "libmp3lame", options=(("write_xing", "0"), ("id3v2_version", "0"))),
        tmp_path / "x.mp3",
    )
    path.write_bytes(data[5_000:])  # begins in the middle of a frame
    assert abs(length(path, 44_100) - reference(path)[1]) <= FRAME and decode(path, 44_100).remark is None
    path.write_bytes(data[:-30])
    assert "is cut" in str(decode(path, 44_100).remark)
    assert "is cut (0.03 s are missing)" in reason(path, limits=Limits(missing_seconds=0.0))
    path.write_bytes(data[:8_000] + data[8_300:])
    assert "bytes are none" in str(decode(path, 44_100).remark)
    noise = np.random.default_rng(0).integers(0, 250, 6_000).astype(np.uint8).tobytes()
    path.write_bytes(data[:8_000] + noise + data[14_000:])
    assert "bytes are none" in reason(path)
    path.write_bytes(noise[:900] + data)
    assert length(path, 44_100) == len(decode(tmp_path / "x.mp3", 44_100).samples) and looks_like_audio(path)


@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels"),
    [
        ("mp2", "mp2", 44_100, 2),
        ("mp2", "mp2", 24_000, 1),
        ("wav", "libmp3lame", 44_100, 2),
        ("wav", "mp2", 44_100, 2),
    ],
)
def test_layer_2_and_mpeg_in_wav(
    tmp_path: Path, container: str, codec: str, rate: int, channels: int
) -> None:
    path = tmp_path / "x.audio"
    path.write_bytes(encoded(container, codec, rate, channels))
    assert looks_like_audio(path) and abs(length(path, rate) - reference(path)[1]) <= FRAME


OTHER = [
    *(
        ("wav", f"pcm_{kind}")
        for kind in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw")
    ),
    ("wav", "adpcm_ms"), ("wav", "adpcm_ima_wav"), ("w64", "pcm_s16le"), ("caf", "pcm_s16le"),
    ("voc", "pcm_u8"),
    *(("aiff", f"pcm_{kind}") for kind in ("s16be", "s24be", "f32be", "alaw", "s16le")),
    *(("au", f"pcm_{kind}") for kind in ("s16be", "f32be", "mulaw")),
    ("flac", "flac"), ("ogg", "flac"), ("ogg", "libopus"), ("ogg", "vorbis"),
    # by FFmpeg itself
    ("ipod", "aac"), ("ipod", "alac"), ("adts", "aac"), ("asf", "wmav2"), ("matroska", "flac"),
    ("webm", "libopus"),
    ("tta", "tta"), ("wv", "wavpack"), ("ac3", "ac3"), ("caf", "alac"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "codec"), OTHER)
def test_containers_and_codecs(tmp_path: Path, container: str, codec: str) -> None:
    rate = 48_000 if "opus" in codec else 44_100
    path = tmp_path / f"x.{container}"
    path.write_bytes(encoded(container, codec, rate))
    assert abs(length(path, rate) - reference(path)[1]) <= (1_024 if container == "voc" else 0)
    assert decode(path, rate).remark is None


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("wav", "pcm_mulaw"),
        ("wav", "libmp3lame"),
        ("aiff", "pcm_s16be"),
        ("au", "pcm_s16be"),
        ("flac", "flac"),
        ("ogg", "libopus"),
    ],
)
@pytest.mark.parametrize("sizes", [0, 0xFFFFFFFF, 0x7FFFF000])
def test_lengths_left_open(tmp_path: Path, container: str, codec: str, sizes: int) -> None:
    """What writers to a pipe leave in a header: zero, the largest number, or about 2 GiB (SoX, arecord)."""
    data = bytearray(encoded(container, codec, 48_000))
    path = tmp_path / "x"
    if container == "wav":
        data[4:8] = struct.pack("<I", sizes)
        at = data.index(b"data")
        data[at + 4 : at + 8] = struct.pack("<I", sizes)
        if codec == "libmp3lame":
            data = data[: data.index(b"LIST")] + data[at:] if b"LIST" in data[:at] else data
    elif container == "aiff":
        data[4:8] = struct.pack(">I", sizes)
        at = data.index(b"COMM")
        data[at + 10 : at + 14] = struct.pack(">I", 0 if sizes == 0 else sizes // 4)
        at = data.index(b"SSND")
        data[at + 4 : at + 8] = struct.pack(">I", sizes)
    elif container == "au":
        data[8:12] = struct.pack(">I", sizes)
    elif container == "flac":
        data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    path.write_bytes(data)
    whole = tmp_path / "full"
    whole.write_bytes(encoded(container, codec, 48_000))
    assert length(path, 48_000) == length(whole, 48_000)


def test_bw64_and_rf64(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    for codec in ("pcm_s16le", "pcm_alaw"):
        data = encoded("wav", codec, options=(("rf64", "always"),))
        assert data[:4] == b"RF64"
        for magic in (b"RF64", b"BW64"):
            path.write_bytes(magic + data[4:])
            assert length(path, 44_100) == int(1.3 * 44_100)


def test_flac(tmp_path: Path) -> None:
    path, samples = tmp_path / "x.flac", int(1.3 * 44_100)
    data = encoded("flac", "flac")
    for content, expected in (
        (data + data, 2 * samples), (id3() + id3(4_000) + data, samples), (data + ID3V1, samples),
        (data + b"junk" * 50, samples),
        (encoded("ogg", "flac") + encoded("ogg", "flac"), 2 * samples),
    ):  # fmt: skip
        path.write_bytes(content)
        assert length(path, 44_100) == expected and decode(path, 44_100).remark is None
    path.write_bytes(data[: len(data) // 2])
    assert "its header states 57330 samples, the file holds" in reason(path)
    path.write_bytes(data[:-40])
    assert samples - 4_608 <= length(path, 44_100) < samples and "the file holds" in str(
        decode(path, 44_100).remark
    )
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0x40
    path.write_bytes(damaged)
    assert "damaged: decoding fails" in reason(path)


def pages(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def test_chained_ogg(tmp_path: Path) -> None:
    """libsndfile alone reads the first stream."""
    path = tmp_path / "x.ogg"
    opus, vorbis, flac = (encoded("ogg", codec, 48_000) for codec in ("libopus", "vorbis", "flac"))
    alone = {}
    for name, data in (("opus", opus), ("vorbis", vorbis), ("flac", flac)):
        path.write_bytes(data)
        alone[name] = length(path, 48_000)
    for names in (
        ("opus", "opus"),
        ("vorbis", "vorbis", "vorbis"),
        ("flac", "opus"),
        ("vorbis", "opus", "flac"),
    ):
        path.write_bytes(b"".join({"opus": opus, "vorbis": vorbis, "flac": flac}[name] for name in names))
        assert length(path, 48_000) == sum(alone[name] for name in names)
        assert probe(path)[0] == pytest.approx(sum(alone[name] for name in names) / 48_000)


def test_ogg_cut_and_damaged(tmp_path: Path) -> None:
    path, data = tmp_path / "x.opus", encoded("ogg", "libopus", 48_000, 2, (), 4.0)
    parts = pages(data)
    assert len(parts) > 4
    path.write_bytes(
        b"".join(parts[:-1])
    )  # a stream that was cut between two pages cannot be told from one without an end
    assert decode(path, 48_000).remark == "the Ogg stream has no end mark"
    path.write_bytes(data[: -len(parts[-1]) - 50])
    assert "the last Ogg page is cut, at byte" in reason(path)
    path.write_bytes(data[:-20])
    assert decode(path, 48_000).remark == "the last Ogg page is cut"
    assert "the last Ogg page is cut (0.01 s are missing)" in reason(path, limits=Limits(missing_seconds=0.0))
    path.write_bytes(b"".join(parts[:3]) + parts[3][2_000:] + b"".join(parts[4:]))
    assert "bytes are no Ogg page" in reason(path)
    path.write_bytes(data + bytes(500))
    assert length(path, 48_000) == 4 * 48_000


def test_formats_that_need_pyav_say_so(tmp_path: Path) -> None:
    """Without PyAV, M4A files are quarantined with the name of their format: a class must not disappear."""
    names = {
        "a.m4a": ("ipod", "aac"),
        "b.wma": ("asf", "wmav2"),
        "c.aac": ("adts", "aac"),
        "d.caf": ("caf", "alac"),
    }
    for name, how in names.items():
        (tmp_path / name).write_bytes(encoded(*how))
    (tmp_path / "e.ape").write_bytes(b"junk" * 100)
    code = """
import sys; sys.modules["av"] = None
from shardwave.preprocess.audio.decode import decode, looks_like_audio
from shardwave.common.errors import BadAudio
for path in sys.argv[1:]:
    assert looks_like_audio(path)
    try: decode(path, 22_050)
    except BadAudio as error: print(error)
"""
    files = [*sorted(map(str, tmp_path.iterdir()))]
    told = subprocess.run(
        [sys.executable, "-c", code, *files], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(told) == 5 and all(
        "is not read here: pip install 'shardwave[av]', or convert the file to FLAC or WAV" in line
        for line in told
    )
    assert (
        told[0].startswith("MP4 or M4A (AAC or ALAC)")
        and told[1].startswith("WMA (ASF)")
        and told[2].startswith("AAC (ADTS)")
    )


def test_an_aac_frame_without_a_length_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """A frame header that states 0 bytes: the next one is looked for at the same place."""
    path = tmp_path / "x.mp3"
    path.write_bytes(b"\xff\xf1" + bytes(60))
    assert "not audio" in reason(path)


def test_an_aiff_header_with_samples_of_an_impossible_width(tmp_path: Path) -> None:
    data, path = bytearray(encoded("aiff", "pcm_s16be")), tmp_path / "x.aiff"
    for bits in (0, 2_050, 0xFFFF):
        at = data.index(b"COMM") + 14
        data[at : at + 2] = struct.pack(">H", bits)
        path.write_bytes(data)
        with contextlib.suppress(BadAudio):  # or as libsndfile reads it; NumPy knows no such type
            assert len(decode(path, 22_050).samples)


def test_pictures_in_the_same_container_are_no_audio(tmp_path: Path) -> None:
    for brand, expected in ((b"heic", False), (b"avif", False), (b"M4A ", True), (b"isom", True)):
        path = tmp_path / brand.decode()
        path.write_bytes(struct.pack(">I", 24) + b"ftyp" + brand + bytes(2_000))
        assert looks_like_audio(path) is expected


def test_cut_aac(tmp_path: Path) -> None:
    path, data = tmp_path / "x.m4a", encoded("ipod", "aac", options=(("movflags", "+faststart"),))
    path.write_bytes(data[: len(data) // 2])
    assert "truncated" in reason(path) or "damaged" in reason(path)
    path.write_bytes(data[:200])
    assert "without an audio stream" in reason(path)


def test_a_clip_that_is_too_long(tmp_path: Path) -> None:
    """A day of silence in a small file must not take the memory of a day of samples."""
    path = tmp_path / "day.flac"
    with soundfile.SoundFile(path, "w", 1_000, 1, "PCM_16") as file:
        for _ in range(24):
            file.write(np.zeros(3_600_000, np.int16))
    assert reason(path) == "too long: 24.0 hours, more than --max-clip-minutes 60 allows"
    assert reason(path, limits=Limits(seconds=100)).startswith("too long: 24.0 hours")
    decoded = decode(path, 1_000, start=80_000.5, end=80_001.0)
    assert len(decoded.samples) == 500 and decoded.seconds == 0.5


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ipod", "alac")],
)
def test_segments(tmp_path: Path, container: str, codec: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(encoded(container, codec, 48_000))
    whole = decode(path, 48_000).samples
    for start, end in ((None, 0.5), (0.25, 0.75), (1.0, None), (0.0, 1.3)):
        first, last = round(48_000 * (start or 0)), round(48_000 * (end or 1.3))
        np.testing.assert_array_equal(decode(path, 48_000, start=start, end=end).samples, whole[first:last])
        resampled = decode(path, 16_000, start=start, end=end).samples
        assert abs(len(resampled) - (last - first) / 3) <= 1
    assert reason(path, start=1.5) == "the segment begins at 1.5 s, the file ends at 1.3 s"
    assert reason(path, start=1.0, end=1.5) == "the segment ends at 1.5 s, the file at 1.3 s"
    assert "before it begins" in reason(path, start=1.0, end=0.5)


TOOLS = [tool for tool in ("lame", "sox", "flac") if shutil.which(tool)]


@pytest.mark.slow
def _sox_writes_mp3() -> bool:
    """Return whether sox is installed with its MP3 format."""
    if "sox" not in TOOLS:
        return False
    command = ["sox", "-n", "-t", "mp3", "/dev/null", "trim", "0", "0.1"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(
    "lame" not in TOOLS or not _sox_writes_mp3(), reason="lame, or sox with MP3, is not installed"
)
def test_mp3_files_of_lame_and_sox(tmp_path: Path) -> None:
    """CBR, VBR and ABR; with and without a header, with tags and a picture.

    Mono, stereo and joint stereo; 8 to 48 kHz.
    """
    bits = {
        8_000: 24,
        11_025: 24,
        12_000: 24,
        16_000: 32,
        22_050: 48,
        24_000: 48,
        32_000: 96,
        44_100: 128,
        48_000: 128,
    }
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)) * 60)
    commands = []
    for rate, kbps in bits.items():
        for mode, channels in (("m", 1), ("s", 2), ("j", 2)):
            wav = tmp_path / f"{rate}-{channels}.wav"
            soundfile.write(wav, sound(rate, channels, 0.7), rate)
            lame = ["lame", "--quiet", "-m", mode, "--resample", str(rate / 1_000)]
            for how in (["-b", str(kbps)], ["-V4"], ["--abr", str(kbps)]):
                for header in ([], ["-t"]):
                    commands.append([*lame, *how, *header, wav])
            commands.append([*lame, "-b", str(kbps), "--tt", "T", "--id3v1-only", wav])
            if mode != "j":
                commands += [["sox", wav, "-C", f"{kbps}.2"], ["sox", wav, "-C", "-4.2"]]
            commands.append([*lame, "-V2", "-t", "--tt", "T", "--ti", picture, wav])
    assert len(commands) > 200
    wrong = []
    for number, command in enumerate(commands):
        path = tmp_path / f"{number}.mp3"
        if command[0] == "sox":
            command = [*command[:2], *command[2:], path]
        subprocess.run(
            [*map(str, command), *([str(path)] if command[0] == "lame" else [])],
            check=True,
            capture_output=True,
        )
        rate, samples = reference(path)
        if abs(length(path, rate) - samples) > FRAME:
            wrong.append((command, samples, length(path, rate)))
    assert not wrong
