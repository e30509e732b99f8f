"""`demo`: audio, shards, training, two searches and a report on a small data set."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.weights.catalogue import get
from shardwave.preprocess.weights.store import weights_path

IMAGE_SIZE = 128
TRIALS = 12
SEARCH_EPOCHS = 10
EMBEDDING = "aisfx"  # shown if its weights are on this machine


class Demonstration(TypedDict):
    """Results of `demo`."""

    report: str
    seconds: dict[str, float]  # by step
    scores: dict[str, float]  # validation accuracy by run


def demo(
    out: Path | str, data: Path | str | None, labels: Path | str | None, say: Callable[[str], None] = print
) -> Demonstration:
    """Run all steps and write their results under `out`.

    Steps that an earlier run finished are not repeated, and an interrupted step continues. If the labels name
    folds, the first fold is used for validation.

    Args:
        out: Folder of the results.
        data: Folder of audio; None is synthetic genres.
        labels: CSV file of labels; None is the class folders.
        say: Function that shows one message.

    Returns:
        The path of the report, the seconds by step, and the validation accuracy by run.
    """
    import shardwave.bench.report.page
    from shardwave.models.runs.records import RunResult
    from shardwave.models.runs.result import read as read_result
    from shardwave.models.training.config import defaults
    from shardwave.models.training.train import train
    from shardwave.search.config import SearchConfig
    from shardwave.search.run import search
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions
    from shardwave.shards.format.verify import verify
    from shardwave.shards.read.open_set import open_set
    from shardwave.shards.sources import synthetic as genres

    out = Path(out)
    seconds: dict[str, float] = {}
    scores: dict[str, float] = {}

    def step(name: str, description: str, work: Callable[[], Any]) -> Any:
        say(f"{name}: {description}")
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 2)
        return result

    def run(name: str, description: str, work: Callable[..., RunResult]) -> None:
        folder = out / "runs" / name
        started = (folder / "result.json").exists()
        if started and (result := read_result(folder))["state"] == "COMPLETE":
            say(f"{name}: finished by an earlier run in {folder}")
        else:
            result = step(name, description, lambda: work(folder, resume=started))
        selected = result["selected_by"]
        best = result.get("best")
        value = best["value"] if best else result["scores"].get(f"val_{selected}_accuracy")
        scores[name] = float("nan") if value is None else value
        say(f"  validation accuracy {100 * scores[name]:.1f} % ({selected})")

    audio = out / "audio" if data is None else Path(data)
    if data is None:
        clips = len(genres.GENRES) * genres.ARTISTS * genres.CLIPS
        description = f"{clips} clips of {genres.SECONDS:.0f} s in {len(genres.GENRES)} synthetic genres"
        labels = step("audio", description, lambda: genres.make(audio))
    config = AutoConfig({"image_size": IMAGE_SIZE, "features": True})
    options = BuildOptions(labels=labels, max_bad_fraction=1.0)  # a demonstration continues without bad files
    shard_set = out / "set"
    finished = (shard_set / "manifest.json").exists()
    manifest = step(
        "shards",
        f"spectrograms, slices and features of {audio}",
        lambda: build(audio, shard_set, config, options),
    )
    rate = "" if finished else f", {manifest['audio_seconds'] / seconds['shards']:,.0f} x real time"
    reasons = f" (see {shard_set / 'quarantine.jsonl'})" if manifest["quarantined"] else ""
    say(f"  {manifest['clips']} clips, {manifest['quarantined']} quarantined{reasons}{rate}")
    step("verify", "every checksum and sample", lambda: verify(open_set(shard_set)))
    folds = sorted(int(name.removeprefix("fold")) for name in manifest["splits"] if name.startswith("fold"))
    val_fold = folds[0] if folds else None
    if folds:
        say(f"  the labels name folds {', '.join(map(str, folds))}: fold {val_fold} validates")
    plain = {
        "schedule": "none",
        "dropout": 0.3,
        "weight_decay": 1e-4,
        "label_smoothing": 0.0,
        "time_shift": False,
    }
    plain |= {"epochs": 6, "ema_decay": 0.0}  # the defaults suit more epochs
    config_cnn = defaults("cnn", **plain, val_fold=val_fold)
    run("cnn", "a network of two convolutions", functools.partial(train, shard_set, config_cnn))
    for backend in ("ray", "optuna"):
        tuned = SearchConfig(
            model="mlp", backend=backend, trials=TRIALS, epochs=SEARCH_EPOCHS, val_fold=val_fold
        )
        description = f"{TRIALS} trials of the MLP, up to {SEARCH_EPOCHS} epochs each, scheduled by {backend}"
        run(f"mlp-{backend}", description, functools.partial(search, shard_set, tuned))
    if weights_path(get(EMBEDDING)).exists():  # the demonstration needs no network, and works without them
        vectors = out / f"set-{EMBEDDING}"
        whole = AutoConfig({"image_size": IMAGE_SIZE, "slices": 0, "embeddings": EMBEDDING})
        description = f"outputs of the pretrained network {EMBEDDING}, whose weights are on this machine"
        step(EMBEDDING, description, lambda: build(audio, vectors, whole, options))
        head = defaults("mlp", inputs=EMBEDDING, val_fold=val_fold)
        run(f"mlp-{EMBEDDING}", "a head on these outputs", functools.partial(train, vectors, head))
    else:
        say(f"Transfer learning: run shardwave fetch {EMBEDDING}, then the demo again, to see it too")
    page = out / "report.html"
    step(
        "report",
        str(page),
        lambda: shardwave.bench.report.page.write([out / "runs" / name for name in scores], page),
    )
    say("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    say(f"Open {page}")
    return {"report": str(page), "seconds": seconds, "scores": scores}
