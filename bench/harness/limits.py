"""What the hardware could do at best, measured beside what is done: transforms, copies, disk reads, products, bandwidth."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

N_FFT, HOP = 2_048, 512  # samples
BLOCK = 128  # frames transformed at once: input and output fit the second-level cache


def fft_setup(seconds: float, rate: int, threads: int = 1) -> Callable[[int], None]:
    """`work(clips)`: the real transforms of that many clips, `torch.fft.rfft` of frames [BLOCK, N_FFT], all memory warm.

    The result's memory comes back from the allocator for the next block; an `out=` tensor costs torch a copy more.
    """
    import torch

    frames = 1 + int(seconds * rate) // HOP
    audio = torch.randn(N_FFT + (frames - 1) * HOP)
    blocks = audio.unfold(0, N_FFT, HOP).contiguous().split(BLOCK)

    def work(clips: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for _ in range(clips):
                for part in blocks:
                    torch.fft.rfft(part)
        finally:
            torch.set_num_threads(before)

    work(1)
    return work


def gather(source: Sequence[np.ndarray], offsets: Sequence[tuple[int, int]], size: int, batch: int) -> Callable[..., None]:
    """`work(order)`: for every i of `order`, copy `size` bytes from offsets[i] = (file, byte) of `source` into batches."""
    out = np.empty((batch, size), np.uint8)

    def work(order: np.ndarray) -> None:
        for start in range(0, len(order), batch):
            for row, i in enumerate(order[start : start + batch].tolist()):
                file, byte = offsets[i]
                out[row] = source[file][byte : byte + size]

    return work


def read_files(paths: Sequence[Path], block: int = 1 << 20) -> int:
    """Read all bytes of `paths` into one buffer, in blocks; how many there were."""
    buffer = memoryview(bytearray(block))
    total = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                total += got
    return total


def write_file(path: Path, data: memoryview) -> None:
    """Write `data` to a new file and sync it: the disk's own speed."""
    with open(path, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


def drop_from_cache(paths: Sequence[Path]) -> bool:
    """Ask the kernel to forget the pages of `paths`; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def matmul(device: str, dtype: Any, size: int) -> tuple[Callable[[], object], float]:
    """A product of two [size, size] matrices, and its floating-point operations."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    return lambda: torch.mm(a, b, out=out), 2.0 * size**3


def convolution(device: str, dtype: Any, batch: int, channels: int, side: int) -> tuple[Callable[[], object], float]:
    """A 3x3 convolution of [batch, channels, side, side] to as many channels (VGG's shape), and its floating-point operations."""
    import torch

    image = torch.randn(batch, channels, side, side, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(image, weight, padding=1)

    return run, 2.0 * 9 * channels * channels * side * side * batch


def copy(device: str, size: int) -> tuple[Callable[[], object], float]:
    """A copy of `size` bytes within `device`, and the bytes read and written."""
    import torch

    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * size
