"""Embedding fields in built and in derived sets, of each clip and each slice, from the original audio."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.embeddings import registry
from shardwave.preprocess.embeddings.base import Embedding
from shardwave.preprocess.embeddings.pooled import Embedder, Span
from shardwave.preprocess.embeddings.registry import EmbeddingSpec
from shardwave.shards.build import plan
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.build.embed import embed
from shardwave.shards.build.embed_clips import ClipEmbedder, spans_of
from shardwave.shards.build.shard_task import ShardTask
from shardwave.shards.build.worker import Builder, BuildSpec
from shardwave.shards.format import index
from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set
from tests.shards.conftest import CONFIG, RATE, labelled, write_clip


class Loudness(Embedding):
    """Mean level of windows of 0.05 s, at half the rate of the audio."""

    sample_rate, frame_hop, window, window_hop = RATE // 2, 1, 200, 200

    def spectrogram(self, samples: Tensor) -> Tensor:
        return samples[:, None].abs()

    def forward(self, windows: Tensor) -> Tensor:
        return windows.mean((1, 2))[:, None]


@pytest.fixture
def loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.EMBEDDINGS, "loudness", EmbeddingSpec(Loudness, 1, "r1"))


def levels(path: Path, start: float, stop: float) -> np.ndarray:
    """The vector of a part of a file."""
    samples = np.abs(decode(path, RATE // 2).samples)
    first = round(start * RATE / 2)
    part = samples[first : max(first + 1, first + round((stop - start) * RATE / 2))]
    part = np.pad(part, (0, max(0, 200 - len(part))))
    means = np.array([part[i : i + 200].mean() for i in range(0, len(part) - 199, 200)])
    return np.array([means.mean(), means.max(), means.std()])


def test_derived_set(built: Path, audio: Path, tmp_path: Path, loudness: None) -> None:
    """A vector of another clip or slice, or a field of the set that is lost."""
    manifest = embed(built, audio, tmp_path / "new", ["loudness"])
    old, new = open_set(built), open_set(tmp_path / "new")
    verify(new)
    assert new.config == dataclasses.replace(CONFIG, embeddings="loudness")
    assert manifest["parent"] == old.fingerprint != new.fingerprint
    assert new.fields["loudness.npy"] == {"dtype": "float32", "shape": [3]}
    for split in old.splits:
        for view in ("full", "slice"):
            before, after = old.view(split, view), new.view(split, view)
            rows = np.arange(len(before))
            assert np.array_equal(before.gather(rows)["npy"], after.gather(rows)["npy"])
            vectors = after.gather(rows, ["loudness.npy"])["loudness.npy"]
            for i in rows:
                meta = before.meta(i)
                assert meta == after.meta(i) and before.key(i) == after.key(i)
                expected = levels(audio / meta["path"], meta["start"], meta["start"] + meta["length"])
                assert np.allclose(vectors[i], expected, atol=2e-3)  # of rounding to whole samples


def test_segments_begin_in_the_middle_of_a_file(tmp_path: Path, loudness: None) -> None:
    for i in range(4):
        write_clip(tmp_path / "audio" / f"{i}.wav", i, seconds=1.0 + 0.1 * i)
    rows = [f"{i}.wav,{'ab'[i % 2]},{start},{start + 0.3}" for i in range(4) for start in (0.1, 0.5)]
    options = BuildOptions(
        labels=labelled(tmp_path / "audio", rows, "path,label,start,end"), workers=1, min_shards=1
    )
    build(tmp_path / "audio", tmp_path / "set", CONFIG, options)
    embed(tmp_path / "set", tmp_path / "audio", tmp_path / "new", ["loudness"])
    for split in open_set(tmp_path / "new").splits:
        view = open_set(tmp_path / "new").view(split, "slice")
        vectors = view.gather(np.arange(len(view)), ["loudness.npy"])["loudness.npy"]
        for i, vector in enumerate(vectors):
            meta = view.meta(i)
            expected = levels(
                tmp_path / "audio" / meta["path"], meta["start"], meta["start"] + meta["length"]
            )
            assert np.allclose(vector, expected, atol=5e-3)


def test_a_build_makes_what_embed_makes(audio: Path, built: Path, tmp_path: Path, loudness: None) -> None:
    """The paths differ: a worker knows the clip's length, `embed` only the metadata of the samples."""
    config = dataclasses.replace(CONFIG, embeddings="loudness")
    planned = open_set(built)
    embed(built, audio, tmp_path / "derived", ["loudness"])

    clips = plan.read(built / "inputs.jsonl").clips
    (tmp_path / "task" / ".shardwave.build").mkdir(parents=True)
    task = ShardTask("val", 0, [(i, clips[i]) for i in range(len(clips)) if clips[i].assigned_split == "val"])
    record, _ = Builder(BuildSpec(audio, tmp_path / "task", config, "numba", "cpu")).build(task)
    assert record["shards"]["full"]["samples"] == len(planned.view("val", "full"))

    for view in ("full", "slice"):
        entry = index.read(tmp_path / "task" / f"val-{view}-0000.index")
        data = (tmp_path / "task" / f"val-{view}-0000.tar").read_bytes()
        offsets, sizes = entry.offset["loudness.npy"], entry.length["loudness.npy"]
        mine = {
            data[offset - 512 : offset - 412].split(b"\0")[0].decode(): np.frombuffer(
                data[offset + 128 : offset + size], np.float32
            )
            for offset, size in zip(offsets, sizes, strict=True)
        }
        opened = open_set(tmp_path / "derived").view("val", view)
        derived = opened.gather(np.arange(len(opened)), ["loudness.npy"])["loudness.npy"]
        assert len(mine) == len(derived)
        for i, vector in enumerate(derived):
            assert np.allclose(vector, mine[f"{opened.key(i)}.loudness.npy"], atol=2e-3)


def test_cut_clips_are_described_as_far_as_they_are_shown() -> None:
    config = SpectrogramConfig(
        sample_rate=8_000, fit="crop", fit_seconds=0.5, n_fft=256, hop_length=128, slices=2
    )
    assert spans_of(config, 8_000) == [Span(0.0, 0.5), Span(0.0, 16 * 0.016), Span(16 * 0.016, 32 * 0.016)]


def test_values_that_are_not_finite_quarantine_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Loudness):
        def forward(self, windows: Tensor) -> Tensor:
            return torch.log(windows.mean((1, 2)) - 1)[:, None]

    monkeypatch.setitem(registry.EMBEDDINGS, "broken", EmbeddingSpec(Broken, 1, "r1"))
    write_clip(tmp_path / "a.wav", 0)
    [result] = ClipEmbedder(["broken r1"], "cpu")([tmp_path / "a.wav"], [[Span(0, 0.4)]])
    assert str(result) == "the embedding broken is not finite"


def test_build_with_pretrained_weights(
    audio: Path, tmp_path: Path, pretrained: Callable[[str], None]
) -> None:
    """Real processes, real weights; the field is part of the fingerprint and of the comparison of options."""
    pretrained("aisfx")
    config = dataclasses.replace(CONFIG, slices=0, embeddings="aisfx")
    options = BuildOptions(workers=2, min_shards=1)
    made = build(audio, tmp_path / "set", config, options)
    assert made["config"]["embeddings"] == "aisfx 0.1.2-bfe219950715-r1"
    opened = open_set(tmp_path / "set")
    view = opened.view("val", "full")
    assert np.array_equal(opened.fields["aisfx.npy"]["shape"], [1536])
    expected = Embedder("aisfx")([decode(audio / view.meta(0)["path"], 44_100).samples], [[Span(0.0, 0.4)]])
    assert np.allclose(view.gather([0], ["aisfx.npy"])["aisfx.npy"], expected[0], atol=1e-4)
    assert build(audio, tmp_path / "set", config, options)["set_id"] == made["set_id"]  # nothing to do
    with pytest.raises(UsageError, match="other inputs or options: embeddings aisfx .* -> *"):
        build(audio, tmp_path / "set", dataclasses.replace(config, embeddings=""), options)


def test_bad_input_is_one_line(
    built: Path, audio: Path, tmp_path: Path, loudness: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="embedding must be one of .*, got vggish"):
        embed(built, audio, tmp_path / "new", ["vggish"])
    with pytest.raises(UsageError, match="embedding must be one of .*, got vggish"):
        dataclasses.replace(CONFIG, embeddings="vggish")
    embed(built, audio, tmp_path / "once", ["loudness"])
    with pytest.raises(UsageError, match="has the field loudness.npy already"):
        embed(tmp_path / "once", audio, tmp_path / "new", ["loudness"])
    copy = tmp_path / "audio"
    shutil.copytree(audio, copy)
    changed = next(copy.glob("*/*.wav"))
    write_clip(changed, 99)
    with pytest.raises(
        ShardwaveError, match=f"{changed.name} has changed since .* was built: build the set again"
    ):
        embed(built, copy, tmp_path / "new", ["loudness"])
    changed.unlink()
    with pytest.raises(ShardwaveError, match=f"{changed.name} cannot be read .*: give the folder that"):
        embed(built, copy, tmp_path / "new", ["loudness"])
    other = dataclasses.replace(CONFIG, embeddings="loudness r0")
    with pytest.raises(ShardwaveError, match="embedding loudness has version r1 here, r0 is needed"):
        build(audio, tmp_path / "new", other, BuildOptions(workers=1))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        ShardwaveError, match="the weights musicnn are not on this machine: run shardwave fetch musicnn"
    ):
        build(
            audio,
            tmp_path / "new",
            dataclasses.replace(CONFIG, embeddings="musicnn"),
            BuildOptions(workers=1),
        )


def test_strips_receive_the_vectors_of_all_their_views(
    built: Path, audio: Path, tmp_path: Path, loudness: None
) -> None:
    """Vectors of another clip or slice than in a set of views."""
    options = BuildOptions(layout="strip", workers=1, min_shards=3, val_fraction=0.25)
    without = tmp_path / "without"
    build(audio, without, CONFIG, options)
    embed(without, audio, tmp_path / "strips", ["loudness"])
    embed(built, audio, tmp_path / "views", ["loudness"])
    verify(open_set(tmp_path / "strips"))
    views, strips = open_set(tmp_path / "views"), open_set(tmp_path / "strips")
    assert strips.fingerprint == views.fingerprint and strips.is_strip
    one, other = (opened.view(opened.splits, "both") for opened in (views, strips))
    fields = ("npy", "loudness.npy")
    before, after = (view.gather(range(len(view)), fields) for view in (one, other))
    np.testing.assert_allclose(after["loudness.npy"], before["loudness.npy"], atol=1e-5)
    assert np.abs(after["npy"].astype(int) - before["npy"]).max() <= 1
