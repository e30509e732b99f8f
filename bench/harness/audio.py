"""The audio that is measured on: 30 s clips, 16-bit 22.05 kHz mono WAV, cut from real music where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shardwave.preprocess.audio.decode import decode

RATE = 22_050  # Hz
SECONDS = 30.0
MUSIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "music"  # real recordings, where they are at hand
CLASSES = 2  # folders the clips are spread over, so that a labelled shard set can be built from few of them


def make_clips(folder: Path, count: int, seconds: float = SECONDS, music: Path = MUSIC) -> tuple[list[Path], str]:
    """Write `count` different clips under `folder`/<class>/ and return their paths, and where the sound came from.

    Clip i is the window that starts i / count of the way through the recordings in `music` (laid end to end, mixed to mono);
    without recordings, chords of decaying partials over noise.
    """
    import soundfile

    sound, source = _recordings(music)
    length = int(seconds * RATE)
    paths = []
    for i in range(count):
        if sound is None:
            samples = _synthetic(i, length)
        else:
            start = i * len(sound) // count
            samples = np.take(sound, np.arange(start, start + length), mode="wrap")
        path = folder / f"class{i % CLASSES}" / f"clip.{i:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        paths.append(path)
    return paths, source


def repeat_clips(clips: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """`count` clips under `folder`, by repeating `clips` under new names (hard links: no bytes are copied)."""
    paths = []
    for i in range(count):
        path = folder / clips[i % len(clips)].parent.name / f"clip.{i:06d}{clips[0].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(clips[i % len(clips)], path)
        paths.append(path)
    return paths


def _recordings(music: Path) -> tuple[np.ndarray | None, str]:
    """All recordings of `music` as one float32 [time] at RATE, or None where there are none."""
    suffixes = (".wav", ".flac", ".ogg", ".mp3", ".au", ".aiff")
    paths = [path for path in sorted(music.glob("*")) if path.suffix.lower() in suffixes]
    if not paths:
        return None, "synthetic chords and noise"
    sound = np.concatenate([decode(path, RATE).samples for path in paths])
    return sound, "windows of " + ", ".join(path.stem for path in paths)


def _synthetic(number: int, length: int) -> np.ndarray:
    """float32 [time]: half-second chords of decaying partials, over pink-ish noise; different for every `number`."""
    rng = np.random.default_rng(number)
    beat = RATE // 2
    time = np.arange(beat, dtype=np.float32) / RATE
    parts = []
    for _ in range(-(-length // beat)):
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        tones = sum(np.sin(2 * np.pi * root * k * time) * np.exp(-3 * time * k**0.5) / k for k in range(1, 9))
        parts.append(0.2 * tones + 0.02 * np.cumsum(rng.standard_normal(beat)) / beat**0.5)
    return np.concatenate(parts)[:length].astype(np.float32).clip(-1, 1)
