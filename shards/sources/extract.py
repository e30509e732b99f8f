"""Unpacking archives that may come from anybody: nothing is written outside the folder, and nothing there is replaced."""

from __future__ import annotations

import filecmp
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shardwave.common.errors import ShardwaveError
from shardwave.shards.sources.download import progress
from shardwave.shards.storage import atomic, scratch

MAX_BYTES = 64 << 30  # of an archive's files together
MAX_FILES = 1_000_000  # and folders


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar (plain, gz, bz2, xz) or zip into a folder.

    The archive is unpacked into a temporary folder inside `folder` first; what appears in `folder` is complete. Only files and
    folders are made: a link becomes a copy of the file in the archive that it leads to.

    Args:
        archive: the tar or zip file.
        folder: made if it is not there. What lies in it is neither removed nor replaced; what the archive holds too and is equal
            to it stays as it is.

    Raises:
        ShardwaveError: the archive is damaged or no archive; a tar holds names or links that lead outside, devices or pipes; it
            has more than MAX_FILES members or MAX_BYTES bytes; or `folder` holds something else of the same name. Nothing of the
            archive is in `folder` then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refused = f"{archive}: refused, {{}}; this archive is not to be trusted"
    try:
        with scratch.folder(folder, ".unpacking-") as temporary:
            with progress(archive.stat().st_size, f"unpacking {archive.name}") as shown, open(archive, "rb") as file:
                unpacked = 0
                for count, size in enumerate(_unpack(archive, file, temporary), 1):
                    unpacked += size
                    if count > MAX_FILES or unpacked > MAX_BYTES:
                        limits = f"{MAX_FILES:,} files or {MAX_BYTES >> 30} GiB (the limits of fetch)"
                        raise ShardwaveError(refused.format(f"it holds more than {limits}"))
                    shown.update(max(0, file.tell() - shown.n))
            _publish(temporary, folder, archive)
    except tarfile.FilterError as error:
        raise ShardwaveError(refused.format(error)) from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RecursionError, ValueError, NotImplementedError) as error:
        raise ShardwaveError(f"{archive}: damaged archive ({error}); download it again") from None
    except RuntimeError as error:  # zipfile: encrypted
        raise ShardwaveError(f"{archive}: cannot be unpacked ({error})") from None
    except OSError as error:
        raise ShardwaveError(
            f"{folder}: {error.strerror or error} while unpacking {archive.name}; make room or choose another --out"
        ) from None


def _unpack(archive: Path, file: IO[bytes], target: Path) -> Iterator[int]:
    """Unpack into `target`; yields the size of each member before it is written."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as zipped:
            for entry in zipped.infolist():
                yield entry.file_size
                zipped.extract(entry, target)  # keeps the name within `target`, checks the CRC-32
        return
    file.seek(0)
    if not tarfile.is_tarfile(file):
        file.seek(0)
        page = file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "a web page" if page else "neither a tar nor a zip file"
        raise ShardwaveError(f"{archive}: this is {what}; download it again, from another place (--url)")
    file.seek(0)
    links = []
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            if member.issym() or member.islnk():
                links.append(member)
                continue
            yield member.size
            tar.extract(member, target, filter="data")
    while links:  # those to other links are copied in a later round
        waiting = []
        for member in links:
            link = target / member.name
            source = (link.parent if member.issym() else target).joinpath(member.linkname).resolve()
            if not (source.is_relative_to(target.resolve()) and link.resolve().is_relative_to(target.resolve())):
                raise tarfile.LinkOutsideDestinationError(member, str(source))
            if source.is_file():
                yield source.stat().st_size
                link.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, link)
            elif not source.is_dir():
                waiting.append(member)
        if len(waiting) == len(links):
            raise ShardwaveError(f"{archive}: {waiting[0].name} links to {waiting[0].linkname}, which is not in the archive")
        links = waiting


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
