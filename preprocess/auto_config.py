"""Settings of the spectrogram that follow from the clips' lengths and rates, and presets of them for kinds of sound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.preprocess.config import SpectrogramConfig

AUTO = "auto"
SAMPLE_RATE = 22_050  # Hz; what `auto` never exceeds
SLICES = 10  # what `auto` never exceeds
SHORTEST_SLICE = 0.5  # seconds
PRESETS: dict[str, dict[str, Any]] = {  # measured in docs/how-to.md, but for music
    "music": {"image_size": 128, "frequency_scale": "mel", "features": True},
    "sound": {"image_size": 64, "frequency_scale": "mel", "features": True},
    "speech": {"window_seconds": 0.032, "image_size": 64, "frequency_scale": "mel", "slices": 0, "features": True},
    "notes": {"image_size": 64, "frequency_scale": "log", "slices": 0, "features": True},
}


@dataclasses.dataclass(frozen=True)
class AutoConfig:
    """A SpectrogramConfig some of whose numbers the clips decide.

    Args:
        values: Fields of SpectrogramConfig. `auto` stands for a number that the clips decide, as it does for `sample_rate`,
            `slices` and `fit_seconds` where they are not given. `window_seconds`, which a preset may hold, stands for the
            `n_fft` nearest to it, a power of two, and a quarter of that as `hop_length`.

    Raises:
        UsageError: A value is not valid.
    """

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.resolve((), ())  # wrong values are refused before any file is looked at

    @property
    def slice_seconds(self) -> float | None:
        """Seconds of a slice, where they are fixed."""
        return self.values.get("slice_seconds")

    def resolve(self, seconds: Iterable[float], rates: Iterable[int]) -> SpectrogramConfig:
        """Choose the open numbers for clips of these lengths and rates (Hz), in any order.

        `sample_rate`: 22,050 Hz, or the median of `rates` where that is lower. `fit_seconds`: the lengths' 95th percentile with
        fit pad, their median with crop. `slices`: ten, or as many as are at least SHORTEST_SLICE (within 2 %) and a window long
        in nine of ten clips; 0 instead of 1.
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


def preset_values(name: str | None) -> dict[str, Any]:
    """The settings of a preset, none for None; raises UsageError for an unknown name."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}, got {name}")
    return dict(PRESETS[name])


def _quantile(ordered: list[Any], share: float) -> Any:
    """The value at `share` of the way through the sorted list: always one of its values."""
    return ordered[int(share * (len(ordered) - 1))]
