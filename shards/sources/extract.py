"""Archives unpacked without trusting them: nothing is written outside the folder, and nothing but files and folders is made."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from preprocess.errors import ShardwaveError
from shards import atomic
from shards.sources.download import progress


class _Member(NamedTuple):
    """A file of an archive; `content` is read before the next one is asked for."""

    name: PurePosixPath
    size: int  # bytes
    content: IO[bytes]


def extract(archive: Path, folder: Path) -> int:
    """Unpack a tar (plain, gz, bz2, xz) or zip into `folder`; returns the number of files.

    Absolute names, `..`, links that lead outside, devices and pipes stop it with a ShardwaveError before anything of that
    archive stands in `folder`; a link inside becomes a copy of its file. What is unpacked appears only when it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".unpacking.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        count = 0
        with progress(archive.stat().st_size, f"unpacking {archive.name}") as shown, open(archive, "rb") as file:
            for member in _members(archive, file):
                target = temporary / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as out:
                    shutil.copyfileobj(member.content, out, 1 << 20)
                if target.stat().st_size != member.size:
                    raise ShardwaveError(f"{archive}: {member.name} is cut off; download the archive again")
                count += 1
                shown.update(max(0, file.tell() - shown.n))
        for child in sorted(temporary.iterdir()):
            final = folder / child.name
            if final.is_dir():
                shutil.rmtree(final)
            atomic.replace(child, final)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ShardwaveError(f"{archive}: damaged archive ({error}); download it again") from None
    except OSError as error:
        raise ShardwaveError(
            f"{folder}: {error.strerror or error} while unpacking {archive.name}; make room or choose another --out"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count


def _members(archive: Path, file: IO[bytes]) -> Iterator[_Member]:
    """The regular files of an archive, in its order, every name checked."""
    if zipfile.is_zipfile(file):
        file.seek(0)
        yield from _zip_members(archive, file)
        return
    file.seek(0)
    if not tarfile.is_tarfile(file):
        file.seek(0)
        page = file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "a web page" if page else "neither a tar nor a zip file"
        raise ShardwaveError(f"{archive}: this is {what}; download it again, from another place (--url)")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        yield from _tar_members(archive, tar)


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    for member in tar:
        name = _checked(archive, member.name)
        if member.isdir() or name == PurePosixPath("."):
            continue
        if member.issym():
            _checked(archive, f"{name.parent}/{member.linkname}", link=member)
        elif member.islnk():
            _checked(archive, member.linkname, link=member)
        elif not member.isreg():
            raise ShardwaveError(f"{archive}: refused, {member.name} is a device or a pipe; this archive is not to be trusted")
        try:
            content = tar.extractfile(member)  # follows links within the archive
        except KeyError:
            raise ShardwaveError(f"{archive}: {member.name} links to {member.linkname}, which is not in the archive") from None
        if content is not None:  # None: a link to a folder
            yield _Member(name, member.size if member.isreg() else content.seek(0, os.SEEK_END), _rewound(content))


def _zip_members(archive: Path, file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as zipped:
        for member in zipped.infolist():
            name = _checked(archive, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise ShardwaveError(
                    f"{archive}: refused, {member.filename} is a link, a device or a pipe; this archive is not to be trusted"
                )
            with zipped.open(member) as content:  # checks the member's CRC-32 while it is read
                yield _Member(name, member.file_size, content)


def _checked(archive: Path, name: str, link: tarfile.TarInfo | None = None) -> PurePosixPath:
    """The member's name as a path below the folder, or ShardwaveError; for a link, its target from the archive's root."""
    parts: list[str] = []
    outside = (
        name.startswith(("/", "\\"))
        or (len(name) > 1 and name[1] == ":")
        or "\\" in name
        or (link is not None and link.linkname.startswith("/"))
    )
    for part in name.split("/"):
        if part == ".." and (link is None or not parts):
            outside = True
        elif part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if outside:
        what = f"{link.name} links to {link.linkname}" if link else name
        raise ShardwaveError(f"{archive}: refused, {what} lies outside the folder; this archive is not to be trusted")
    return PurePosixPath(*parts) if parts else PurePosixPath(".")


def _rewound(content: IO[bytes]) -> IO[bytes]:
    content.seek(0)
    return content
