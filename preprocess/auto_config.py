"""Spectrogram settings chosen from clip lengths and sample rates, and presets for kinds of sound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig

AUTO = "auto"
SAMPLE_RATE = 22_050  # Hz; largest automatic sample rate
SLICES = 10  # largest automatic number of slices
SHORTEST_SLICE = 0.5  # seconds; shortest automatic slice


class Preset(TypedDict, total=False):
    """Settings for a kind of sound: fields of `SpectrogramConfig`, and `window_seconds` of `AutoConfig`."""

    window_seconds: float
    image_size: int
    frequency_scale: str
    slices: int
    features: bool


PRESETS: dict[str, Preset] = {  # docs/how-to.md has measurements of all except music
    "music": {"image_size": 128, "frequency_scale": "mel", "features": True},
    "sound": {"image_size": 64, "frequency_scale": "mel", "features": True},
    "speech": {
        "window_seconds": 0.032,
        "image_size": 64,
        "frequency_scale": "mel",
        "slices": 0,
        "features": True,
    },
    "notes": {"image_size": 64, "frequency_scale": "log", "slices": 0, "features": True},
}


@dataclasses.dataclass(frozen=True)
class AutoConfig:
    """Spectrogram settings of which some are chosen from the clips.

    Args:
        values: Fields of `SpectrogramConfig`. The value `auto` means that the field is chosen from the clips;
            it is the default of `sample_rate`, `slices` and `fit_seconds`. The additional key
            `window_seconds` sets `n_fft` to the nearest power of two and `hop_length` to a quarter of it.

    Raises:
        UsageError: A value is not valid.
    """

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.resolve((), ())  # raises UsageError before any file is read

    @property
    def slice_seconds(self) -> float | None:
        """Return the fixed length of a slice in seconds, or None."""
        return self.values.get("slice_seconds")

    def resolve(self, seconds: Iterable[float], rates: Iterable[int]) -> SpectrogramConfig:
        """Choose the automatic values for a set of clips.

        `sample_rate` is 22,050 Hz, or the median of `rates` if that is lower. `fit_seconds` is the 95th
        percentile of the lengths for fit `pad` and their median for `crop`. `slices` is 10, or the largest
        number for which the slices of nine of ten clips are at least `SHORTEST_SLICE` (within 2 %) and one
        window long; 0 if that number is 1.

        Args:
            seconds: Lengths of the clips in seconds, in any order.
            rates: Sample rates of the clips in Hz, in any order.

        Returns:
            The complete settings.
        """
        values = {name: value for name, value in self.values.items() if value != AUTO}
        lengths, rates = sorted(seconds), sorted(rates)
        window_seconds = values.pop("window_seconds", None)
        if "sample_rate" not in values:
            values["sample_rate"] = min(SAMPLE_RATE, _quantile(rates, 0.5)) if rates else SAMPLE_RATE
        if window_seconds is not None:
            values.setdefault("n_fft", 2 ** round(math.log2(window_seconds * values["sample_rate"])))
            values.setdefault("hop_length", max(1, values["n_fft"] // 4))
        if values.get("fit", "stretch") != "stretch" and "fit_seconds" not in values:
            length = _quantile(lengths, 0.95 if values["fit"] == "pad" else 0.5) if lengths else 1.0
            values["fit_seconds"] = max(0.01, round(length, 2))
        if "slices" in values or values.get("slice_seconds") is not None:
            return SpectrogramConfig(**{"slices": 0, **values})
        config = SpectrogramConfig(**values, slices=SLICES)
        if not lengths:
            return config
        rate = config.sample_rate
        short = config.fitted(round(_quantile(lengths, 0.1) * rate)) / rate
        count = int(1.02 * short / max(SHORTEST_SLICE, config.n_fft / rate))
        return dataclasses.replace(config, slices=min(SLICES, count) if count > 1 else 0)


def preset_values(name: str | None) -> Preset:
    """Return the settings of a preset, or no settings for None.

    Raises:
        UsageError: There is no preset of this name.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}, got {name}")
    return PRESETS[name].copy()


def _quantile(ordered: list[Any], share: float) -> Any:
    """Return the element of a sorted list at the quantile `share`, without interpolation."""
    return ordered[int(share * (len(ordered) - 1))]
