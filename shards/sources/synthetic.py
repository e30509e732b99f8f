"""Audio of the demo: synthetic genres with overlapping distributions of rhythm, harmony and timbre.

Every artist belongs to one genre. Each of its rhythm, harmony and timbre is drawn from a random genre with
probability `BORROW`, so that no model can reach a perfect score. The clips of one artist share these choices
and form a group, which must stay in one split.
"""

from __future__ import annotations

import dataclasses
import io
import wave
from pathlib import Path
from typing import TypedDict

import numpy as np

from shardwave.common.csv_text import csv_text
from shardwave.common.progress import bar
from shardwave.shards.storage import atomic

RATE = 22_050  # Hz
SECONDS = 30.0
BORROW = 1 / 6
ARTISTS, CLIPS = 12, 3  # artists per genre, clips per artist


@dataclasses.dataclass(frozen=True)
class Genre:
    """Distributions of rhythm, harmony and timbre of a genre.

    Attributes:
        bpm: Lowest and highest tempo, in beats per minute.
        kick: Drum pattern, one character per eighth note of a bar; 'x' is a hit.
        snare: Drum pattern, as `kick`.
        hat: Drum pattern, as `kick`.
        swing: Delay of every second eighth note, in eighth notes.
        chords: Chords in semitones above the root, one per bar.
        harmonics: Amplitudes of the partials.
        decay: Time constant of the decay of a note, in seconds; higher partials decay faster.
        noise: Standard deviation of the background noise, relative to full scale.
    """

    bpm: tuple[float, float]
    kick: str
    snare: str
    hat: str
    swing: float
    chords: tuple[tuple[int, ...], ...]
    harmonics: tuple[float, ...]
    decay: float
    noise: float


class _Rhythm(TypedDict):
    kick: str
    snare: str
    hat: str
    bpm: tuple[float, float]
    swing: float


class _Timbre(TypedDict):
    harmonics: tuple[float, ...]
    decay: float
    noise: float


def _hits(kick: str, snare: str, hat: str, bpm: tuple[float, float], swing: float = 0.0) -> _Rhythm:
    return {"kick": kick, "snare": snare, "hat": hat, "bpm": bpm, "swing": swing}


def _sound(harmonics: tuple[float, ...], decay: float, noise: float) -> _Timbre:
    return {"harmonics": harmonics, "decay": decay, "noise": noise}


GENRES = {
    "ambient": Genre(
        **_hits("x.......", "........", "....x...", (58, 84)),
        chords=((0, 7, 14), (0, 5, 12), (-3, 4, 9), (0, 7, 16)),
        **_sound((1, 0.3, 0.1), 2.5, 0.004),
    ),
    "blues": Genre(
        **_hits("x...x...", "..x...x.", "xxxxxxxx", (72, 108), swing=0.33),
        chords=((0, 4, 10), (5, 9, 15), (0, 4, 10), (7, 11, 17)),
        **_sound((1, 0.7, 0.5, 0.35, 0.2), 0.5, 0.006),
    ),
    "chiptune": Genre(
        **_hits("x.x.x.x.", "..x...x.", "xxxxxxxx", (120, 165)),
        chords=((0, 4, 7), (7, 11, 14), (9, 12, 16), (5, 9, 12)),
        **_sound((1, 0, 0.33, 0, 0.2, 0, 0.14, 0, 0.11), 0.2, 0.002),
    ),
    "house": Genre(
        **_hits("x.x.x.x.", "..x...x.", ".x.x.x.x", (115, 132)),
        chords=((0, 3, 7, 10), (0, 3, 7, 10), (5, 8, 12, 15), (-2, 2, 5, 8)),
        **_sound((1, 0.6, 0.45, 0.3, 0.25, 0.2), 0.3, 0.004),
    ),
    "rock": Genre(
        **_hits("x..xx...", "..x...x.", "x.x.x.x.", (100, 150)),
        chords=((0, 7, 12), (5, 12, 17), (7, 14, 19), (0, 7, 12)),
        **_sound((1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), 0.8, 0.012),
    ),
    "waltz": Genre(
        **_hits("x.....", "..x.x.", "......", (84, 120)),
        chords=((0, 4, 7), (7, 11, 14), (0, 4, 7), (5, 9, 12)),
        **_sound((1, 0.5, 0.2, 0.08), 0.9, 0.003),
    ),
}


def make(
    out: Path, artists: int = ARTISTS, clips: int = CLIPS, seconds: float = SECONDS, seed: int = 0
) -> Path:
    """Write WAV files (16 bit, mono, 22,050 Hz) of all genres and their label file.

    The same arguments give the same bytes. `labels.csv` is written last; if it exists with the same content
    and all audio files exist, nothing is written.

    Args:
        out: Folder of the audio and of `labels.csv`.
        artists: Artists per genre.
        clips: Clips per artist.
        seconds: Length of a clip, in seconds.
        seed: Seed of the random choices.

    Returns:
        The path of `labels.csv`.
    """
    labels = out / "labels.csv"
    rows = [
        (
            f"{genre}/{genre}.{artist:02d}.{clip}.wav",
            genre,
            f"{genre}-{artist:02d}",
            (genre_index, artist, clip),
        )
        for genre_index, genre in enumerate(GENRES)
        for artist in range(artists)
        for clip in range(clips)
    ]
    table = csv_text([("path", "label", "group"), *(row[:3] for row in rows)])
    if labels.exists() and labels.read_text() == table and all((out / row[0]).exists() for row in rows):
        return labels
    for path, genre, _, (genre_index, artist, clip) in bar(iterable=rows, desc="audio", unit="clip"):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        artist_rng = np.random.default_rng([seed, genre_index, artist])
        samples = _clip(
            _artist(genre, artist_rng), np.random.default_rng([seed, genre_index, artist, clip + 1]), seconds
        )
        atomic.write_bytes(out / path, _wav(samples))
    atomic.write_bytes(labels, table.encode())
    return labels


def _artist(name: str, rng: np.random.Generator) -> Genre:
    """Draw an artist of a genre; its rhythm, harmony or timbre may be those of other genres."""

    def draw() -> Genre:
        return GENRES[str(rng.choice(list(GENRES)))] if rng.random() < BORROW else GENRES[name]

    rhythm, harmony, timbre = draw(), draw(), draw()
    partials = tuple(float(a * np.exp(rng.normal(0, 0.35))) for a in timbre.harmonics)
    bpm = rng.normal(np.mean(rhythm.bpm), np.ptp(rhythm.bpm) / 2)
    return dataclasses.replace(
        rhythm,
        bpm=(bpm * 0.97, bpm * 1.03),
        chords=harmony.chords,
        harmonics=partials,
        decay=timbre.decay * float(np.exp(rng.normal(0, 0.4))),
        noise=timbre.noise * float(np.exp(rng.normal(0, 0.7))),
    )


def _clip(genre: Genre, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Synthesise one clip: float32 [samples] from -1 to 1."""
    total = round(seconds * RATE)
    audio = rng.normal(0, genre.noise, total)
    eighth = 30 / max(40.0, rng.uniform(*genre.bpm))  # seconds
    steps = len(genre.kick)
    root = 45 + int(rng.integers(0, 12))  # MIDI note number
    drums = {"kick": _kick(rng), "snare": _snare(rng), "hat": _hat(rng)}
    notes: dict[int, np.ndarray] = {}
    drum_level = rng.uniform(0.25, 0.6)
    phase = rng.uniform(0, eighth * steps)  # the clip starts at a random position of a bar
    for step in range(int((seconds + phase) / eighth) + 1):
        bar, beat = divmod(step, steps)
        start = round(
            (step * eighth + (genre.swing * eighth if beat % 2 else 0) - phase + rng.normal(0, 0.004)) * RATE
        )
        for voice, sound in drums.items():
            if getattr(genre, voice)[beat] == "x":
                _add(audio, start, sound * drum_level * rng.uniform(0.7, 1))
        chord = genre.chords[bar % len(genre.chords)]
        pitches = (
            [root + tone for tone in chord]
            if beat == 0
            else [root + 12 + int(rng.choice(chord))]
            if rng.random() < 0.55
            else []
        )
        for pitch in pitches:
            if pitch not in notes:
                notes[pitch] = _note(pitch, genre)
            _add(audio, start, notes[pitch] * rng.uniform(0.1, 0.2))
    return np.asarray(np.tanh(audio * rng.uniform(0.7, 1.3)), dtype=np.float32)


def _note(pitch: int, genre: Genre) -> np.ndarray:
    """Synthesise a plucked note of a MIDI pitch; higher partials decay faster. Returns float64 [samples]."""
    time = np.arange(round(min(3.0, 4 * genre.decay) * RATE)) / RATE
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    sound = np.zeros_like(time)
    for number, amplitude in enumerate(genre.harmonics, start=1):
        if frequency * number < RATE / 2:
            sound += (
                amplitude
                * np.sin(2 * np.pi * frequency * number * time)
                * np.exp(-time / genre.decay * (1 + 0.3 * number))
            )
    return sound * np.minimum(1, time / 0.004)


def _kick(rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.25 * RATE)) / RATE
    turns = rng.uniform(45, 60) * time + 4 * (1 - np.exp(-time * 30))
    return np.asarray(np.sin(2 * np.pi * turns) * np.exp(-time * 14))


def _snare(rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.2 * RATE)) / RATE
    return (0.6 * rng.normal(0, 0.5, time.size) + 0.4 * np.sin(2 * np.pi * 190 * time)) * np.exp(-time * 22)


def _hat(rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.06 * RATE)) / RATE
    return 0.4 * np.diff(rng.normal(0, 0.5, time.size + 1)) * np.exp(-time * 70)


def _add(audio: np.ndarray, start: int, sound: np.ndarray) -> None:
    low, high = max(start, 0), min(start + sound.size, audio.size)
    if low < high:
        audio[low:high] += sound[low - start : high - start]


def _wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(samples * 32_767).astype("<i2").tobytes())
    return buffer.getvalue()
