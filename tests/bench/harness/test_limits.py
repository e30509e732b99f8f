"""Baselines do the work that they claim, and limits follow from the rates of the machine."""

import numpy as np
import torch

from shardwave.bench.harness import limits


def test_gather_copies_the_bytes_in_the_order_asked_for(tmp_path):
    data = [np.arange(100, dtype=np.uint8), np.arange(100, 200, dtype=np.uint8)]
    seen = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            found = np.asarray(super().__getitem__(key))
            seen.append(found.copy())
            return found

    limits.gather([part.view(Watched) for part in data], [(0, 10), (1, 20), (1, 0)], 5, 2)(
        np.array([2, 0, 1])
    )
    assert [row.tolist() for row in seen] == [
        list(range(100, 105)),
        list(range(10, 15)),
        list(range(120, 125)),
    ]


def test_the_slowest_resource_gives_the_limit():
    machine = limits.Machine(memory=10.0, cache=20.0, disk_write=2.0, disk_read=4.0, flops=100.0, digest=5.0)
    assert machine.least(disk_write=8, digest=10) == (4.0, "disk_write")
    case = machine.limit_case("build: ", 30, {"clips": 1}, flops=1_000, disk_read=4)
    assert (case.name, case.role, case.least, case.work) == (
        "build: limit: float32 operations",
        "limit",
        10.0,
        30,
    )
    assert case.params == {"clips": 1, "resource": "flops", "rate": 100.0, "amount": 1_000}


def test_rates_of_the_machine_are_positive_and_leave_no_file(tmp_path):
    machine = limits.measure_machine(tmp_path, 2, quick=True)
    assert all(rate > 1e6 for rate in vars(machine).values()) and not list(tmp_path.iterdir())


def test_operations_of_a_transform_are_below_the_textbook_count():
    frames = 1 + 22_050 // 512
    assert frames * 2 * 2048 < limits.stft_operations(1.0, 22_050) < frames * 2.5 * 2048 * 11


def test_reading_and_writing_take_all_bytes(tmp_path):
    for i, size in enumerate((0, 10, 3_000_000)):
        (tmp_path / str(i)).write_bytes(bytes(size))
    assert limits.read_files(sorted(tmp_path.iterdir())) == 3_000_010
    limits.write_file(tmp_path / "new", memoryview(b"abc"))
    assert (tmp_path / "new").read_bytes() == b"abc"


def test_dropping_from_the_cache_keeps_the_contents(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert limits.drop_from_cache([path])
    assert path.read_bytes() == b"x" * 100_000


def test_transforms_keep_the_number_of_threads(monkeypatch):
    frames = []
    real = torch.fft.rfft
    monkeypatch.setattr(torch.fft, "rfft", lambda part: frames.append(len(part)) or real(part))
    before = torch.get_num_threads()
    work = limits.fft_setup(1.0, 22_050, threads=1)
    frames.clear()
    work(3)
    assert sum(frames) == 3 * (1 + 22_050 // 512)
    assert torch.get_num_threads() == before


def test_operations_are_counted_as_the_textbook_does():
    run, counted = limits.matmul("cpu", torch.float32, 8)
    assert counted == 2 * 8**3 and run().shape == (8, 8)
    run, counted = limits.convolution("cpu", torch.float32, 2, 3, 8)
    assert counted == 2 * 9 * 3 * 3 * 8 * 8 * 2 and run().shape == (2, 3, 8, 8)


def test_a_copy_reads_and_writes():
    run, moved = limits.copy("cpu", 1000)
    run()
    assert moved == 2000
