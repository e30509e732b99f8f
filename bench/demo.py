"""The main job, once, on a small data set: audio → shards → training → two searches → report, with the seconds of each step."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardwave.preprocess.auto_config import AutoConfig

IMAGE_SIZE = 128
TRIALS = 12
SEARCH_EPOCHS = 10


def demo(
    out: Path | str, data: Path | str | None, labels: Path | str | None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run the whole way under `out` (synthetic genres, or the user's `data`) and return {report, seconds: {step: s}, scores}.

    Steps that an earlier run finished are kept, one that was interrupted goes on: running it again is always safe.
    Where the labels name folds, the lowest validates.
    """
    import shardwave.bench.report.page
    from shardwave.models.runs.result import read as read_result
    from shardwave.models.training.config import defaults
    from shardwave.models.training.train import train
    from shardwave.search.run import SearchConfig, search
    from shardwave.shards.build.builder import build
    from shardwave.shards.build.options import BuildOptions
    from shardwave.shards.format.verify import verify
    from shardwave.shards.read.open_set import open_set
    from shardwave.shards.sources import synthetic as genres

    out = Path(out)
    seconds: dict[str, float] = {}
    scores: dict[str, float] = {}

    def step(name: str, what: str, work: Callable[[], Any]) -> Any:
        say(f"{name}: {what}")
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 2)
        return result

    def run(name: str, what: str, work: Callable[..., dict[str, Any]]) -> None:
        folder = out / "runs" / name
        began = (folder / "result.json").exists()
        if began and (result := read_result(folder))["state"] == "COMPLETE":
            say(f"{name}: done in an earlier run, kept ({folder})")
        else:
            result = step(name, what, lambda: work(folder, resume=began))
        selected = result["selected_by"]
        value = result["best"]["value"] if "best" in result else result["scores"].get(f"val_{selected}_accuracy")
        scores[name] = value
        say(f"  validation accuracy {100 * value:.1f} % ({selected})")

    audio = out / "audio" if data is None else Path(data)
    if data is None:
        clips = len(genres.GENRES) * genres.ARTISTS * genres.CLIPS
        what = f"{clips} clips of {genres.SECONDS:.0f} s in {len(genres.GENRES)} synthetic genres"
        labels = step("audio", what, lambda: genres.make(audio))
    config = AutoConfig({"image_size": IMAGE_SIZE, "features": True})
    options = BuildOptions(labels=labels, max_bad_fraction=1.0)  # a first look goes on without what is set aside, and says so
    shard_set = out / "set"
    finished = (shard_set / "manifest.json").exists()
    manifest = step("shards", f"spectrograms, slices and features of {audio}", lambda: build(audio, shard_set, config, options))
    rate = "" if finished else f", {manifest['audio_seconds'] / seconds['shards']:,.0f} x real time"
    aside = f" ({shard_set / 'quarantine.jsonl'} says why)" if manifest["quarantined"] else ""
    say(f"  {manifest['clips']} clips, {manifest['quarantined']} quarantined{aside}{rate}")
    step("verify", "every checksum and sample", lambda: verify(open_set(shard_set)))
    folds = sorted(int(name.removeprefix("fold")) for name in manifest["splits"] if name.startswith("fold"))
    val_fold = folds[0] if folds else None
    if folds:
        say(f"  labels name folds {', '.join(map(str, folds))}: validating on fold {val_fold}")
    plain = {"schedule": "none", "dropout": 0.3, "weight_decay": 1e-4, "label_smoothing": 0.0, "time_shift": False}
    plain |= {"epochs": 6, "ema_decay": 0.0}  # the defaults are for more epochs
    config_cnn = defaults("cnn", **plain, val_fold=val_fold)
    run("cnn", "the report's two-convolution network", functools.partial(train, shard_set, config_cnn))
    for backend in ("ray", "optuna"):
        tuned = SearchConfig(model="mlp", backend=backend, trials=TRIALS, epochs=SEARCH_EPOCHS, val_fold=val_fold)
        what = f"{TRIALS} trials of the MLP, up to {SEARCH_EPOCHS} epochs each, scheduled by {backend}"
        run(f"mlp-{backend}", what, functools.partial(search, shard_set, tuned))
    page = out / "report.html"
    step("report", str(page), lambda: shardwave.bench.report.page.write([out / "runs" / name for name in scores], page))
    say("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    say(f"Open {page}")
    return {"report": str(page), "seconds": seconds, "scores": scores}
