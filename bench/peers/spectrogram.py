"""Files to spectrogram images as people make them today: the report's way, librosa with PIL, torchaudio, DALI's operators.

Every function takes one WAV file to one finished 512 x 512 image of a whole clip (no slices); DALI takes batches of files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATE, N_FFT, HOP, SIZE = 22_050, 2_048, 512, 512


def report_setup(out: str) -> Callable[[list[str]], None]:
    """The librosa.load, stft, power in dB, `specshow` into a figure, saved as PNG, resized to 512 x 512 RGB."""
    import matplotlib

    matplotlib.use("Agg")
    import librosa
    import librosa.display
    import matplotlib.pyplot as plt
    from PIL import Image

    def work(paths: list[str]) -> None:
        for path in paths:
            samples, rate = librosa.load(path, sr=RATE)
            decibels = librosa.power_to_db(np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP)) ** 2, ref=np.max)
            figure, axes = plt.subplots()
            librosa.display.specshow(decibels, sr=rate, hop_length=HOP, ax=axes)
            axes.axis("off")
            image = Path(out) / f"{Path(path).stem}.png"
            figure.savefig(image, bbox_inches="tight", pad_inches=0)
            plt.close(figure)
            with Image.open(image) as drawn:
                drawn.convert("RGB").resize((SIZE, SIZE)).save(image)

    return work


def librosa_setup(out: str) -> Callable[[list[str]], None]:
    """librosa for the transform, PIL for the image: no figure is drawn; one grey PNG a clip."""
    import librosa
    from PIL import Image

    def work(paths: list[str]) -> None:
        for path in paths:
            samples, _ = librosa.load(path, sr=RATE)
            decibels = librosa.power_to_db(np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP)) ** 2, ref=np.max, top_db=80)
            levels = ((decibels + 80) * (255 / 80)).astype(np.uint8)
            Image.fromarray(levels).resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(Path(out) / f"{Path(path).stem}.png")

    return work


def torchaudio_setup() -> Callable[[list[str]], None]:
    """torchaudio's Spectrogram and AmplitudeToDB, torchvision's antialiased resize; uint8 in memory."""
    import soundfile
    import torch
    from torchaudio.transforms import AmplitudeToDB, Spectrogram
    from torchvision.transforms import v2

    spectrogram = Spectrogram(n_fft=N_FFT, hop_length=HOP, power=2.0)
    to_decibels = AmplitudeToDB(stype="power", top_db=80.0)
    resize = v2.Resize((SIZE, SIZE), antialias=True)

    @torch.inference_mode()
    def work(paths: list[str]) -> None:
        for path in paths:
            samples, _ = soundfile.read(path, dtype="float32")  # torchaudio.load hands on to torchcodec since 2.9
            decibels = to_decibels(spectrogram(torch.from_numpy(samples)[None]))
            image = resize(decibels - decibels.amax())
            ((image + 80) * (255 / 80)).round().to(torch.uint8)

    return work


class DaliPipeline:
    """DALI's stock pipeline: file reader, audio decoder, spectrogram, to_decibels, resize, cast; all its own operators."""

    def __init__(self, paths: Sequence[str], threads: int, device: str = "cpu", batch: int = 10) -> None:
        dali: Any = importlib.import_module("nvidia.dali")
        fn: Any = importlib.import_module("nvidia.dali.fn")
        types = dali.types

        @dali.pipeline_def(
            batch_size=batch, num_threads=threads, device_id=None if device == "cpu" else 0, prefetch_queue_depth=2
        )
        def images() -> Any:
            encoded, _ = fn.readers.file(files=list(paths))
            audio, _ = fn.decoders.audio(encoded, sample_rate=RATE, downmix=True, dtype=types.FLOAT)
            if device != "cpu":
                audio = audio.gpu()
            power = fn.spectrogram(audio, nfft=N_FFT, window_length=N_FFT, window_step=HOP, power=2)
            decibels = fn.to_decibels(power, multiplier=10.0, cutoff_db=-80.0)
            grey = fn.reinterpret(fn.expand_dims(decibels, axes=[2], new_axis_names="C"), layout="HWC")
            image = fn.resize(grey, resize_x=SIZE, resize_y=SIZE)
            return fn.cast((image + 80.0) * (255 / 80.0), dtype=types.UINT8)

        self.batch = batch
        self.clips = len(paths)
        self._pipeline = images()
        self._pipeline.build()

    def run(self) -> None:
        """All files once; two batches are under way at a time and none is left when it returns, so that no run helps the next."""
        batches = -(-self.clips // self.batch)
        depth = min(2, batches)
        for _ in range(depth):
            self._pipeline.schedule_run()
        for number in range(batches):
            self._pipeline.share_outputs()
            self._pipeline.release_outputs()
            if number + depth < batches:
                self._pipeline.schedule_run()
