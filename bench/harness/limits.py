"""Rates of this machine from which limits are computed, and reference programs that stages use as baselines.

A limit is a bound that cannot be exceeded: the work that every program must do (bytes, floating-point
operations), divided by the rate of the resource that does it. A baseline is a program; other programs can be
faster.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from shardwave.bench.harness.record import Params
from shardwave.bench.harness.timing import Case

N_FFT, HOP = 2_048, 512  # samples
FFT_OPERATIONS = 2 * N_FFT * 11 - 4 * N_FFT + 6  # of a real FFT; see `stft_operations`
BLOCK = 128  # frames transformed at once: input and output fit the second-level cache
RESOURCES = {  # fields of Machine
    "memory": "memory copy",
    "cache": "copy within caches",
    "disk_write": "disk write",
    "disk_read": "disk read",
    "flops": "float32 operations",
    "digest": "BLAKE3",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates of this machine with all cores at work; each is the fastest of several measurements.

    Args:
        memory: Bytes per second copied from arrays larger than the caches into buffers that stay in a cache.
        cache: Bytes per second copied between buffers that stay in a cache.
        disk_write: Bytes per second written sequentially and synced.
        disk_read: Bytes per second read sequentially from files that are not in the page cache.
        flops: Floating-point operations per second of a large float32 matrix product.
        digest: Bytes per second of BLAKE3.
    """

    memory: float
    cache: float
    disk_write: float
    disk_read: float
    flops: float
    digest: float

    def least(self, **work: float) -> tuple[float, str]:
        """Return the seconds that `work` takes at least, and the resource that takes them.

        Resources can work at the same time, so the bound is the time of the slowest one.

        Args:
            **work: Bytes or operations by the name of the resource, a field of this class.
        """
        return max((amount / getattr(self, resource), resource) for resource, amount in work.items())

    def limit_case(self, prefix: str, work: float, params: Params, **amounts: float) -> Case:
        """Return the case that records the limit of a group of cases.

        Args:
            prefix: Text before the name of the resource in the case's name.
            work: Units of work that `amounts` belong to.
            params: Parameters of the group.
            **amounts: Bytes or operations by resource, as for `least`.
        """
        seconds, resource = self.least(**amounts)
        params = {
            **params,
            "resource": resource,
            "rate": getattr(self, resource),
            "amount": amounts[resource],
        }
        return Case(f"{prefix}limit: {RESOURCES[resource]}", "limit", work=work, params=params, least=seconds)


def measure_machine(folder: Path, workers: int, quick: bool = False) -> Machine:
    """Measure the rates of this machine.

    Args:
        folder: Folder for temporary files, on the disk that is measured.
        workers: Threads, one per core.
        quick: Whether to measure with small amounts of work, in about a second.
    """
    large, seconds = (1 << 26, 0.2) if quick else (1 << 29, 2.0)
    with ThreadPoolExecutor(workers) as pool:
        memory = _copy_rate(pool, workers, large // workers, 1, seconds)
        cache = _copy_rate(pool, workers, 1 << 18, 64, seconds)
        digest = _digest_rate(pool, workers, seconds)
        disk_write, disk_read = _disk_rates(pool, workers, folder, large // workers, seconds)
    sizes = (1_024,) if quick else (1_024, 2_048)
    flops = max(
        operations / _fastest(run, seconds)
        for run, operations in (matmul("cpu", None, size) for size in sizes)
    )
    return Machine(memory, cache, disk_write, disk_read, flops, digest)


def _fastest(
    work: Callable[[], object], seconds: float, before: Callable[[], object] = lambda: None
) -> float:
    """Return the seconds of the fastest call within `seconds`, of at least three, without the first."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _copy_rate(pool: ThreadPoolExecutor, workers: int, size: int, passes: int, seconds: float) -> float:
    """Return the bytes per second that all threads copy, each from `size` bytes into a buffer in a cache."""
    block = min(size, 1 << 18)
    sources = [np.ones(size // block * block, np.uint8).reshape(-1, block) for _ in range(workers)]
    targets = [np.empty(block, np.uint8) for _ in range(workers)]

    def copy_blocks(source: np.ndarray, target: np.ndarray) -> None:
        for _ in range(passes):
            for row in source:
                np.copyto(target, row)

    copied = workers * passes * sources[0].nbytes
    return copied / _fastest(lambda: list(pool.map(copy_blocks, sources, targets)), seconds)


def _digest_rate(pool: ThreadPoolExecutor, workers: int, seconds: float) -> float:
    """Return the bytes per second that all threads digest, each from a buffer that stays in a cache."""
    from blake3 import blake3

    block = np.ones(1 << 18, np.uint8).data
    passes = 64

    def digest(_: int) -> None:
        state = blake3()
        for _ in range(passes):
            state.update(block)

    return workers * passes * len(block) / _fastest(lambda: list(pool.map(digest, range(workers))), seconds)


def _disk_rates(
    pool: ThreadPoolExecutor, workers: int, folder: Path, size: int, seconds: float
) -> tuple[float, float]:
    """Return bytes per second written and read by all threads; read is inf if the cache cannot be dropped."""
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8).data
    paths = [folder / f"disk-{number}" for number in range(workers)]
    try:
        written = _fastest(lambda: list(pool.map(lambda path: write_file(path, data), paths)), seconds)
        if not drop_from_cache(paths):
            return workers * size / written, float("inf")
        reads = _fastest(
            lambda: list(pool.map(lambda path: read_files([path]), paths)),
            seconds,
            lambda: drop_from_cache(paths),
        )
        return workers * size / written, workers * size / reads
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def stft_operations(seconds: float, rate: int) -> float:
    """Return the floating-point operations of the FFTs of a clip's spectrogram.

    The count of one FFT is that of the split-radix algorithm for real input of N samples, 2 N log2 N - 4 N +
    6 (Sorensen et al., Real-valued fast Fourier transform algorithms, 1987).

    Args:
        seconds: Length of the clip.
        rate: Sample rate in Hz.
    """
    return float((1 + int(seconds * rate) // HOP) * FFT_OPERATIONS)


def fft_setup(seconds: float, rate: int, threads: int = 1) -> Callable[[int], None]:
    """Return `work(clips)`, which computes the real FFTs of that many clips with `torch.fft.rfft`.

    Frames are [BLOCK, N_FFT] and stay in memory. The memory of a result is reused by the allocator for the
    next block; an `out=` tensor would cost torch one more copy.

    Args:
        seconds: Length of a clip.
        rate: Sample rate in Hz.
        threads: Threads that torch uses.
    """
    import torch

    frames = 1 + int(seconds * rate) // HOP
    audio = torch.randn(N_FFT + (frames - 1) * HOP)
    blocks = torch.split(audio.unfold(0, N_FFT, HOP).contiguous(), BLOCK)

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


def gather(
    source: Sequence[np.ndarray], offsets: Sequence[tuple[int, int]], size: int, batch: int
) -> Callable[..., None]:
    """Return `work(order)`, which copies the samples of `order` into batches with one thread.

    Args:
        source: Arrays of bytes, one per file.
        offsets: File and first byte of every sample.
        size: Bytes of a sample.
        batch: Samples of a batch.
    """
    out = np.empty((batch, size), np.uint8)

    def work(order: np.ndarray) -> None:
        for start in range(0, len(order), batch):
            for row, i in enumerate(order[start : start + batch].tolist()):
                file, byte = offsets[i]
                out[row] = source[file][byte : byte + size]

    return work


def read_files(paths: Sequence[Path], block: int = 1 << 20) -> int:
    """Read all bytes of `paths` into one buffer of `block` bytes and return their number."""
    buffer = memoryview(bytearray(block))
    total = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def write_file(path: Path, data: memoryview) -> None:
    """Write `data` to a new file and sync it."""
    with open(path, "wb", buffering=0) as file:
        remaining = data
        while remaining:  # one call writes 2 GB at most
            remaining = remaining[file.write(remaining) :]
        os.fsync(file.fileno())


def drop_from_cache(paths: Sequence[Path]) -> bool:
    """Drop the pages of `paths` from the page cache; return False if the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def matmul(device: str, dtype: Any, size: int) -> tuple[Callable[[], object], float]:
    """Return a function that multiplies two [size, size] matrices, and its floating-point operations.

    Args:
        device: Device of torch.
        dtype: Type of the elements; None is float32.
        size: Rows and columns of each matrix.
    """
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype or torch.float32) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=a.dtype)
    return lambda: torch.mm(a, b, out=out), 2.0 * size**3


def convolution(
    device: str, dtype: Any, batch: int, channels: int, side: int
) -> tuple[Callable[[], object], float]:
    """Return a function that computes a 3x3 convolution, and its floating-point operations.

    Args:
        device: Device of torch.
        dtype: Type of the elements.
        batch: Images.
        channels: Channels of the input and of the output.
        side: Height and width in pixels.
    """
    import torch

    image = (
        torch.randn(batch, channels, side, side, device=device)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    weight = (
        torch.randn(channels, channels, 3, 3, device=device)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
    )

    def run() -> object:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(image, weight, padding=1)

    return run, 2.0 * 9 * channels * channels * side * side * batch


def copy(device: str, size: int) -> tuple[Callable[[], object], float]:
    """Return a function that copies `size` bytes within `device`, and the bytes that it reads and writes."""
    import torch

    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * size
