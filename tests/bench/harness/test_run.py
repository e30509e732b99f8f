"""`bench throughput`: stages run, what is missing is listed, what breaks is said at the end; nothing
temporary is left."""

import subprocess
import sys

import pytest

from shardwave.bench.harness import run
from shardwave.bench.harness.record import FIELDS, read
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.stages import STAGES
from shardwave.common.errors import ShardwaveError, UsageError


def test_records_report_and_summary_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "shardwave.bench.stages.decode.FORMATS", {"WAV 16 bit": (".wav", "WAV", "PCM_16", 22_050, 1)}
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    out = tmp_path / "out"
    result = run.throughput(
        out, ["decode", "transfer"], quick=True, music=tmp_path / "no-music", folder=temporary
    )
    rows = read(out)
    assert (result["cases"], len(rows)) == (len(rows), result["cases"]) and result["skipped"] == sum(
        bool(row["skipped"]) for row in rows
    )
    assert all(tuple(row) == FIELDS for row in rows)
    decode = {row["role"]: row for row in rows if row["stage"] == "decode"}
    assert set(decode) == {"ours", "peer", "baseline", "limit"} and decode["ours"]["n"] >= 3
    assert decode["ours"]["of_limit"] == pytest.approx(
        decode["ours"]["median"] / decode["limit"]["median"], rel=1e-3
    )
    assert decode["limit"]["params"]["resource"] == "cache" and decode["limit"]["n"] == 1
    assert decode["ours"]["params"]["audio"].startswith("synthetic")
    assert {row["stage"] for row in rows} == {"decode", "transfer"}
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert list(temporary.iterdir()) == []
    assert "WAV 16 bit: decode" in capsys.readouterr().err
    with pytest.raises(UsageError, match="holds bench records already"):
        run.throughput(out, ["transfer"])


def test_a_failing_stage_is_reported_and_the_others_run(tmp_path, monkeypatch):
    def broken(scope):
        raise RuntimeError("it broke")

    monkeypatch.setattr("shardwave.bench.stages.decode.run", broken)
    with pytest.raises(
        ShardwaveError, match="decode .failed: RuntimeError: it broke.; the other stages' records are in"
    ):
        run.throughput(tmp_path / "out", ["decode", "transfer"], quick=True, music=tmp_path)
    rows = read(tmp_path / "out")
    assert [row["skipped"] for row in rows if row["stage"] == "decode"] == ["failed: RuntimeError: it broke"]
    assert any(row["stage"] == "transfer" for row in rows)


def test_an_unknown_stage_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="--stage must be one of decode, preprocess.*, got decoding"):
        run.throughput(tmp_path / "out", ["decoding"])
    assert not (tmp_path / "out").exists()


def test_stage_names_import_without_torch():
    code = (
        "import sys, shardwave.bench.harness.run; assert not {'torch', 'ray'} & set(sys.modules), "
        "sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_stage_is_a_file():
    import importlib

    assert all(callable(importlib.import_module(f"shardwave.bench.stages.{name}").run) for name in STAGES)


def test_missing_packages_name_the_remedy():
    assert missing("json", "bench") is None
    assert (
        missing("no_such_module", "bench")
        == "no_such_module is not installed: pip install 'shardwave[bench]'"
    )
    assert missing("no_such.module", "bench")


def test_a_scope_makes_its_audio_once(tmp_path):
    scope = Scope(tmp_path, clips=2, music=tmp_path / "none")
    assert scope.audio is scope.audio and len(scope.audio) == 2
    scope.close()
