"""Names of the embeddings.

Another package adds an embedding by an entry point of the group `shardwave.embeddings` that refers to an
`EmbeddingSpec`. The command line imports this module, so it does not import torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from shardwave.common import plugins
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.weights import store

if TYPE_CHECKING:
    from shardwave.preprocess.embeddings.base import Embedding

STATISTICS = 3  # per value of a window: mean, maximum and standard deviation over the windows
_NAME = re.compile(r"[a-z0-9_]+")


@dataclasses.dataclass(frozen=True)
class EmbeddingSpec:
    """Describe an embedding without importing its network.

    Args:
        make: Callable `() -> Embedding` that returns the network with its weights, or its name as
            "module:name".
        size: Number of values that the network computes for a window.
        revision: Revision of the definition: spectrogram, windows and network. It changes if the values do.
        weights: Name of the weights in `shardwave.preprocess.weights.catalogue`; None if `make` has others,
            whose version must then be part of `revision`.
    """

    make: str | Callable[[], Any]
    size: int
    revision: str
    weights: str | None = None

    @property
    def width(self) -> int:
        """Number of values of the field."""
        return STATISTICS * self.size

    @property
    def version(self) -> str:
        """Version of the weights and of the definition, on which the values depend."""
        return f"{store.version(self.weights)}-{self.revision}" if self.weights else self.revision


_MODULES = "shardwave.preprocess.embeddings"
EMBEDDINGS: dict[str, EmbeddingSpec] = {
    "aisfx": EmbeddingSpec(f"{_MODULES}.aisfx:make", 512, "r1", "aisfx"),
    "musicnn": EmbeddingSpec(f"{_MODULES}.musicnn:make_msd", 200, "r1", "musicnn"),
    "musicnn_mtt": EmbeddingSpec(f"{_MODULES}.musicnn:make_mtt", 200, "r1", "musicnn"),
}


def names() -> tuple[str, ...]:
    """Return the names of all embeddings, including those of other packages."""
    return (*EMBEDDINGS, *plugins.names("embeddings"))


def find(name: str) -> EmbeddingSpec:
    """Return the specification of an embedding.

    Raises:
        UsageError: No embedding has this name, or the entry point does not refer to an `EmbeddingSpec`.
    """
    if name in EMBEDDINGS:
        return EMBEDDINGS[name]
    spec = plugins.load("embeddings", name)
    if spec is None:
        raise UsageError(f"embedding must be one of {', '.join(names())}, got {name}")
    if not isinstance(spec, EmbeddingSpec) or not _NAME.fullmatch(name) or "," in spec.version:
        raise UsageError(
            f"entry point {name} of group shardwave.embeddings must refer to an EmbeddingSpec whose revision "
            f"has no comma, and have a name of a-z, 0-9 and _; got {type(spec).__name__}"
        )
    return spec


def field(name: str) -> str:
    """Return the name of the samples' field that holds an embedding."""
    return f"{name}.npy"


def versioned(chosen: Iterable[str]) -> tuple[str, ...]:
    """Return "name version" for each embedding; an entry that has a version already stays as it is.

    Args:
        chosen: Names, or "name version".

    Raises:
        UsageError: A name is unknown, or given twice.
    """
    entries = tuple(entry if " " in entry else f"{entry} {find(entry).version}" for entry in chosen)
    short = [split(entry)[0] for entry in entries]
    for name in short:
        if short.count(name) > 1:
            raise UsageError(f"embeddings must differ, got {name} twice")
    return entries


def split(entry: str) -> tuple[str, str]:
    """Return name and version of an entry of `versioned`."""
    name, _, version = entry.partition(" ")
    return name, version


def check(entries: Iterable[str]) -> None:
    """Check that this installation can compute embeddings of these versions.

    Args:
        entries: Entries as `versioned` returns them.

    Raises:
        UsageError: An embedding is not known here.
        ShardwaveError: It has another version here, or its weights are not on this machine.
    """
    for name, version in map(split, entries):
        spec = find(name)
        if spec.version != version:
            raise ShardwaveError(
                f"embedding {name} has version {spec.version} here, {version} is needed: "
                "build the set again, or install the version of shardwave that built it"
            )
        if spec.weights:
            store.require_weights(spec.weights)


def make(name: str) -> Embedding:
    """Create the network of an embedding, with its weights, on the CPU in evaluation mode.

    Raises:
        UsageError: The name is unknown.
        ShardwaveError: The weights are not on this machine, or do not fit.
    """
    factory = find(name).make
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    network: Embedding = factory()
    return network.eval().requires_grad_(False)
