"""Definition and names of the features of clips and slices.

The engines compute per-frame measures (`measures`, `torch_features`); `statistics` computes the features from
them.

All features use the STFT of the spectrogram (centred, reflect padding, periodic Hann, n_fft and hop_length of
the configuration). Per frame, they equal the functions of librosa with the arguments below. The columns are
mean, standard deviation, minimum, median and maximum over the frames of the clip or slice, in this order:

- `feature.mfcc(n_mfcc=20, dct_type=2, norm="ortho", lifter=0)` on `power_to_db(ref=1, amin=1e-10, top_db=80)`
  of `feature.melspectrogram(power=2, n_mels=128, fmin=0, fmax=sr/2, htk=False, norm="slaney")`
- `feature.chroma_stft(S=|X|², tuning=0, norm=inf, n_chroma=12, octwidth=2, ctroct=5)`
- `feature.spectral_centroid`, `feature.spectral_bandwidth(p=2, norm=True)`,
  `feature.spectral_rolloff(roll_percent=0.85)` on |X|, in Hz
- `feature.spectral_contrast(fmin=200, quantile=0.02, linear=False)` on |X|, in dB: 6 octaves and the rest, or
  as many as there are below Nyquist
- `feature.zero_crossing_rate(frame_length=n_fft)` on the samples (edge padding, threshold 1e-10)

The 80 dB ranges of MFCC and contrast are relative to the full clip, also in slices. Sources: Davis &
Mermelstein 1980 (MFCC); Ellis 2007 (chroma); Klapuri & Davy 2006, ch. 5 (centroid, bandwidth, roll-off);
Jiang et al. 2002 (contrast).
"""

from __future__ import annotations

from shardwave.preprocess.config import SpectrogramConfig

MELS, MFCCS, CHROMA = 128, 20, 12
ROLLOFF = 0.85  # share of the total magnitude of a frame
CONTRAST_LOWEST, CONTRAST_OCTAVES, CONTRAST_QUANTILE = 200.0, 6, 0.02  # Hz, bands, fraction of a band's bins
AMIN, TOP_DB = 1e-10, 80.0

STATISTICS = ("mean", "std", "min", "median", "max")
PITCHES = ("c", "c_sharp", "d", "d_sharp", "e", "f", "f_sharp", "g", "g_sharp", "a", "a_sharp", "b")


def contrast_count(sample_rate: int) -> int:
    """Return the number of contrast bands: one below 200 Hz, then octaves, the last one up to Nyquist."""
    return 1 + sum(CONTRAST_LOWEST * 2.0**k < sample_rate / 2 for k in range(CONTRAST_OCTAVES))


def feature_rows(config: SpectrogramConfig) -> list[str]:
    """Return the names of the per-frame features."""
    return [
        *(f"mfcc{i}" for i in range(1, MFCCS + 1)),
        *(f"chroma_{pitch}" for pitch in PITCHES),
        "spectral_centroid",
        "spectral_bandwidth",
        *(f"spectral_contrast{i}" for i in range(1, contrast_count(config.sample_rate) + 1)),
        "spectral_rolloff",
        "zero_crossing_rate",
    ]


def feature_names(config: SpectrogramConfig) -> list[str]:
    """Return the names of the feature columns, for example `mfcc1_mean`.

    The list is empty if `config.features` is False.
    """
    return (
        [f"{row}_{statistic}" for row in feature_rows(config) for statistic in STATISTICS]
        if config.features
        else []
    )


def measure_count(config: SpectrogramConfig) -> int:
    """Return the number of measures per frame.

    Their order is: mel bands, chroma, centroid, bandwidth, roll-off bin, contrast peaks, contrast valleys.
    """
    return MELS + CHROMA + 3 + 2 * contrast_count(config.sample_rate)
