"""Classification of recordings window by window."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shardwave.cli import main_group
from shardwave.common.errors import ShardwaveError, TooManyBadInputs, UsageError
from shardwave.models.evaluation import audio_classifier
from shardwave.models.evaluation.intervals import Interval, merged
from shardwave.models.evaluation.predict import predict
from shardwave.models.evaluation.recordings import WindowOptions, predict_recordings

RATE = 22_050


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10.4 seconds: high, low for four seconds, high."""
    path, rng = tmp_path_factory.mktemp("recording") / "night, 1.flac", np.random.default_rng(0)
    time = np.arange(round(10.4 * RATE)) / RATE
    pitch = np.where((time >= 3) & (time < 7), 300, 4000)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.normal(size=len(time)), RATE)
    return path


@pytest.mark.parametrize("model", ["cnn", "mlp"])
@pytest.mark.parametrize("select_by", ["full", "slice_mean"])
def test_a_window_is_classified_as_a_file_with_its_samples(
    model: str,
    select_by: str,
    recording: Path,
    tone_run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches windows that are shifted, mixed up between batches, or seen by the wrong view."""
    monkeypatch.setattr("shardwave.models.evaluation.recordings.SAMPLES", 3 * RATE)
    monkeypatch.setattr(audio_classifier, "BATCH", 3 * 32 * 32)
    run = tone_run(model, select_by)
    result = predict_recordings(
        run, recording, tmp_path / "rows.csv", WindowOptions(1.5, 0.5, probabilities=True)
    )
    rows = read(tmp_path / "rows.csv")
    assert result["windows"] == result["rows"] == len(rows) == 19
    assert list(rows[0]) == ["path", "start", "end", "class", "probability", "high tone", "low"]
    assert [row["start"] for row in rows][:3] == ["0", "0.5", "1"] and rows[-1]["end"] == "10.4"
    samples, _ = soundfile.read(recording, dtype="float32")
    (tmp_path / "cut").mkdir()
    for number, row in enumerate(rows):
        start = round(float(row["start"]) * RATE)
        soundfile.write(
            tmp_path / f"cut/{number:02}.wav", samples[start:][: round(1.5 * RATE)], RATE, "FLOAT"
        )
    predict(run, tmp_path / "cut", tmp_path / "cut.csv", probabilities=True, device="cpu", workers=1)
    for row, clip in zip(rows, read(tmp_path / "cut.csv"), strict=True):
        assert float(row["low"]) == pytest.approx(float(clip["low"]), abs=1e-4)
        assert row["class"] == clip["class"]
        assert float(row["probability"]) == max(float(row["low"]), float(row["high tone"]))
    assert len({row["low"] for row in rows}) > 10


def test_merged_windows_show_where_the_sound_changes(
    recording: Path, tone_run: Callable[..., Path], tmp_path: Path
) -> None:
    options = WindowOptions(1, 0.5, merge=True)
    result = predict_recordings(tone_run("mlp"), recording, tmp_path / "rows.csv", options)
    rows = read(tmp_path / "rows.csv")
    assert [row["class"] for row in rows] == ["high tone", "low", "high tone"]
    assert (result["rows"], result["windows"], result["recordings"]) == (3, 20, 1)
    assert rows[0]["start"] == "0" and rows[-1]["end"] == "10.4"
    for row, (start, end) in zip(rows, ((0, 3), (3, 7), (7, 10.4)), strict=True):
        assert float(row["start"]) == pytest.approx(start, abs=1) and float(row["end"]) == pytest.approx(
            end, abs=1
        )
    assert result["times_real_time"] == pytest.approx(10.4 / result["seconds"], rel=0.01)


def test_a_merged_interval_has_the_mean_of_its_probabilities() -> None:
    values = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]
    intervals = [Interval(i, i + 2, np.array(row)) for i, row in enumerate(values)]
    first, second = merged(intervals)
    assert first[:2] == (0, 4) and second[:2] == (3, 5)
    np.testing.assert_allclose(first.probabilities, [0.7, 0.3])


def test_audacity_reads_one_label_file_per_recording(
    recording: Path, tone_run: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "audio/sub").mkdir(parents=True)
    for name in ("a.flac", "sub/b.flac"):
        (tmp_path / "audio" / name).write_bytes(recording.read_bytes())
    options = WindowOptions(1, 0.5, merge=True, format="audacity")
    predict_recordings(tone_run("mlp"), recording, tmp_path / "one.txt", options)
    predict_recordings(tone_run("mlp"), tmp_path / "audio", tmp_path / "labels", options)
    lines = [line.split("\t") for line in (tmp_path / "one.txt").read_text().splitlines()]
    assert [label for *_, label in lines] == ["high tone", "low", "high tone"]
    assert lines[0][0] == "0.000000" and float(lines[-1][1]) == pytest.approx(10.4, abs=1e-4)
    for name in ("a.flac.txt", "sub/b.flac.txt"):
        assert (tmp_path / "labels" / name).read_text() == (tmp_path / "one.txt").read_text()


def test_short_and_damaged_recordings_have_no_rows(
    recording: Path, tone_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of which the end cannot be decoded must not leave the rows of its beginning."""
    run, audio = tone_run("mlp"), tmp_path / "audio"
    audio.mkdir()
    (audio / "good.flac").write_bytes(recording.read_bytes())
    damaged = bytearray(recording.read_bytes())
    middle = 3 * len(damaged) // 4
    damaged[middle : middle + 20_000] = bytes(20_000)
    (audio / "damaged.flac").write_bytes(damaged)
    soundfile.write(audio / "short.wav", np.zeros(RATE), RATE)
    with pytest.raises(TooManyBadInputs, match="2 of 3 files could not be used"):
        predict_recordings(run, audio, tmp_path / "rows.csv", WindowOptions(2))
    shown = capsys.readouterr().err
    assert "short.wav: it lasts 1 s, less than --window 2: give a shorter --window" in shown
    assert "damaged.flac: " in shown
    assert {row["path"] for row in read(tmp_path / "rows.csv")} == {"good.flac"}
    with pytest.raises(UsageError, match="less than --window 2"):
        predict_recordings(run, audio / "short.wav", tmp_path / "none.csv", WindowOptions(2))
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "--window must be positive, in seconds, got 0"),
        ({"window": 3, "hop": 4}, "--hop must be positive and at most --window 3, got 4"),
        ({"window": 3, "hop": 0}, "--hop must be positive"),
        ({"window": 3, "format": "json"}, "--format must be one of csv, audacity, got json"),
        ({"window": 3, "format": "audacity", "probabilities": True}, "--probabilities needs --format csv"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        WindowOptions(**options)
    assert message in str(caught.value)


def test_the_command_refuses_options_that_do_not_fit_together(
    recording: Path, tone_run: Callable[..., Path], tone_set: Path, tmp_path: Path
) -> None:
    run, out = str(tone_run("mlp")), ["--out", str(tmp_path / "rows.csv")]

    def command(*arguments: str) -> None:
        main_group.main(["predict", run, *arguments, *out], standalone_mode=False)

    for arguments, message in (
        ((str(recording), "--merge"), "--merge needs --window"),
        ((str(recording), "--hop", "1"), "--hop needs --window"),
        ((str(tone_set), "--window", "1"), "--window needs a recording or a folder of recordings"),
        ((str(recording), "--window", "1", "--split", "val"), "--split cannot be used with --window"),
        ((str(tmp_path / "none.wav"), "--window", "1"), "none.wav does not exist"),
    ):
        with pytest.raises(ShardwaveError, match=message):
            command(*arguments)
    assert not (tmp_path / "rows.csv").exists()
    command(str(recording), "--window", "1", "--merge")
    assert len(read(tmp_path / "rows.csv")) == 3


MEASURE = """
import json, sys, threading
from shardwave.models.evaluation.recordings import WindowOptions, predict_recordings

def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1e3

peak, ended = 0.0, threading.Event()

def watch():
    global peak
    while not ended.wait(0.02):
        peak = max(peak, private())

before = private()
thread = threading.Thread(target=watch)
thread.start()
result = predict_recordings(*sys.argv[1:4], WindowOptions(3, 3), "cpu")
ended.set()
thread.join()
print(json.dumps({"before": before, "peak": peak, **result}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_an_hour_needs_as_little_memory_as_a_minute(tone_run: Callable[..., Path], tmp_path: Path) -> None:
    """Memory of the process that is not a mapped file, in MB; an hour of samples alone would be 318 MB."""
    minute = (np.random.default_rng(0).uniform(-0.3, 0.3, 8_000 * 60) * 32_767).astype(np.int16)
    peaks = {}
    for minutes in (1, 60):
        path = tmp_path / f"{minutes} minutes.wav"
        with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        command = [sys.executable, "-c", MEASURE, str(tone_run("cnn")), str(path), str(tmp_path / "rows.csv")]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(process.stdout)
        assert result["windows"] == 20 * minutes == len(read(tmp_path / "rows.csv"))
        peaks[minutes] = result["peak"]
    assert peaks[60] < 500
    assert peaks[60] < peaks[1] + 50
