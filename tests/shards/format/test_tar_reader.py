from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError
from shardwave.shards.format.decode_sample import decode_field
from shardwave.shards.format.tar_reader import MAX_MEMBER, members


def archive(
    *entries: tuple[str, bytes],
    change: Callable[[tarfile.TarInfo], None] | None = None,
    format: int = tarfile.PAX_FORMAT,
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as made:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5  # type: ignore[assignment]  # as webdataset's writer does: an extended header
            if change is not None:
                change(info)
            made.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(data: bytes) -> list[tuple[str, bytes]]:
    return [(member.name, member.data) for member in members(io.BytesIO(data), "shard.tar")]


def refused(data: bytes, told: str) -> None:
    with pytest.raises(ShardwaveError, match=told) as caught:
        read(data)
    assert "shard.tar" in str(caught.value)


ENTRIES = [("a.npy", b"x" * 1000), ("a.cls", b"1"), ("b/c.npy", b""), ("long" * 60 + ".json", b"{}")]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_plain_tars_are_read(format: int) -> None:
    assert read(archive(*ENTRIES, format=format)) == ENTRIES


def test_places_are_those_of_the_file() -> None:
    data = archive(*ENTRIES)
    for member in members(io.BytesIO(data), "shard.tar"):
        assert data[member.offset : member.offset + len(member.data)] == member.data


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.npy", "a/../../b.npy", "a\\..\\b.npy", "..", "//x.npy"]
)
def test_names_that_point_outside_are_refused(name: str) -> None:
    refused(archive((name, b"x")), "points outside the shard")


@pytest.mark.parametrize(
    "name", ["a.pkl", "a.pickle", "a.pyd", "a.PTH", "a.features.pt", "a.pkl.gz", "a.joblib"]
)
def test_pickles_are_refused(name: str) -> None:
    refused(archive((name, b"x")), "could run code")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_special_files_are_refused(kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    refused(archive(("a.npy", b""), change=change), "is a link, a device or another special file")


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_huge_declared_sizes_are_refused_before_anything_is_read() -> None:
    refused(header("a.npy", MAX_MEMBER + 1) + bytes(1024), f"declares {MAX_MEMBER + 1} bytes")
    refused(header("a.npy", 2**60) + bytes(1024), f"declares {2**60} bytes")
    refused(header("a", 2**40, tarfile.XHDTYPE) + bytes(1024), "declares")
    refused(header("a", 2**40, tarfile.GNUTYPE_LONGNAME) + bytes(1024), "declares")
    refused(header("ok.npy", 0) + header("a.npy", 2**60) + bytes(1024), f"declares {2**60} bytes")
    refused(
        archive(("a.npy", b"x"), change=lambda info: info.pax_headers.update(size=str(2**50))),
        "declares|truncated",
    )


@pytest.mark.parametrize("cut", [1, 100, 512, 600, 1300, 1536, 2048, 2100, 3000])
def test_truncated_tars_are_found(cut: int) -> None:
    data = archive(("a.npy", b"x" * 700), ("b.npy", b"y" * 700), format=tarfile.USTAR_FORMAT).rstrip(b"\0")
    data += bytes(-len(data) % 512 + 1024)
    assert len(read(data)) == 2
    refused(data[:cut], "truncated")


def test_what_is_no_tar_is_named() -> None:
    refused(b"<html>not found</html>" * 100, "truncated or not a plain tar file")
    refused(b"", "truncated")


def test_fields_never_unpickle() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return exec, ("raise SystemExit('executed')",)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], object), allow_pickle=True)
    for data in (buffer.getvalue(), pickle.dumps(Trap())):
        with pytest.raises(ShardwaveError, match="field npy is damaged"):
            decode_field("npy", data, "shard.tar: a")


def test_fields_are_decoded() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6, dtype=np.float16).reshape(2, 3))
    assert (decode_field("features.npy", buffer.getvalue(), "") == np.arange(6).reshape(2, 3)).all()
    assert decode_field("cls", b"-1", "") == -1 and decode_field("json", b'{"a": null}', "") == {"a": None}
    assert decode_field("txt", b"text", "") == b"text"
    for name, data in (("cls", b"one"), ("json", b"{"), ("npy", buffer.getvalue()[:-1])):
        with pytest.raises(ShardwaveError, match=f"shard.tar: a: field {name} is damaged"):
            decode_field(name, data, "shard.tar: a")
