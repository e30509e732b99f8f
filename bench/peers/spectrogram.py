"""Audio files to spectrogram images by librosa with matplotlib, librosa with PIL, torchaudio and DALI.

Every program makes one 512 x 512 image of each whole clip, and no slices.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATE, N_FFT, HOP, SIZE = 22_050, 2_048, 512, 512


def report_setup(out: str) -> Callable[[list[str]], None]:
    """Return `work(paths)`, which saves figures of librosa spectrograms as RGB PNG files.

    Args:
        out: Folder of the files.
    """
    import matplotlib

    matplotlib.use("Agg")
    import librosa
    import librosa.display
    import matplotlib.pyplot as plt
    from PIL import Image

    def work(paths: list[str]) -> None:
        for path in paths:
            samples, rate = librosa.load(path, sr=RATE)
            decibels = librosa.power_to_db(
                np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP)) ** 2, ref=np.max
            )
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
    """Return `work(paths)`, which saves spectrograms of librosa as grey PNG files with PIL.

    Args:
        out: Folder of the files.
    """
    import librosa
    from PIL import Image

    def work(paths: list[str]) -> None:
        for path in paths:
            samples, _ = librosa.load(path, sr=RATE)
            decibels = librosa.power_to_db(
                np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP)) ** 2, ref=np.max, top_db=80
            )
            levels = ((decibels + 80) * (255 / 80)).astype(np.uint8)
            Image.fromarray(levels).resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(
                Path(out) / f"{Path(path).stem}.png"
            )

    return work


def torchaudio_setup() -> Callable[[list[str]], None]:
    """Return `work(paths)`, which computes uint8 images with torchaudio and torchvision."""
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
            samples, _ = soundfile.read(path, dtype="float32")  # since 2.9 torchaudio.load needs torchcodec
            decibels = to_decibels(spectrogram(torch.from_numpy(samples)[None]))
            image = resize(decibels - decibels.amax())
            ((image + 80) * (255 / 80)).round().to(torch.uint8)

    return work


class DaliPipeline:
    """Pipeline of DALI's own operators: reader, audio decoder, spectrogram, to_decibels, resize, cast.

    Args:
        paths: Audio files.
        threads: CPU threads of the pipeline.
        device: `cpu` or `cuda`.
        batch: Files of a batch.
    """

    def __init__(self, paths: Sequence[str], threads: int, device: str = "cpu", batch: int = 10) -> None:
        dali: Any = importlib.import_module("nvidia.dali")
        fn: Any = importlib.import_module("nvidia.dali.fn")
        types = dali.types

        @dali.pipeline_def(
            batch_size=batch,
            num_threads=threads,
            device_id=None if device == "cpu" else 0,
            prefetch_queue_depth=2,
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
        """Process all files once, two batches at a time; no batch is prefetched for the next run."""
        batches = -(-self.clips // self.batch)
        depth = min(2, batches)
        for _ in range(depth):
            self._pipeline.schedule_run()
        for number in range(batches):
            self._pipeline.share_outputs()
            self._pipeline.release_outputs()
            if number + depth < batches:
                self._pipeline.schedule_run()
