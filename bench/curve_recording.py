"""Record a table of learning curves: points of a model's space, trained to the end, nothing stopped.

`python -m bench.curve_recording SET OUT.jsonl MODEL CONFIGURATIONS EPOCHS [VAL_FOLD]` makes one for
`bench search --table OUT.jsonl`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import curves
from bench.curves import Row
from preprocess.errors import UsageError


def record(
    set_path: Path,
    out: Path,
    model: str = "mlp",
    configurations: int = 480,
    epochs: int = 20,
    val_fold: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train the first `configurations` points of the model's space (grid cells in turn, the rest drawn anew) on a shard set, one
    process per core, and write the table `out`; returns {table, configurations, best, seconds}."""
    from tqdm import tqdm

    from bench.pool import Pool
    from bench.replay import quiet
    from models.config import defaults
    from models.data import TrainingData
    from preprocess.environment import cores
    from search.space import space_for

    if out.exists():
        raise UsageError(f"{out} exists: name a new file")
    space = space_for(model)
    if configurations < len(space.cells()):
        raise UsageError(
            f"the space of {model} has {len(space.cells())} grid cells: record at least as many, got {configurations}"
        )
    config = defaults(model, epochs=epochs, val_fold=val_fold, device="cpu")
    data = TrainingData(set_path, config)
    points = [space.point(number, seed) for number in range(configurations)]
    start = time.perf_counter()
    pool = Pool(cores())
    try:
        job = pool.prepare(recording_setup, str(set_path), model, epochs, val_fold)
        found = pool.stream(job, list(enumerate(points)))
        rows = list(tqdm(found, total=configurations, desc="curves recorded", unit="training", disable=quiet()))
    finally:
        pool.close()
    about = {
        "model": model, "data": f"{set_path.name}, {len(data.train)} training samples ({data.train_view} view)",
        "score": f"val_{data.selected}_accuracy", "val_fold": val_fold, "fingerprint": data.source.fingerprint, "epochs": epochs,
        "seed": seed,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    curves.write(out, about, space, rows)
    best = max(max(row.values) for row in rows)
    return {"table": str(out), "configurations": len(rows), "best": best, "seconds": round(time.perf_counter() - start, 1)}


def recording_setup(set_path: str, model: str, epochs: int, val_fold: int | None) -> Callable[[tuple[int, dict[str, Any]]], Row]:
    """For a worker process: `work((number, params))` trains one configuration, with seed `number`."""
    import torch

    from models.config import defaults
    from models.data import TrainingData
    from models.fit import fit

    torch.set_num_threads(1)
    data = TrainingData(Path(set_path), defaults(model, epochs=epochs, val_fold=val_fold, device="cpu"))

    def work(task: tuple[int, dict[str, Any]]) -> Row:
        number, params = task
        start = time.process_time()  # of this process on its one thread: what else runs on the machine does not count
        result = fit(data, defaults(model, epochs=epochs, val_fold=val_fold, device="cpu", seed=number, **params))
        values = [entry[f"val_{data.selected}_accuracy"] for entry in result.history]
        return Row(params, values, (time.process_time() - start) / epochs)

    return work


if __name__ == "__main__":
    source, target, name, *numbers = sys.argv[1:]
    count, length, *fold = map(int, numbers)
    print(record(Path(source), Path(target), name, count, length, fold[0] if fold else None))
