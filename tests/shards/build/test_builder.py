from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from shardwave.common.errors import ShardwaveError, TooManyBadInputs, UsageError
from shardwave.preprocess.audio.decode import decode
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.dsp.features import feature_names
from shardwave.preprocess.engines.registry import make_engine
from shardwave.shards.build import folder, plan
from shardwave.shards.build.builder import BuildOptions, build
from shardwave.shards.build.executors import LocalExecutor
from shardwave.shards.build.shard_task import ShardTasks
from shardwave.shards.build.worker import BuildSpec
from shardwave.shards.format.layout import BUILD, LOCK
from shardwave.shards.format.verify import verify
from shardwave.shards.inspect import lookup
from shardwave.shards.read.open_set import open_set
from tests.shards.conftest import CONFIG, RATE, labelled, write_clip


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every shard's files."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*-*-*.*"))
    }


def test_what_is_built_is_what_the_engine_makes(built: Path, audio: Path) -> None:
    opened = open_set(built)
    engine = make_engine("numba", "cpu", CONFIG)
    assert opened.classes == ["class 0", "class 1", "class 2"] and opened.splits == ["train", "val"]
    assert opened.views == ["full", "slice"] and opened.config == CONFIG
    seen = set()
    for split in opened.splits:
        full, slices = opened.view(split, "full"), opened.view(split, "slice")
        for i in range(len(full)):
            meta = full.meta(i)
            made = engine([decode(audio / meta["path"], RATE).samples])
            assert (full.gather([i])["npy"][0] == made.full[0]).all()
            rows = np.flatnonzero(slices.clip == full.clip[i])
            assert (slices.gather(rows)["npy"] == made.slices[0]).all()
            assert opened.classes[full.cls[i]] == meta["label"] == meta["path"].split("/")[0]
            assert [slices.meta(row)["slice"] for row in rows] == [0, 1, 2] and (
                slices.cls[rows] == full.cls[i]
            ).all()
            known = {
                "group": None,
                "fold": None,
                "view": "full",
                "slice": None,
                "start": 0.0,
                "length": 0.4,
                "source_rate": RATE,
            }
            assert meta == {"label": meta["label"], "path": meta["path"], **known}
            seen.add(meta["path"])
    assert seen == {str(path.relative_to(audio)) for path in audio.rglob("*.wav")}
    third = opened.view("val", "slice").meta(2)
    assert (third["start"], third["length"]) == (
        17 * 128 / RATE,
        9 * 128 / RATE,
    )  # 26 frames: slices of 8, 9 and 9


def test_the_manifest_says_what_is_there(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert (
        manifest["clips"] == 24
        and manifest["quarantined"] == 0
        and manifest["audio_seconds"] == pytest.approx(24 * 0.4)
    )
    assert manifest["fields"]["npy"] == {"dtype": "uint8", "shape": [32, 32]}
    assert set(manifest["fields"]) == {"npy", "cls", "json"}
    for split, views in manifest["splits"].items():
        for view, shards in views.items():
            assert [shard["file"] for shard in shards] == [f"{split}-{view}-{i:04d}.tar" for i in range(3)]
            for shard in shards:
                builder = manifest["builders"][shard["builder"]]
                assert (
                    builder["engine"] == "numba"
                    and builder["device"] == "cpu"
                    and "numpy" in builder["versions"]
                )
                assert builder["cpu_capability"] in ("AVX512", "AVX2", "baseline")
    assert manifest["environment"]["python"] and (built / "quarantine.jsonl").read_text() == ""
    assert sorted(path.name for path in built.iterdir() if path.name.startswith(".")) == [LOCK]
    assert verify(open_set(built))["samples"] == 24 * 4


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(built: Path, audio: Path, tmp_path: Path) -> None:
    for workers in (1, 7):
        build(
            audio,
            tmp_path / f"{workers}",
            CONFIG,
            BuildOptions(workers=workers, min_shards=3, val_fraction=0.25),
        )
        assert digests(tmp_path / f"{workers}") == digests(built)


def test_threads_of_one_process_give_the_same_bytes(built: Path, audio: Path, tmp_path: Path) -> None:
    """As builds on a GPU do it."""
    tasks = ShardTasks(plan.read(built / "inputs.jsonl"))
    (tmp_path / BUILD).mkdir()
    shown: list[tuple[int, float, int, int]] = []
    executor = LocalExecutor(BuildSpec(audio, tmp_path, CONFIG, "numba", "cpu"), 4, threads=True)
    with contextlib.closing(executor):
        records = executor.run(tasks, lambda *counts: shown.append(counts))
    assert {record["task"] for record in records} == {task.name for task in tasks}
    assert digests(tmp_path) == digests(built)
    assert shown[-1] == (24, pytest.approx(24 * 0.4), 0, 0)


def test_threads_end_where_a_shard_cannot_be_written(built: Path, audio: Path, tmp_path: Path) -> None:
    tasks = ShardTasks(plan.read(built / "inputs.jsonl"))
    executor = LocalExecutor(BuildSpec(audio, tmp_path / "nowhere", CONFIG, "numba", "cpu"), 4, threads=True)
    with contextlib.closing(executor), pytest.raises(ShardwaveError, match="nowhere could not be written"):
        executor.run(tasks, lambda *counts: None)


def test_awkward_names_get_keys_of_their_own_and_keep_their_paths(tmp_path: Path) -> None:
    names = [
        "a/blues.00000.wav",
        "a/blues.00001.wav",
        "b/blues.00000.wav",
        "b/spaces and, commas.wav",
        "a/Für Elise.wav",
        "b/日本.wav",
    ]
    for i, name in enumerate(names):
        write_clip(tmp_path / "audio" / name, i)
    build(
        tmp_path / "audio", tmp_path / "set", CONFIG, BuildOptions(workers=1, val_fraction=0.5, min_shards=1)
    )
    verify(open_set(tmp_path / "set"))
    opened = open_set(tmp_path / "set")
    view = opened.view(["train", "val"])
    assert sorted(view.meta(i)["path"] for i in range(6)) == sorted(names)
    assert len({view.key(i) for i in range(6)}) == 6
    clip, row = lookup.find(opened, view.key(3))
    assert clip.meta(row) == view.meta(3)


@pytest.mark.slow
def test_features_and_folds(tmp_path: Path, audio: Path) -> None:
    config = dataclasses.replace(CONFIG, features=True, slices=2)
    paths = sorted(str(path.relative_to(audio)) for path in audio.rglob("*.wav"))
    rows = [f"{path},{path[:7]},{i % 3 + 1},g{i}" for i, path in enumerate(paths)]
    labels = labelled(tmp_path / "l", rows, "path,label,fold,group")
    build(audio, tmp_path / "set", config, BuildOptions(labels=labels, workers=1, min_shards=1))
    verify(open_set(tmp_path / "set"))
    opened = open_set(tmp_path / "set")
    assert opened.splits == ["fold1", "fold2", "fold3"] and opened.feature_names == feature_names(config)
    engine = make_engine("numba", "cpu", config)
    view = opened.view("fold2", "slice")
    meta = view.meta(5)
    made = engine([decode(audio / meta["path"], RATE).samples])
    assert made.features is not None
    got = view.gather([5], ("npy", "features.npy"))
    assert (got["features.npy"][0] == made.features[0][1 + meta["slice"]]).all()
    assert (got["npy"][0] == made.slices[0][meta["slice"]]).all() and meta["fold"] == 2


def test_slices_of_a_given_length_and_none(tmp_path: Path) -> None:
    for i in range(4):
        write_clip(tmp_path / "audio" / "ab"[i % 2] / f"{i}.wav", i, seconds=0.2 + 0.3 * i)
    build(
        tmp_path / "audio",
        tmp_path / "long",
        dataclasses.replace(CONFIG, slice_seconds=0.25),
        BuildOptions(workers=1, val_fraction=0.5),
    )
    opened = open_set(tmp_path / "long")
    view = opened.view(["train", "val"], "slice")
    counts = {
        opened.view(["train", "val"]).meta(i)["path"]: int((view.clip == clip).sum())
        for i, clip in enumerate(opened.view(["train", "val"]).clip)
    }
    assert counts == {"a/0.wav": 1, "b/1.wav": 2, "a/2.wav": 3, "b/3.wav": 4}
    verify(open_set(tmp_path / "long"))
    build(
        tmp_path / "audio",
        tmp_path / "none",
        dataclasses.replace(CONFIG, slices=0),
        BuildOptions(workers=1, val_fraction=0.5),
    )
    assert open_set(tmp_path / "none").views == ["full"]
    with pytest.raises(UsageError, match="has no slice view"):
        open_set(tmp_path / "none").view("train", "slice")


def test_bad_files_are_quarantined_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = tmp_path / "audio"
    for i in range(16):
        write_clip(audio / "ab"[i % 2] / f"{i:02d}.wav", i)
    (audio / "a" / "empty.wav").touch()
    (audio / "a" / "text.wav").write_text("no audio at all")
    (audio / "b" / "README.md").write_text("passed over")
    (audio / "b" / "broken link.wav").symlink_to(tmp_path / "nowhere")
    options = BuildOptions(workers=2, min_shards=2, val_fraction=0.25)
    with pytest.raises(TooManyBadInputs, match="3 of 19 clips were quarantined") as caught:
        build(audio, tmp_path / "set", CONFIG, options)
    assert caught.value.exit_status == 3
    entries = [json.loads(line) for line in (tmp_path / "set" / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["path"] for entry in entries] == ["a/empty.wav", "a/text.wav", "b/broken link.wav"]
    assert all(entry["reason"] and "\n" not in entry["reason"] for entry in entries)
    assert verify(open_set(tmp_path / "set"))["clips"] == 16  # finished all the same
    assert "3 quarantined" in capsys.readouterr().err
    with pytest.raises(TooManyBadInputs):  # nothing to do, and still too many
        build(audio, tmp_path / "set", CONFIG, options)
    assert (
        build(audio, tmp_path / "set", CONFIG, dataclasses.replace(options, max_bad_fraction=0.2))[
            "quarantined"
        ]
        == 3
    )


def test_a_folder_without_one_usable_file(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "audio" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "audio" / "ab"[i % 2] / f"{i}.wav").touch()
    with pytest.raises(
        ShardwaveError, match=r"every clip was quarantined \(4 of 4 in all\), such as a/0.wav: empty file"
    ):
        build(tmp_path / "audio", tmp_path / "set", CONFIG, BuildOptions(workers=1, val_fraction=0.5))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda audio: None, "AUDIO must be a folder"),
        (lambda audio: audio.mkdir(), "contains no audio files"),
        (
            lambda audio: [write_clip(audio / "one" / f"{i}.wav", i) for i in range(4)],
            "at least two classes, got one: 'one'",
        ),
        (lambda audio: write_clip(audio / "a.wav", 0), "are directly in"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, make, told: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "audio")
    with pytest.raises(UsageError, match=told):
        build(tmp_path / "audio", tmp_path / "set", CONFIG, BuildOptions(workers=1))
    assert not (tmp_path / "set").exists()


def test_running_it_again_does_nothing_and_says_so(
    built: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(built, tmp_path / "set")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("*.*")}
    shutil.copytree(audio, tmp_path / "audio")
    for path in (tmp_path / "audio").rglob("*.wav"):
        os.utime(path, (1, 1))  # the same bytes at another time
    for options in (
        BuildOptions(workers=5, min_shards=3, val_fraction=0.25),
        BuildOptions(min_shards=3, val_fraction=0.25, engine="numba"),
    ):
        manifest = build(tmp_path / "audio", tmp_path / "set", CONFIG, options)
        assert manifest == json.loads((built / "manifest.json").read_text())
        assert "is finished already: nothing to do" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").glob("*.*")} == before


OPTIONS = BuildOptions(workers=1, min_shards=3, val_fraction=0.25)


@pytest.mark.parametrize(
    ("config", "options", "told"),
    [
        (dataclasses.replace(CONFIG, image_size=64), OPTIONS, "image_size 32 -> 64"),
        (dataclasses.replace(CONFIG, slice_seconds=0.1), OPTIONS, "slice_seconds none -> 0.1"),
        (CONFIG, dataclasses.replace(OPTIONS, layout="strip"), "options: layout views -> strip"),
        (CONFIG, dataclasses.replace(OPTIONS, seed=1), "seed 0 -> 1"),
        (CONFIG, dataclasses.replace(OPTIONS, min_shards=2), "min_shards 3 -> 2"),
        (CONFIG, dataclasses.replace(OPTIONS, val_fraction=0.5), "val_fraction 0.25 -> 0.5"),
        (CONFIG, dataclasses.replace(OPTIONS, engine="reference"), "engine numba -> reference"),
    ],
)
def test_other_options_are_refused(
    built: Path, audio: Path, config: SpectrogramConfig, options: BuildOptions, told: str
) -> None:
    before = digests(built)
    with pytest.raises(UsageError) as caught:
        build(audio, built, config, options)
    assert told in str(caught.value) and "--overwrite" in str(caught.value)
    assert digests(built) == before


def test_the_default_layout_is_named_where_it_would_replace_another(audio: Path, tmp_path: Path) -> None:
    strips = dataclasses.replace(OPTIONS, layout="strip")
    manifest = build(audio, tmp_path / "set", CONFIG, strips)
    with pytest.raises(UsageError, match="inputs or options: layout strip -> views"):
        build(audio, tmp_path / "set", CONFIG, OPTIONS)
    assert build(audio, tmp_path / "set", CONFIG, strips) == manifest


def test_other_inputs_are_refused_with_what_changed(built: Path, audio: Path, tmp_path: Path) -> None:
    copy = tmp_path / "audio"
    shutil.copytree(audio, copy)

    def told() -> str:
        with pytest.raises(UsageError) as caught:
            build(copy, built, CONFIG, OPTIONS)
        return str(caught.value)

    path = copy / "class 1" / "clip.00004.wav"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)  # the same size
    assert "1 clip with other content (class 1/clip.00004.wav)" in told()
    path.write_bytes(data + b"\0\0")
    assert "1 clip with other content (class 1/clip.00004.wav)" in told()
    path.unlink()
    assert "1 clip removed (class 1/clip.00004.wav)" in told()
    write_clip(copy / "class 1" / "new.wav", 1)
    write_clip(copy / "class 1" / "newer.wav", 1)
    assert "2 clips added (class 1/new.wav, ...)" in told()
    rows = [
        f"{path.relative_to(audio)},{'xyz'[i % 3]}" for i, path in enumerate(sorted(audio.rglob("*.wav")))
    ]
    with pytest.raises(UsageError, match="24 clips with another label, group, fold or split"):
        build(audio, built, CONFIG, dataclasses.replace(OPTIONS, labels=labelled(copy, rows)))


def test_overwriting_replaces_the_set_and_nothing_else(built: Path, audio: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "set")
    (tmp_path / "set" / "notes.txt").write_text("mine")
    (tmp_path / "set" / "other-full-0000.tar").write_text("mine")
    (tmp_path / "set" / "train-full-0099.tar").write_text("not of this set")
    config = dataclasses.replace(CONFIG, slices=0, image_size=16)
    build(audio, tmp_path / "set", config, dataclasses.replace(OPTIONS, min_shards=1, overwrite=True))
    verify(open_set(tmp_path / "set"))
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == sorted(
        [
            LOCK,
            "inputs.jsonl",
            "manifest.json",
            "notes.txt",
            "other-full-0000.tar",
            "quarantine.jsonl",
            "train-full-0099.tar",
        ]
        + [
            f"{split}-full-0000{suffix}"
            for split in ("train", "val")
            for suffix in (".tar", ".index", ".idx")
        ]
    )


def test_overwriting_that_was_killed_goes_on(built: Path, audio: Path, tmp_path: Path) -> None:
    """It removes the manifest first, having noted which files are the set's."""
    out = tmp_path / "set"
    shutil.copytree(built, out)
    state = folder.examine(out)
    folder.remove(out, state)
    assert [path.name for path in out.iterdir()] == [LOCK]
    shutil.rmtree(out)
    shutil.copytree(built, out)
    (out / BUILD).mkdir()
    (out / BUILD / "written.txt").write_text("".join(f"{path.stem}\n" for path in sorted(out.glob("*.tar"))))
    for name in ("manifest.json", "quarantine.jsonl", "train-full-0000.tar"):
        (out / name).unlink()
    with pytest.raises(UsageError, match="holds an unfinished set that was not built from audio"):
        build(audio, out, CONFIG, OPTIONS)
    build(
        audio,
        out,
        dataclasses.replace(CONFIG, slices=0),
        dataclasses.replace(OPTIONS, min_shards=1, overwrite=True),
    )
    assert verify(open_set(out))["shards"] == 2 and len(list(out.glob("*.tar"))) == 2


def test_a_folder_that_holds_something_else_is_refused(audio: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds something else .*thesis.tex"):
            build(audio, tmp_path / "set", CONFIG, dataclasses.replace(OPTIONS, overwrite=overwrite))
    (tmp_path / "set" / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(UsageError, match="holds something else .*not the manifest of a shard set"):
        build(audio, tmp_path / "set", CONFIG, dataclasses.replace(OPTIONS, overwrite=True))
    with pytest.raises(UsageError, match="--out must be a folder"):
        build(audio, tmp_path / "set" / "thesis.tex", CONFIG, OPTIONS)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["manifest.json", "thesis.tex"]


def test_shards_stay_near_the_size_asked_for(audio: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, image_size=256, slices=2)  # 24 clips x 2 slices x 68 kB
    build(
        audio,
        tmp_path / "set",
        config,
        BuildOptions(workers=1, shard_mb=0.5, min_shards=1, val_fraction=0.25),
    )
    sizes = [path.stat().st_size for path in (tmp_path / "set").glob("*-slice-*.tar")]
    assert max(sizes) <= 0.6e6 and len(sizes) == 7
