from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from blake3 import blake3

from shardwave.shards.format import tar_writer
from shardwave.shards.format.tar_writer import TarWriter

SIZES = [0, 1, 511, 512, 513, 70_000, 2_000_000]


def write(path: Path) -> list[tuple[int, int]]:
    writer = TarWriter(path)
    places = [
        writer.add(f"key_{i}.npy", bytes([i]) * (size - size // 3), bytes([i]) * (size // 3))
        for i, size in enumerate(SIZES)
    ]
    assert writer.close() == (path.stat().st_size, blake3(path.read_bytes()).hexdigest())
    return places


def test_the_standard_library_reads_it(tmp_path: Path) -> None:
    places = write(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "r:") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"key_{i}.npy" for i in range(len(SIZES))]
        assert [(member.offset_data, member.size) for member in members] == places
        assert all(member.isreg() and member.mtime == 0 and member.mode == 0o644 for member in members)
        for i, member in enumerate(members):
            file = archive.extractfile(member)
            assert file is not None and file.read() == bytes([i]) * SIZES[i]


@pytest.mark.parametrize("most", [1, 1_000_000, 1 << 30])
@pytest.mark.parametrize("every", [1, 3])
def test_bytes_do_not_depend_on_flushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, most: int
) -> None:
    places = write(tmp_path / "a.tar")
    monkeypatch.setattr(tar_writer, "_MOST", most)
    writer = TarWriter(tmp_path / "b.tar")
    for i, size in enumerate(SIZES):
        content = bytes([i]) * (size - size // 3)
        assert writer.add(f"key_{i}.npy", content, bytes([i]) * (size // 3)) == places[i]
        if i % every == 0:
            writer.flush()
    assert writer.close() == (
        (tmp_path / "b.tar").stat().st_size,
        blake3((tmp_path / "a.tar").read_bytes()).hexdigest(),
    )
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_headers_are_those_of_the_standard_library(tmp_path: Path) -> None:
    (offset, _), *_ = write(tmp_path / "a.tar")
    info = tarfile.TarInfo("key_0.npy")
    assert (tmp_path / "a.tar").read_bytes()[offset - 512 : offset] == info.tobuf(tarfile.USTAR_FORMAT)


def test_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    write(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_names_and_sizes_have_bounds(tmp_path: Path) -> None:
    writer = TarWriter(tmp_path / "a.tar")
    with pytest.raises(ValueError, match="under 100 bytes"):
        writer.add("x" * 100, b"")
    with pytest.raises(UnicodeEncodeError):
        writer.add("é.npy", b"")
    writer.abandon()
    assert not (tmp_path / "a.tar").exists()
