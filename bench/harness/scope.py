"""Scope of a run: amount of work, audio, worker processes and temporary folder of the stages."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from pathlib import Path

from shardwave.bench.harness import audio
from shardwave.bench.harness.limits import Machine, measure_machine
from shardwave.bench.harness.pool import Pool
from shardwave.bench.harness.timing import Plan

NO_CUDA = "no CUDA device: PyTorch sees none on this machine"


@dataclasses.dataclass(frozen=True)
class Scope:
    """Settings and shared resources of one run of the bench.

    Args:
        folder: Temporary folder, which the caller removes at the end.
        quick: Whether stages use smaller inputs.
        workers: Processes or threads of measurements on all cores.
        clips: Number of 30 s clips.
        plan: Number of repeats.
        music: Folder of recordings that the clips are cut from.
    """

    folder: Path
    quick: bool = False
    workers: int = 1
    clips: int = 100
    plan: Plan = Plan()
    music: Path = audio.MUSIC

    @functools.cached_property
    def _clips(self) -> tuple[list[Path], str]:
        return audio.make_clips(self.folder / "clips", self.clips, music=self.music)

    @property
    def audio(self) -> list[Path]:
        """Paths of the clips, written at first use: 30 s, 16-bit mono WAV at 22.05 kHz, in class folders."""
        return self._clips[0]

    @property
    def audio_source(self) -> str:
        """Description of the source of the clips."""
        return self._clips[1]

    @functools.cached_property
    def machine(self) -> Machine:
        """Rates of this machine, measured once, at first use."""
        return measure_machine(self.subfolder("machine"), self.workers, self.quick)

    @functools.cached_property
    def pool(self) -> Pool:
        """Worker processes of all stages, started at first use; `close` ends them."""
        return Pool(self.workers)

    def close(self) -> None:
        """Stop the worker processes."""
        if "pool" in self.__dict__:
            self.pool.close()

    @functools.cached_property
    def cuda(self) -> bool:
        """Whether PyTorch sees a CUDA device."""
        import torch

        return torch.cuda.is_available()

    def pick(self, quick: int, full: int) -> int:
        """Return `quick` in a quick run, else `full`."""
        return quick if self.quick else full

    def subfolder(self, name: str) -> Path:
        """Create the temporary folder `name` and return its path."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def missing(module: str, extra: str) -> str | None:
    """Return the reason why a case cannot run if `module` is not installed, else None.

    Args:
        module: Module that the case needs.
        extra: Extra of our package that installs it.
    """
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    return None if spec else f"{module} is not installed: pip install 'shardwave[{extra}]'"
