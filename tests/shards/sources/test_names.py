"""Files that are no files, folders that cannot be read, and names that hold whatever a name may hold."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.common import regular_file
from shardwave.common.csv_text import csv_bytes
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.preprocess.audio import decode
from shardwave.shards.build import plan
from shardwave.shards.build.builder import BuildOptions, build, build_table
from shardwave.shards.build.shard_task import ShardTasks
from shardwave.shards.build.worker import Builder, BuildSpec
from shardwave.shards.clip import Clip
from shardwave.shards.format.layout import BUILD
from shardwave.shards.inspect.compare_audio import compare
from shardwave.shards.quarantine import quarantined
from shardwave.shards.read.open_set import open_set
from shardwave.shards.sources import class_folders
from tests.shards.conftest import CONFIG, write_clip

NAMES = (
    " leading.wav", "trailing .wav", "comma, quote\".wav", "new\nline.wav",
    "carriage\rreturn.wav", "both\r\n.wav", "-dash.wav", "line\u2028separator.wav", "next\x85line.wav",
    "esc\x1b[31m.wav", "na\u00efve.wav", "=1+1.wav", "'.wav",
    os.fsdecode(b"not utf-8 \xff\xe9.wav"),
)  # fmt: skip


def specials(folder: Path) -> list[str]:
    """Create a pipe, a socket, a device, and links to them, to nothing and to itself; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "pipe.wav")
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # paths of sockets are short
    listening.bind("socket.wav")
    os.chdir(here)
    listening.close()
    links = {
        "to-pipe.wav": "pipe.wav",
        "to-device.wav": "/dev/zero",
        "dangling.wav": "nowhere",
        "itself.wav": "itself.wav",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return ["pipe.wav", "socket.wav", *links]


def small(folder: Path, classes: str = "ab", clips: int = 3) -> Path:
    for number, name in enumerate(classes):
        for clip in range(clips):
            write_clip(folder / name / f"{clip}.wav", 10 * number + clip)
    return folder


ALL = BuildOptions(workers=1, min_shards=1, max_bad_fraction=1.0, val_fraction=0.4)


@pytest.mark.parametrize("how", ["folders", "labels"])
def test_what_is_no_file_is_quarantined_and_waited_for_by_nobody(tmp_path: Path, how: str) -> None:
    audio = small(tmp_path / "audio")
    names = specials(audio / "a")
    options = ALL
    if how == "labels":
        paths = [f"a/{name}" for name in names] + [f"{name}/{clip}.wav" for name in "ab" for clip in range(3)]
        (tmp_path / "l.csv").write_bytes(csv_bytes([["path", "label"], *([path, path[0]] for path in paths)]))
        options = BuildOptions(
            labels=tmp_path / "l.csv", workers=1, min_shards=1, max_bad_fraction=1.0, val_fraction=0.4
        )
    for _ in range(2):  # and when the set is compared with its inputs again
        made = build(audio, tmp_path / "set", CONFIG, options)
    assert made["clips"] == 6 and made["quarantined"] == 6
    reasons = {entry["path"]: entry["reason"] for entry in quarantined(tmp_path / "set")}
    assert sorted(reasons) == sorted(f"a/{name}" for name in names)
    for name in ("pipe", "socket", "to-pipe", "to-device"):
        assert reasons[f"a/{name}.wav"] == "not a regular file"
    assert "does not exist" in reasons["a/dangling.wav"] and "symbolic links" in reasons["a/itself.wav"]


def test_headers_are_read_of_regular_files_only(tmp_path: Path) -> None:
    """The plan reads headers where slices have a length in seconds."""
    import dataclasses

    audio = small(tmp_path / "audio")
    specials(audio / "b")
    config = dataclasses.replace(CONFIG, slices=0, slice_seconds=0.2)
    assert build(audio, tmp_path / "set", config, ALL)["quarantined"] == 6


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(
        os, "stat", lambda path: os.lstat(__file__)
    )  # as if it had been a file a moment before
    with pytest.raises(OSError, match="not a regular file"):
        regular_file.read_bytes(tmp_path / "pipe")
    with pytest.raises(decode.BadAudio, match="not a regular file"):
        decode.decode(tmp_path / "pipe", 8_000)


def test_tables_and_label_files_must_be_files(tmp_path: Path) -> None:
    audio = small(tmp_path / "audio")
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(audio / "labels.csv")
    with pytest.raises(UsageError, match="--labels must be a regular file, got .*pipe.csv"):
        build(audio, tmp_path / "set", CONFIG, BuildOptions(labels=tmp_path / "pipe.csv"))
    with pytest.raises(UsageError, match="--table must be a regular file, got .*pipe.csv"):
        build_table(tmp_path / "pipe.csv", tmp_path / "set")
    assert build(audio, tmp_path / "set", CONFIG, ALL)["clips"] == 6  # that labels.csv is none
    write_clip(audio / "loose.wav", 5)
    os.mkfifo(audio / "other.csv")
    with pytest.raises(UsageError, match="are directly in"):
        build(audio, tmp_path / "set2", CONFIG, ALL)


@pytest.mark.parametrize("kind", ["unreadable folder", "unreadable file"])
def test_permissions(tmp_path: Path, kind: str) -> None:
    """Run as another user where this one may read everything."""
    audio = small(tmp_path / "audio")
    hidden = audio / "c" if kind == "unreadable folder" else audio / "b" / "0.wav"
    if kind == "unreadable folder":
        write_clip(hidden / "0.wav", 1)
    hidden.chmod(0)
    program = (
        "import os, sys; from pathlib import Path; from shardwave.shards.sources import class_folders; "
        "from shardwave.preprocess.audio import decode\nos.getuid() or os.setuid(65534)\n"
        "try:\n"
        "    print(class_folders.audio_files(Path(sys.argv[1])))\n"
        "    decode.decode(sys.argv[2], 8000)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder) not in ("/", "/tmp"):
            folder.chmod(folder.stat().st_mode | 0o755)
    told = subprocess.run(
        [sys.executable, "-c", program, audio, hidden], capture_output=True, text=True, check=True
    ).stdout
    hidden.chmod(stat.S_IRWXU)
    if kind == "unreadable folder":
        assert "ShardwaveError" in told and f"{hidden}: the folder cannot be read (Permission denied)" in told
    else:
        assert "'b/0.wav'" in told and "BadAudio unreadable: Permission denied" in told


def test_links_that_lead_nowhere_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audio = small(tmp_path / "audio")
    (audio / "c").symlink_to(tmp_path / "unmounted")  # a whole class
    (audio / "aa").symlink_to(audio / "a")  # sorted after it: the class stays a, whatever the folder's order
    (audio / "b" / "up").symlink_to(audio)
    assert class_folders.audio_files(audio) == [f"{name}/{clip}.wav" for name in "ab" for clip in range(3)]
    told = capsys.readouterr().err
    assert "skipped c: it cannot be read\n" in told
    assert "skipped aa/ (and 1 more): it leads to a folder that is already listed" in told


def test_files_that_went_while_it_is_built_are_quarantined(tmp_path: Path) -> None:
    audio = small(tmp_path / "audio")
    clips = [Clip(path, path[0]) for path in class_folders.audio_files(audio)]
    (audio / "a" / "1.wav").unlink()
    made = build(audio, tmp_path / "set", CONFIG, ALL, clips)
    assert made["clips"] == 5
    assert quarantined(tmp_path / "set") == [{"path": "a/1.wav", "reason": "the file does not exist"}]


def test_the_file_that_was_read_is_named_when_building_processes_die(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of memory, or a defect of a decoder: without its name the same file would end every build."""
    audio = small(tmp_path / "audio")
    long = audio / "a" / "long.wav"
    soundfile.write(
        long, np.zeros(48_000 * 900, np.float32), 48_000, subtype="PCM_16"
    )  # seconds of resampling

    def kill() -> None:
        killed: set[int | None] = set()
        end = time.monotonic() + 60
        while time.monotonic() < end and len(killed) < 3:
            for child in multiprocessing.active_children():
                with contextlib.suppress(OSError):
                    links = [
                        os.readlink(f"/proc/{child.pid}/fd/{fd}")
                        for fd in os.listdir(f"/proc/{child.pid}/fd")
                    ]
                    if str(long) in links:
                        os.kill(child.pid or 0, signal.SIGKILL)
                        killed.add(child.pid)
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(
        ShardwaveError, match=r"was killed by signal 9 \(the last file it began to read: a/long.wav\)"
    ):
        build(audio, tmp_path / "set", CONFIG, ALL)
    killer.join()
    told = capsys.readouterr().err
    assert (
        told.count("(the last file it began to read: a/long.wav); built again: ") == 2
        and "Traceback" not in told
    )


def test_a_defect_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process that meets it: what a decoder or an engine raises unexpectedly says at which file."""
    audio = small(tmp_path / "audio", "a", 2)
    clips = [Clip(path) for path in class_folders.audio_files(audio)]
    planned = plan.make(clips, [], ["test"] * 2, audio, CONFIG, {"min_shards": 1, "shard_mb": 1.0, "seed": 0})
    (tmp_path / BUILD).mkdir()
    for defect, kind in ((ValueError("a defect"), RuntimeError), (MemoryError(), ShardwaveError)):

        def broken(*_: object, defect: Exception = defect, **__: object) -> None:
            raise defect

        monkeypatch.setattr("shardwave.preprocess.audio.decode.open_source", broken)
        with pytest.raises(kind, match="the last file it began to read: a/"):
            Builder(BuildSpec(audio, tmp_path, CONFIG, "reference", "cpu")).build(ShardTasks(planned)[0])


def test_every_name_survives(tmp_path: Path) -> None:
    """The names in the set, its quarantine and the comparison with the inputs lead back to the same file."""
    audio = tmp_path / "audio"
    for number, name in enumerate(NAMES):
        for folder in (f"a{NAMES[-1]}", "b\u2028"):
            (audio / folder).mkdir(parents=True, exist_ok=True)
            write_clip(tmp_path / "x.wav", number)  # libsndfile takes no such names
            os.rename(tmp_path / "x.wav", audio / folder / name)
        (audio / "b\u2028" / f"bad {name}").write_bytes(b"none")
    for _ in range(2):
        made = build(audio, tmp_path / "set", CONFIG, ALL)
    assert (made["clips"], made["quarantined"]) == (2 * len(NAMES), len(NAMES))
    opened = open_set(tmp_path / "set")
    assert opened.classes == [f"a{NAMES[-1]}", "b\u2028"]
    view = opened.view(opened.splits)
    paths = [view.meta(i)["path"] for i in range(len(view))]
    assert sorted(paths) == sorted(f"{folder}/{name}" for folder in opened.classes for name in NAMES)
    assert all((audio / path).is_file() for path in paths)
    bad = quarantined(tmp_path / "set")
    assert sorted(entry["path"] for entry in bad) == sorted(f"b\u2028/bad {name}" for name in NAMES)
    assert sorted(clip.path for clip in plan.read(tmp_path / "set" / "inputs.jsonl").clips.clips) == sorted(
        [*paths, *(entry["path"] for entry in bad)]
    )
    assert compare(tmp_path / "set", audio, clips=100)["verdict"] == "identical"


def test_csv_reads_back_as_written(tmp_path: Path) -> None:
    rows = [["path", "label"], *([name, name[::-1]] for name in NAMES), ["", "x"], ["a", ""]]
    (tmp_path / "x.csv").write_bytes(csv_bytes(rows))
    with open(tmp_path / "x.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert list(csv.reader(file)) == rows
    assert b"\r" not in csv_bytes([["a", "b"]]) and csv_bytes([["a b", 1]]) == b"a b,1\n"


def test_a_json_line_ends_at_a_newline_only(tmp_path: Path) -> None:
    (tmp_path / "quarantine.jsonl").write_text(
        json.dumps({"path": "a\u2028b\x85c", "reason": "r"}, ensure_ascii=False) + "\n"
    )
    assert quarantined(tmp_path) == [{"path": "a\u2028b\x85c", "reason": "r"}]
    with pytest.raises(ShardwaveError, match=r"inputs.jsonl.*--overwrite"):
        plan.read(tmp_path / "inputs.jsonl")
