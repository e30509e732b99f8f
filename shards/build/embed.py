"""Add embedding fields to a shard set: write a derived set that has them too."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from shardwave.common.errors import BadAudio, ShardwaveError, UsageError
from shardwave.common.messages import say
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.pooled import Span
from shardwave.preprocess.engines.base import Segment
from shardwave.preprocess.engines.registry import resolve
from shardwave.shards.build import plan
from shardwave.shards.build.embed_clips import GROUP, ClipEmbedder, Vectors
from shardwave.shards.build.shard_task import array_fields
from shardwave.shards.build.writer import Shard, write_set
from shardwave.shards.format.layout import INPUTS, STORED
from shardwave.shards.format.layouts import STRIP, VIEWS
from shardwave.shards.format.manifest import Manifest, SetDescription
from shardwave.shards.format.records import SampleMeta
from shardwave.shards.format.shard_writer import Row
from shardwave.shards.read.open_set import open_set
from shardwave.shards.read.shardset import ShardSet
from shardwave.shards.read.stored_view import StoredView
from shardwave.shards.sources.class_folders import check_folder


def embed(
    shard_set: Path | str,
    audio: Path | str,
    out: Path | str,
    names: Sequence[str],
    *,
    device: str = "auto",
    overwrite: bool = False,
) -> Manifest:
    """Write a copy of a shard set with embedding fields, computed from the original audio.

    The copy has the fingerprint of a set that was built with the embeddings.

    Args:
        shard_set: Folder or URL of the set, built from audio.
        audio: Folder of the audio that it was built from.
        out: Folder of the new set.
        names: Names of the embeddings to add.
        device: `cpu`, `cuda` or `auto`.
        overwrite: Replace a set in the folder `out`.

    Returns:
        The manifest.

    Raises:
        UsageError: The set was not built from audio or has the field already, an embedding is unknown, or
            the audio folder does not exist.
        ShardwaveError: Weights are not on this machine, or a file is missing, changed or cannot be used.
    """
    parent = open_set(shard_set)
    config = _config(parent, names)
    folder = Path(audio)
    check_folder(folder)
    _check_unchanged(parent, folder)
    _, chosen = resolve("torch", device)
    embedder = ClipEmbedder(registry.versioned(names), chosen)
    entries = [
        (split, view, entry)
        for split, views in parent.manifest["splits"].items()
        for view in STORED
        for entry in views.get(view, [])
    ]
    shards: dict[tuple[str, int], dict[str, StoredView]] = defaultdict(dict)
    for split, view, entry in entries:
        index = int(entry["file"].removesuffix(".tar").rsplit("-", 1)[1])
        shards[split, index][view] = StoredView(parent, [entry])
    inherited = parent.manifest
    description: SetDescription = {
        "config": dataclasses.asdict(config),
        "engine": inherited["engine"],
        "device": inherited["device"],
        "seed": inherited["seed"],
        "classes": parent.classes,
        "feature_names": inherited["feature_names"],
        "parent": parent.fingerprint,
        "clips": inherited["clips"],
        "audio_seconds": inherited["audio_seconds"],
    }
    samples = sum(entry["samples"] for _, _, entry in entries)
    say(f"embedding {samples} samples of {parent.location} with {', '.join(names)} on {chosen}")

    def written() -> Iterator[Shard]:
        for (split, index), views in shards.items():
            if parent.is_strip:
                vectors = {STRIP: _strip_vectors(views[STRIP], config, embedder, folder)}
            else:
                vectors = _vectors(views, embedder, folder)
            for view, opened in views.items():
                yield split, view, index, _rows(opened, vectors[view])

    return write_set(
        Path(out),
        written(),
        array_fields(config, STRIP if parent.is_strip else VIEWS),
        description,
        samples=samples,
        overwrite=overwrite,
    )


def _config(parent: ShardSet, names: Sequence[str]) -> SpectrogramConfig:
    """Return the configuration of the set with the embeddings added."""
    if parent.config is None:
        raise UsageError(f"{parent.location} was not built from audio: embeddings are computed from audio")
    for name in names:
        if registry.field(name) in parent.fields:
            raise UsageError(f"{parent.location} has the field {registry.field(name)} already")
    entries = (*parent.config.embedding_entries, *registry.versioned(names))
    return dataclasses.replace(parent.config, embeddings=",".join(entries))


def _check_unchanged(parent: ShardSet, audio: Path) -> None:
    """Raise ShardwaveError if a file of a set on disk is missing, or not the one that was read."""
    if not (parent.path / INPUTS).exists():
        return
    checked: set[str] = set()
    for planned in plan.read(parent.path / INPUTS).clips:
        path = planned.clip.path
        if planned.crc32 is None or path in checked:
            continue
        checked.add(path)
        try:
            unchanged = plan.file_crc32(audio / path) == planned.crc32
        except OSError as error:
            raise ShardwaveError(
                f"{audio / path} cannot be read ({error.strerror}): "
                f"give the folder that {parent.location} was built from"
            ) from None
        if not unchanged:
            raise ShardwaveError(
                f"{audio / path} has changed since {parent.location} was built: build the set again"
            )


def _vectors(views: dict[str, StoredView], embedder: ClipEmbedder, audio: Path) -> dict[str, list[Vectors]]:
    """Return the vectors of the samples of a shard by view, each clip decoded once."""
    metas = {view: [opened.meta(i) for i in range(len(opened))] for view, opened in views.items()}
    clips: dict[int, list[tuple[str, int]]] = defaultdict(list)  # view and row of the samples of a clip
    for view, opened in views.items():
        for row, clip in enumerate(opened.clip.tolist()):
            clips[clip].append((view, row))
    made: dict[str, list[Vectors]] = {view: [{} for _ in metas[view]] for view in views}
    samples = list(clips.values())
    for start in range(0, len(samples), GROUP):
        group = samples[start : start + GROUP]
        first = [metas[view][row] for view, row in (places[0] for places in group)]
        spans = [[_span(metas[view][row]) for view, row in places] for places in group]
        for places, vectors in zip(group, _embedded(embedder, audio, first, spans), strict=True):
            for number, (view, row) in enumerate(places):
                made[view][row] = {name: values[number] for name, values in vectors.items()}
    return made


def _strip_vectors(
    strips: StoredView, config: SpectrogramConfig, embedder: ClipEmbedder, audio: Path
) -> list[Vectors]:
    """Return the vectors [1 + slices, width] of the strips of a shard."""
    second = config.sample_rate / config.hop_length
    made: list[Vectors] = []
    for start in range(0, len(strips), GROUP):
        rows = range(start, min(start + GROUP, len(strips)))
        metas = [strips.meta(row) for row in rows]
        spans = [
            [
                Span(0.0, meta["length"]),
                *(
                    Span(a / second, b / second)
                    for a, b in config.frame_bounds(int(strips.counts["npy"][row]))
                ),
            ]
            for row, meta in zip(rows, metas, strict=True)
        ]
        made += _embedded(embedder, audio, metas, spans)
    return made


def _embedded(
    embedder: ClipEmbedder, audio: Path, metas: Sequence[SampleMeta], spans: Sequence[Sequence[Span]]
) -> list[Vectors]:
    """Return the vectors of spans of clips; raise ShardwaveError if a clip cannot be used."""
    made = []
    results = embedder([_source(audio, meta) for meta in metas], spans)
    for meta, vectors in zip(metas, results, strict=True):
        if isinstance(vectors, BadAudio):
            raise ShardwaveError(
                f"{audio / meta['path']} cannot be used ({vectors}): "
                "give the folder that the set was built from"
            )
        made.append(vectors)
    return made


def _source(audio: Path, meta: SampleMeta) -> Path | Segment:
    start, end = meta.get("segment") or (None, None)
    path = audio / meta["path"]
    return path if "segment" not in meta else Segment(path, start, end)


def _span(meta: SampleMeta) -> Span:
    """Return the part of the clip that a sample shows; its start in the file includes that of a segment."""
    start = meta["start"] - ((meta.get("segment") or [0.0])[0] or 0.0)
    return Span(start, start + meta["length"])


def _rows(view: StoredView, vectors: Sequence[Vectors]) -> Iterator[Row]:
    fields = [name for name in view.set.stored if name not in ("cls", "json")]
    for i in range(len(view)):
        arrays = {name: view.array(i, name) for name in fields}
        yield Row(view.key(i), int(view.cls[i]), int(view.clip[i]), view.meta(i), {**arrays, **vectors[i]})
