"""Tabular features by librosa: one function per feature, each of which transforms the samples again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RATE, N_FFT, HOP = 22_050, 2_048, 512


def librosa_setup() -> Callable[[list[str]], None]:
    """Return `work(paths)`, which computes the features of whole clips.

    Features are five statistics of MFCC, chroma, centroid, bandwidth, contrast, roll-off and zero-crossings.
    """
    import librosa
    import numpy as np

    shape: Any = {"n_fft": N_FFT, "hop_length": HOP}

    def work(paths: list[str]) -> None:
        for path in paths:
            samples, rate = librosa.load(path, sr=RATE)
            rows = np.concatenate(
                [
                    librosa.feature.mfcc(y=samples, sr=rate, n_mfcc=20, **shape),
                    librosa.feature.chroma_stft(y=samples, sr=rate, tuning=0.0, **shape),
                    librosa.feature.spectral_centroid(y=samples, sr=rate, **shape),
                    librosa.feature.spectral_bandwidth(y=samples, sr=rate, **shape),
                    librosa.feature.spectral_contrast(y=samples, sr=rate, **shape),
                    librosa.feature.spectral_rolloff(y=samples, sr=rate, **shape),
                    librosa.feature.zero_crossing_rate(samples, frame_length=N_FFT, hop_length=HOP),
                ]
            )
            np.concatenate([rows.mean(1), rows.std(1), rows.min(1), np.median(rows, 1), rows.max(1)])

    return work
