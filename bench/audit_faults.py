"""Planted faults: number of copies and wrong labels that an audit finds, and the score after their repair.

    python -m shardwave.bench.audit_faults esc10 --labels esc10/labels.csv --work runs/audit-faults
    python -m shardwave.bench.audit_faults --vectors 100000

A copy of the data set receives near copies of some clips (other level, bit rate, format, offset and length)
in other folds, and wrong labels on other clips. The audit sees neither list. Pairs that it finds and that
were not planted are judged by the correlation of their waveforms, which the audit does not use.
`--vectors` measures the search for similar pairs on generated vectors instead.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from shardwave.bench.audit import CSV, GROUPS, audit
from shardwave.bench.harness.record import Record, append
from shardwave.common.csv_text import csv_bytes
from shardwave.common.messages import say
from shardwave.models.training.config import defaults
from shardwave.models.training.train import train
from shardwave.preprocess.auto_config import AutoConfig, preset_values
from shardwave.shards import sources
from shardwave.shards.audit.neighbours import DIMENSIONS, similar_pairs
from shardwave.shards.audit.sound import LIMITS
from shardwave.shards.build.builder import build
from shardwave.shards.build.options import BuildOptions
from shardwave.shards.clip import Clip
from shardwave.shards.storage.atomic import write_bytes

COPIES = FLIPS = 20
FIRST = 25  # suggestions among which wrong labels are counted
RELATED = 0.3  # waveform correlation of clips that share a recording
# Suffix, format, subtype and compression level (0 to 1) of the copies
FORMATS = (
    ("mp3", "MP3", "MPEG_LAYER_III", 0.9), ("mp3", "MP3", "MPEG_LAYER_III", 0.5),
    ("ogg", "OGG", "VORBIS", 0.9), ("wav", "WAV", "PCM_16", None), ("flac", "FLAC", "PCM_16", None),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Planted:
    """Faults of a data set.

    Args:
        copies: Path of the original by path of the copy.
        labels: True label by path of a clip with a wrong one.
    """

    copies: dict[str, str]
    labels: dict[str, str]


def plant(
    audio: Path, clips: Sequence[Clip], out: Path, copies: int = COPIES, flips: int = FLIPS, seed: int = 0
) -> Planted:
    """Write a copy of a data set with faults, and its labels.csv.

    Args:
        audio: Folder of the audio files; they are linked, not copied.
        clips: The clips, with labels and folds.
        out: New folder.
        copies: Number of near copies: 3 to 20 dB quieter, the first 0.05 to 0.5 s and the last 0 to 0.5 s cut
            off, in one of `FORMATS`, in another fold and a group of its own.
        flips: Number of clips that get another label; none of them is copied.
        seed: Seed of all choices.
    """
    generator = np.random.default_rng(seed)
    out.mkdir(parents=True)
    for clip in clips:
        (out / clip.path).parent.mkdir(parents=True, exist_ok=True)
        (out / clip.path).symlink_to((audio / clip.path).resolve())
    chosen = [clips[row] for row in generator.choice(len(clips), copies + flips, replace=False)]
    labels = sorted({clip.label for clip in clips if clip.label is not None})
    folds = sorted({clip.fold for clip in clips if clip.fold is not None})
    wrong = {
        clip.path: str(generator.choice([label for label in labels if label != clip.label]))
        for clip in chosen[copies:]
    }
    rows = [
        (clip.path, wrong.get(clip.path, clip.label), clip.fold, clip.group or clip.path) for clip in clips
    ]
    planted = {}
    for number, clip in enumerate(chosen[:copies]):
        suffix, kind, subtype, compression = FORMATS[number % len(FORMATS)]
        samples, rate = soundfile.read(audio / clip.path, dtype="float32")
        begin, end = generator.uniform(0.05, 0.5), generator.uniform(0, 0.5)
        level = 10 ** (-generator.uniform(3, 20) / 20)
        path = f"{Path(clip.path).parent.as_posix()}/planted {number}.{suffix}"
        options = {} if compression is None else {"compression_level": compression}
        cut = samples[int(begin * rate) : len(samples) - int(end * rate)]
        soundfile.write(out / path, level * cut, rate, format=kind, subtype=subtype, **options)
        other = int(generator.choice([fold for fold in folds if fold != clip.fold]))
        rows.append((path, clip.label, other, f"planted {number}"))
        planted[path] = clip.path
    write_bytes(out / "labels.csv", csv_bytes([("path", "label", "fold", "group"), *rows]))
    return Planted(planted, {clip.path: str(clip.label) for clip in chosen[copies:]})


def measure(audio: Path, labels: Path, work: Path, model: str = "mlp", seed: int = 0) -> dict[str, Any]:
    """Plant faults, audit, repair, and score the sets by cross-validation.

    Args:
        audio: Folder of the audio files.
        labels: CSV file of their labels and folds.
        work: New folder for sets and runs.
        model: Model that is cross-validated.
        seed: Seed of the faults and of the trainings.
    """
    clips = sources.discover(audio, BuildOptions(labels=labels))
    planted = plant(audio, clips, work / "faulty", seed=seed)
    before = _cross_validated(
        work / "faulty", work / "faulty" / "labels.csv", None, work, "before", model, seed
    )
    audit(work / "set-before", work / "audit", run=work / "run-before", audio=work / "faulty")
    with open(work / "audit" / CSV, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    copies = _copies(found, planted, work / "faulty")
    suggested = [row["path"] for row in found if row["finding"] == "label"]
    hits = [path for path in suggested[:FIRST] if path in planted.labels]
    corrected = _corrected(work / "faulty" / "labels.csv", planted, suggested)
    after = _cross_validated(work / "faulty", corrected, work / "audit" / GROUPS, work, "after", model, seed)
    clean = _cross_validated(audio, labels, None, work, "clean", model, seed)
    return {
        "clips": len(clips),
        **copies,
        "flipped": len(planted.labels),
        f"flipped_in_first_{FIRST}": len(hits),
        "suggestions": len(suggested),
        "flipped_found": sum(path in planted.labels for path in suggested),
        "accuracy": {"planted": before, "repaired": after, "clean": clean},
        "model": model,
        "seed": seed,
    }


def _cross_validated(
    audio: Path, labels: Path, groups: Path | None, work: Path, name: str, model: str, seed: int
) -> float:
    """Build a set, cross-validate a model on it, and return the test accuracy."""
    config = AutoConfig({**preset_values("sound"), "image_size": 128})
    build(audio, work / f"set-{name}", config, BuildOptions(labels=labels, groups=groups))
    run = train(work / f"set-{name}", defaults(model, folds="all", seed=seed), work / f"run-{name}")
    accuracy = run["scores"][f"test_{run['selected_by']}_accuracy"]
    assert accuracy is not None
    say(f"{name}: test accuracy {accuracy:.1%}")
    return accuracy


def _copies(found: Sequence[dict[str, str]], planted: Planted, audio: Path) -> dict[str, Any]:
    """Count the planted copies that were found, and judge the other pairs by their waveforms."""
    truth = {frozenset(pair) for pair in planted.copies.items()}
    pairs = {}
    for row in found:
        if "-copy" in row["finding"]:
            first = row["evidence"].removeprefix("of ").split(" (fold", 1)[0]
            pairs[frozenset((row["path"], first))] = row["evidence"]
    others: list[dict[str, Any]] = []
    for pair in [pair for pair in pairs if pair not in truth]:
        one, other = sorted(pair)
        correlation = waveform_correlation(audio / one, audio / other)
        others.append({"pair": [one, other], "evidence": pairs[pair], "waveform": round(correlation, 3)})
    return {
        "copies": len(truth),
        "copies_found": len(truth & pairs.keys()),
        "missed": [sorted(pair) for pair in truth - pairs.keys()],
        "other_pairs": others,
        "false_pairs": sum(other["waveform"] < RELATED for other in others),
    }


def waveform_correlation(one: Path, other: Path, rate: int = 22_050) -> float:
    """Return the greatest correlation coefficient of the samples of two files over all offsets.

    Only offsets count at which the files overlap by 30 % of the shorter one, with a fifth of the energy of
    each.

    Args:
        one: Audio file.
        other: Audio file.
        rate: Sample rate in Hz at which the files are compared.
    """
    from scipy import fft

    from shardwave.preprocess.audio.decode import decode

    first, second = (decode(path, rate, limits=LIMITS).samples.astype(np.float64) for path in (one, other))
    size = fft.next_fast_len(len(first) + len(second), real=True)
    correlation = fft.irfft(fft.rfft(first, size).conj() * fft.rfft(second, size), size)
    lags = np.arange(-(len(first) - 1), len(second))
    begin = np.maximum(0, -lags)
    end = np.minimum(len(first), len(second) - lags)
    totals = [np.concatenate([[0.0], np.cumsum(samples**2)]) for samples in (first, second)]
    energies = [totals[0][end] - totals[0][begin], totals[1][end + lags] - totals[1][begin + lags]]
    fits = end - begin > 0.3 * min(len(first), len(second))
    for energy, total in zip(energies, totals, strict=True):
        fits &= energy > 0.2 * total[-1]
    norm = np.sqrt(np.maximum(energies[0] * energies[1], 1e-12))
    return float(np.where(fits, np.abs(correlation[lags]) / norm, 0).max())


def _corrected(labels: Path, planted: Planted, suggested: Sequence[str]) -> Path:
    """Write a new label file with the suggested labels corrected that are wrong."""
    with open(labels, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    fixed = {path: planted.labels[path] for path in suggested if path in planted.labels}
    path = labels.with_name("corrected.csv")
    lines = [[row[0], fixed.get(row[0], row[1]), *row[2:]] for row in rows]
    write_bytes(path, csv_bytes([header, *lines]))
    return path


def search_vectors(count: int, seed: int = 0) -> dict[str, Any]:
    """Measure the search for similar pairs on vectors around 50 random centres.

    Args:
        count: Number of vectors.
        seed: Seed of the vectors.
    """
    generator = np.random.default_rng(seed)
    centres = 3 * generator.standard_normal((50, DIMENSIONS), np.float32)
    vectors = generator.standard_normal((count, DIMENSIONS), np.float32)
    vectors += centres[generator.integers(0, len(centres), count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    begin = time.perf_counter()
    pairs = similar_pairs(vectors)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000
    load = os.getloadavg()[0]
    return {"data": "generated vectors", "vectors": count, "pairs": len(pairs), "seconds": round(seconds, 1),
            "peak_mb": round(peak), "load_average": round(load, 1)}  # fmt: skip


def records_of(result: dict[str, Any], seed: int) -> list[Record]:
    """Return the records of a result of `measure` (with its `data`) or of `search_vectors`.

    Args:
        result: The result, which becomes the parameters of the first record.
        seed: Seed of the planted faults or of the vectors.
    """
    if "vectors" in result:
        return [
            Record(
                "audit", f"pairs of {result['vectors']:,} vectors", "ours", "s", [result["seconds"]], result
            )
        ]
    of = f"{result['data']}, seed {seed}"
    figures = {
        f"copies found among {result['copies']} planted: {of}": ("copies", result["copies_found"]),
        f"false pairs: {of}": ("pairs", result["false_pairs"]),
        f"flipped labels among the first 25 suggestions: {of}": ("labels", result["flipped_in_first_25"]),
        **{f"accuracy, {state}: {of}": ("accuracy", value) for state, value in result["accuracy"].items()},
    }
    return [
        Record("audit", case, "ours", unit, [value], {} if number else result)
        for number, (case, (unit, value)) in enumerate(figures.items())
    ]


def main() -> None:
    """Run the benchmark from the command line and append its record."""
    from shardwave.common import log

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path, nargs="?")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--vectors", type=int)
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench/results/audit-faults.jsonl"))
    chosen = parser.parse_args()
    log.set_up()
    if chosen.vectors is not None:
        record = search_vectors(chosen.vectors, chosen.seed)
    elif chosen.audio is None or chosen.labels is None or chosen.work is None:
        parser.error("give AUDIO, --labels and --work, or --vectors")
    else:
        record = measure(chosen.audio, chosen.labels, chosen.work, chosen.model, chosen.seed)
        record = {"data": chosen.audio.resolve().name, **record}
    for each in records_of(record, chosen.seed):
        append(chosen.out, each)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
