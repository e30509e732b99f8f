"""What a stage is given: how much to measure, on what, and where it may write."""

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
    """One run of the bench. `folder` is temporary: removed, with all that was made in it, when the run ends."""

    folder: Path
    quick: bool = False
    workers: int = 1  # processes for what is measured on all cores
    clips: int = 100  # 30 s clips to measure on
    plan: Plan = Plan()
    music: Path = audio.MUSIC  # real recordings that the clips are cut from

    @functools.cached_property
    def _clips(self) -> tuple[list[Path], str]:
        return audio.make_clips(self.folder / "clips", self.clips, music=self.music)

    @property
    def audio(self) -> list[Path]:
        """The clips, made when first asked for: 30 s, 16-bit 22.05 kHz mono WAV, under class folders."""
        return self._clips[0]

    @property
    def audio_source(self) -> str:
        """Where their sound came from."""
        return self._clips[1]

    @functools.cached_property
    def machine(self) -> Machine:
        """Rates of this machine, measured once per run."""
        return measure_machine(self.room("machine"), self.workers, self.quick)

    @functools.cached_property
    def pool(self) -> Pool:
        """Worker processes of all stages, started at first use; `close` ends them."""
        return Pool(self.workers)

    def close(self) -> None:
        """End what was started."""
        if "pool" in self.__dict__:
            self.pool.close()

    @functools.cached_property
    def cuda(self) -> bool:
        """Whether torch sees a CUDA device."""
        import torch

        return torch.cuda.is_available()

    def pick(self, quick: int, full: int) -> int:
        """A size, by how much is measured."""
        return quick if self.quick else full

    def room(self, name: str) -> Path:
        """A folder of this name for a stage's own files."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def missing(module: str, extra: str) -> str | None:
    """Why a case cannot run: `module`, which our `extra` brings, is not installed; None where it is."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    return None if found else f"{module} is not installed: pip install 'shardwave[{extra}]'"
