"""Audio for the measurements: 30 s clips, 16-bit mono WAV at 22.05 kHz, from real music if present."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shardwave.preprocess.audio.decode import decode

RATE = 22_050  # Hz
SECONDS = 30.0
MUSIC = Path(__file__).resolve().parents[3] / "shared" / "data" / "music"  # real recordings, if present
CLASSES = 2  # class folders of the clips


def make_clips(
    folder: Path, count: int, seconds: float = SECONDS, music: Path = MUSIC
) -> tuple[list[Path], str]:
    """Write different clips into class folders.

    Clip i is the window that starts at i / count of the concatenated recordings. Without recordings, clips
    are chords of decaying partials with noise.

    Args:
        folder: Folder of the class folders.
        count: Number of clips.
        seconds: Length of a clip.
        music: Folder of recordings.

    Returns:
        The paths of the clips, and a description of the source of the sound.
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
    """Link `clips` repeatedly under `folder` until there are `count` files, and return their paths.

    Files are hard links: no bytes are copied.

    Args:
        clips: Files to link, in their order; each link keeps the class folder of its file.
        folder: Folder of the class folders.
        count: Number of links.
    """
    paths = []
    for i in range(count):
        path = folder / clips[i % len(clips)].parent.name / f"clip.{i:06d}{clips[0].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(clips[i % len(clips)], path)
        paths.append(path)
    return paths


def _recordings(music: Path) -> tuple[np.ndarray | None, str]:
    """Concatenate the recordings of `music` to float32 [time] at RATE; None if there are none."""
    suffixes = (".wav", ".flac", ".ogg", ".mp3", ".au", ".aiff")
    paths = [path for path in sorted(music.glob("*")) if path.suffix.lower() in suffixes]
    if not paths:
        return None, "synthetic chords and noise"
    sound = np.concatenate([decode(path, RATE).samples for path in paths])
    return sound, "windows of " + ", ".join(path.stem for path in paths)


def _synthetic(number: int, length: int) -> np.ndarray:
    """Synthesise float32 [time]: half-second chords of decaying partials with noise, seeded by `number`."""
    rng = np.random.default_rng(number)
    beat = RATE // 2
    time = np.arange(beat, dtype=np.float32) / RATE
    parts = []
    for _ in range(-(-length // beat)):
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        tones = sum(np.sin(2 * np.pi * root * k * time) * np.exp(-3 * time * k**0.5) / k for k in range(1, 9))
        parts.append(0.2 * tones + 0.02 * np.cumsum(rng.standard_normal(beat)) / beat**0.5)
    return np.concatenate(parts)[:length].astype(np.float32).clip(-1, 1)
