"""Unpacking archives that may come from anybody: nothing is written outside the folder, and nothing there is replaced."""

from __future__ import annotations

import filecmp
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from preprocess.errors import ShardwaveError
from shards import atomic, scratch
from shards.sources.download import progress

MAX_BYTES = 64 << 30  # of an archive's files together
MAX_FILES = 1_000_000


def extract(archive: Path, folder: Path) -> int:
    """Unpack a tar (plain, gz, bz2, xz) or zip into a folder.

    The archive is unpacked into a temporary folder inside `folder` first; what appears in `folder` is complete. Only files and
    folders are made: a link becomes a copy of the file in the archive that it leads to.

    Args:
        archive: the tar or zip file.
        folder: made if it is not there. What lies in it is neither removed nor replaced; what the archive holds too and is equal
            to it stays as it is.

    Returns:
        The number of files.

    Raises:
        ShardwaveError: the archive is damaged or no archive; it holds absolute names, `..`, devices, pipes, links that lead
            outside or in a circle, more than MAX_FILES files or MAX_BYTES bytes; or `folder` holds something else of the same
            name. Nothing of the archive is in `folder` then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with scratch.folder(folder, ".unpacking-") as temporary:
            with progress(archive.stat().st_size, f"unpacking {archive.name}") as shown, open(archive, "rb") as file:
                target = _Target(archive, temporary, lambda: shown.update(max(0, file.tell() - shown.n)))
                if zipfile.is_zipfile(file):
                    _unpack_zip(file, target)
                else:
                    _unpack_tar(file, target)
            _publish(temporary, folder, archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RecursionError, ValueError, NotImplementedError) as error:
        raise ShardwaveError(f"{archive}: damaged archive ({error}); download it again") from None
    except RuntimeError as error:  # zipfile: encrypted
        raise ShardwaveError(f"{archive}: cannot be unpacked ({error})") from None
    except OSError as error:
        raise ShardwaveError(
            f"{folder}: {error.strerror or error} while unpacking {archive.name}; make room or choose another --out"
        ) from None
    return target.count


class _Target:
    """The temporary folder: checks every member's name, kind and size, and keeps count."""

    def __init__(self, archive: Path, folder: Path, advance: Callable[[], None]) -> None:
        self.archive, self.folder, self.advance = archive, folder, advance
        self.files: set[str] = set()  # names of the files written, without `.` and `..`
        self.count = self._bytes = 0

    def refuse(self, what: str) -> ShardwaveError:
        return ShardwaveError(f"{self.archive}: refused, {what}; this archive is not to be trusted")

    def name(self, name: str) -> str:
        """The name as a path below the folder (`.` for the folder itself); raises ShardwaveError where it leads outside."""
        outside = name.startswith("/") or (len(name) > 1 and name[1] == ":") or "\\" in name or ".." in name.split("/")
        if outside or "\0" in name:
            raise self.refuse(f"{name} lies outside the folder")
        return posixpath.normpath(name)

    def reserve(self, name: str, size: int) -> None:
        """Count a file of `size` bytes before it is written."""
        self.count, self._bytes = self.count + 1, self._bytes + size
        if self.count > MAX_FILES or self._bytes > MAX_BYTES:
            raise self.refuse(f"it holds more than {MAX_FILES:,} files or {MAX_BYTES >> 30} GiB (the limits of fetch)")
        if size > shutil.disk_usage(self.folder).free:
            raise ShardwaveError(f"{self.folder.parent}: no space left for {name} of {self.archive.name}; make room")
        self.files.add(name)


def _unpack_zip(file: IO[bytes], target: _Target) -> None:
    with zipfile.ZipFile(file) as zipped:
        for member in zipped.infolist():
            name, kind = target.name(member.filename), stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise target.refuse(f"{member.filename} is a link, a device or a pipe")
            target.reserve(name, member.file_size)
            zipped.extract(member, target.folder)  # checks the member's CRC-32 while it is read
            target.advance()


def _unpack_tar(file: IO[bytes], target: _Target) -> None:
    file.seek(0)
    if not tarfile.is_tarfile(file):
        file.seek(0)
        page = file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "a web page" if page else "neither a tar nor a zip file"
        raise ShardwaveError(f"{target.archive}: this is {what}; download it again, from another place (--url)")
    file.seek(0)
    links: dict[str, tuple[str, str]] = {}  # name -> what it leads to, and both as the archive has them
    folders: set[str] = {"."}
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        for number, member in enumerate(tar):
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
            if number > 2 * MAX_FILES:
                raise target.refuse(f"it has more than {2 * MAX_FILES:,} members")
            name = target.name(member.name)
            if member.issym() or member.islnk():
                parent = posixpath.dirname(name) if member.issym() else ""
                leads_to = posixpath.normpath(posixpath.join(parent, member.linkname))
                shown = f"{member.name} links to {member.linkname}"
                if member.linkname.startswith("/") or leads_to.split("/")[0] == ".." or "\\" in member.linkname:
                    raise target.refuse(f"{shown}, which lies outside the folder")
                links[name] = leads_to, shown
            elif member.isdir():
                folders.add(name)
            elif member.isreg():
                target.reserve(name, member.size)
                tar.extract(member, target.folder, filter="data")
                folders.update(_parents(name))
            else:
                raise target.refuse(f"{member.name} is a device or a pipe")
            target.advance()
    _copy_links(links, folders, target)


def _parents(name: str) -> set[str]:
    parts = name.split("/")[:-1]
    return {"/".join(parts[: i + 1]) for i in range(len(parts))}


def _copy_links(links: dict[str, tuple[str, str]], folders: set[str], target: _Target) -> None:
    """Make each link a copy of the file that it leads to, over other links too; links to folders are left out."""
    for name, (leads_to, shown) in links.items():
        passed = {name}
        while leads_to in links and leads_to not in passed:
            passed.add(leads_to)
            leads_to = links[leads_to][0]
        if leads_to in passed:
            raise target.refuse(f"{shown}, which leads back to itself")
        if leads_to in folders:
            continue
        if leads_to not in target.files:
            raise ShardwaveError(f"{target.archive}: {shown}, which is not in the archive")
        source, copy = target.folder / leads_to, target.folder / name
        target.reserve(name, source.stat().st_size)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)


def _publish(temporary: Path, folder: Path, archive: Path) -> None:
    """Give what was unpacked its place, if nothing else lies there."""
    children = sorted(temporary.iterdir())
    for child in children:
        there = folder / child.name
        if os.path.lexists(there) and not _same(child, there):
            raise ShardwaveError(
                f"{there} is there already and is not what {archive.name} holds: move it away, or choose another --out"
            )
    for child in children:
        if not os.path.lexists(folder / child.name):
            atomic.replace(child, folder / child.name)


def _same(one: Path, other: Path) -> bool:
    """Whether all that lies in `one` lies in `other` too, with the same bytes."""
    if one.is_dir():
        return other.is_dir() and all(_same(child, other / child.name) for child in one.iterdir())
    return other.is_file() and filecmp.cmp(one, other, shallow=False)
