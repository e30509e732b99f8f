"""Safe extraction of archives: writes only inside the target folder and replaces nothing in it."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shardwave.common.errors import ShardwaveError
from shardwave.shards.sources.download import progress
from shardwave.shards.storage import atomic, scratch

if sys.version_info < (3, 11, 4):  # without filters
    from backports import tarfile
else:
    import tarfile

MAX_BYTES = 64 << 30  # total size of an archive's files
MAX_FILES = 1_000_000  # files and folders of an archive


def extract(archive: Path, folder: Path) -> None:
    """Extract a tar (plain, gz, bz2, xz) or zip archive into a folder.

    The archive is extracted into a temporary folder inside `folder` and then moved, so that `folder` never
    contains incomplete files. Links are replaced by copies of the files in the archive that they refer to.

    Args:
        archive: The tar or zip file.
        folder: The target folder, created if necessary. Existing files are not changed; a member that already
            exists with the same content is skipped.

    Raises:
        ShardwaveError: The file is damaged or not an archive; a tar contains devices, pipes, or names or
            links that lead outside the folder; it has more than MAX_FILES members or MAX_BYTES bytes; or
            `folder` contains a different file of the same name. In all cases nothing of the archive is in
            `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refused = f"{archive}: refused, {{}}; the archive is not trustworthy, get it from another source"
    try:
        with scratch.folder(folder, ".unpacking-") as temporary:
            with (
                progress(archive.stat().st_size, f"unpacking {archive.name}") as progress_bar,
                open(archive, "rb") as file,
            ):
                unpacked = 0
                for count, size in enumerate(_unpack(archive, file, temporary), 1):
                    unpacked += size
                    if count > MAX_FILES or unpacked > MAX_BYTES:
                        limits = f"{MAX_FILES:,} files or {MAX_BYTES >> 30} GiB (the limits of fetch)"
                        raise ShardwaveError(refused.format(f"it contains more than {limits}"))
                    progress_bar.update(max(0, file.tell() - progress_bar.n))
            _publish(temporary, folder, archive)
    except tarfile.FilterError as error:
        raise ShardwaveError(refused.format(error)) from None
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RecursionError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise ShardwaveError(f"{archive}: damaged archive ({error}); download it again") from None
    except RuntimeError as error:  # zipfile: encrypted
        raise ShardwaveError(
            f"{archive}: cannot be unpacked ({error}); unpack it by hand and use --from"
        ) from None
    except OSError as error:
        raise ShardwaveError(
            f"{folder}: {error.strerror or error} while unpacking {archive.name}; free disk space or "
            "choose another --out"
        ) from None


def _unpack(archive: Path, file: IO[bytes], target: Path) -> Iterator[int]:
    """Extract into `target`; yields the size of each member, in bytes, before it is written."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as zipped:
            for entry in zipped.infolist():
                yield entry.file_size
                zipped.extract(entry, target)  # keeps names inside `target`, checks the CRC-32
        return
    file.seek(0)
    if not tarfile.is_tarfile(file):
        file.seek(0)
        page = file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html"))
        kind = "a web page" if page else "neither a tar nor a zip file"
        raise ShardwaveError(f"{archive}: the file is {kind}; download it from another address (--url)")
    file.seek(0)
    links = []
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            if member.issym() or member.islnk():
                links.append(member)
                continue
            yield member.size
            tar.extract(member, target, filter="data")
    while links:  # links to links are copied in later rounds
        waiting = []
        for member in links:
            link = target / member.name
            source = (link.parent if member.issym() else target).joinpath(member.linkname).resolve()
            if not (
                source.is_relative_to(target.resolve()) and link.resolve().is_relative_to(target.resolve())
            ):
                raise tarfile.LinkOutsideDestinationError(member, str(source))
            if source.is_file():
                yield source.stat().st_size
                link.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, link)
            elif not source.is_dir():
                waiting.append(member)
        if len(waiting) == len(links):
            raise ShardwaveError(
                f"{archive}: {waiting[0].name} links to {waiting[0].linkname}, which is not in the archive"
            )
        links = waiting


def _publish(temporary: Path, folder: Path, archive: Path) -> None:
    """Move the extracted files to `folder`; raises ShardwaveError if a different file has the same name."""
    children = sorted(temporary.iterdir())
    for child in children:
        existing = folder / child.name
        if os.path.lexists(existing) and not _same(child, existing):
            raise ShardwaveError(
                f"{existing} already exists and differs from the one in {archive.name}: move it away, or "
                "choose another --out"
            )
    for child in children:
        if not os.path.lexists(folder / child.name):
            atomic.replace(child, folder / child.name)


def _same(one: Path, other: Path) -> bool:
    """Return whether `other` contains everything that `one` contains, with the same bytes."""
    if one.is_dir():
        return other.is_dir() and all(_same(child, other / child.name) for child in one.iterdir())
    return other.is_file() and filecmp.cmp(one, other, shallow=False)
