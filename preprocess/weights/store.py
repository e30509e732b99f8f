"""The converted weights in the cache folder of the user, as safetensors files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shardwave.common.errors import ShardwaveError
from shardwave.preprocess.weights.catalogue import WeightsSource, get

if TYPE_CHECKING:  # the command line imports this module
    import numpy as np
    from torch import Tensor

LAYOUT = "1"  # of the converted files: names and axes of the tensors


def weights_path(source: WeightsSource) -> Path:
    """Return the path of the converted weights of a source, below XDG_CACHE_HOME or ~/.cache."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / "shardwave" / "weights" / f"{source.name}-{source.version}.safetensors"


def save(source: WeightsSource, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write converted weights.

    Args:
        source: Their source, which the file names in its metadata.
        tensors: The weights.
        path: File to write.

    Raises:
        ShardwaveError: The folder of the cache cannot be written.
    """
    from safetensors.numpy import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), temporary, metadata=_metadata(source) | {"sha256": _digest(tensors)})
        temporary.replace(path)
    except OSError as error:
        raise ShardwaveError(
            f"{path} cannot be written ({error.strerror}): set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def load(name: str) -> dict[str, Tensor]:
    """Load converted weights by name.

    Raises:
        UsageError: The name is unknown.
        ShardwaveError: The weights are not in the cache, the file is damaged, or it holds other weights.
    """
    from safetensors import SafetensorError, safe_open

    source = get(name)
    path = weights_path(source)
    require_weights(name)
    remedy = f"remove the file and run shardwave fetch {name}"
    try:
        with safe_open(path, framework="pt") as file:
            described = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ShardwaveError(f"{path} is damaged ({error}): {remedy}") from None
    digest = described.pop("sha256", None)
    if described != _metadata(source):
        raise ShardwaveError(f"{path} holds other weights than {name} {source.version}: {remedy}")
    if digest != _digest({key: value.numpy() for key, value in tensors.items()}):
        raise ShardwaveError(f"{path} is damaged (its checksum does not fit): {remedy}")
    return tensors


def version(name: str) -> str:
    """Return the version of weights, as `0.1.2-bfe219950715`: of the package, with the start of its SHA-256.

    Raises:
        UsageError: The name is unknown.
    """
    source = get(name)
    return f"{source.version}-{source.sha256[:12]}"


def require_weights(name: str) -> None:
    """Raise ShardwaveError with the remedy if the weights are not in the cache."""
    if not weights_path(get(name)).exists():
        raise ShardwaveError(f"the weights {name} are not on this machine: run shardwave fetch {name}")


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _metadata(source: WeightsSource) -> dict[str, str]:
    return {"name": source.name, "version": source.version, "wheel_sha256": source.sha256, "layout": LAYOUT}
