"""Settings of a model compared on validation data, from which its defaults are chosen; no test fold is ever scored.

`python -m shardwave.bench.defaults OUT.jsonl MODEL NAME SET [SET ...] [--rounds N] [--seeds N] [--only TEXT]` appends a record per setting.
A set with folds gives a round per fold: that fold is left out altogether, the next one validates, the others are trained on. Of a
set without folds, `val` validates: several of them, drawn with other seeds, are several rounds. The accuracy is that of the last
epoch, so that no lucky epoch is chosen.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.harness.record import Record, append
from shardwave.bench.report.render import table as markdown_table
from shardwave.models.training.config import TrainConfig, defaults

STAGE, UNIT = "defaults", "accuracy"
BASE: dict[str, dict[str, Any]] = {  # what the settings below are changes of
    "mlp": {
        "train_view": "full", "batch_size": 32, "epochs": 60, "hidden_size": 512, "hidden_layers": 2, "dropout": 0.5,
        "learning_rate": 1e-3, "weight_decay": 0.05, "label_smoothing": 0.1, "mixup": 0.0,
    },
    "cnn": {"train_view": "full", "epochs": 15},
    "cnn-plus": {"train_view": "full", "epochs": 30},
}  # fmt: skip
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "mlp": [
        {},
        {"train_view": "slice"},
        {"train_view": "slice", "batch_size": 128},
        {"train_view": "slice", "batch_size": 256, "learning_rate": 3e-3},
        {"train_view": "both"},
        {"train_view": "both", "batch_size": 256, "learning_rate": 3e-3},
        *({"batch_size": size} for size in (16, 64, 128)),
        {"batch_size": 64, "learning_rate": 2e-3},
        {"batch_size": 128, "learning_rate": 3e-3},
        *({"epochs": epochs} for epochs in (20, 30, 100, 200)),
        *({"hidden_size": size} for size in (128, 256, 1024)),
        *({"hidden_layers": layers} for layers in (1, 3)),
        *({"dropout": dropout} for dropout in (0.0, 0.3, 0.7)),
        *({"learning_rate": rate} for rate in (3e-4, 3e-3)),
        *({"weight_decay": decay} for decay in (1e-4, 0.01, 0.2)),
        *({"label_smoothing": smoothing} for smoothing in (0.0, 0.2)),
        {"mixup": 0.3},
    ],
    "cnn": [{}, {"train_view": "slice"}, {"epochs": 150}, {"train_view": "both"}],
    "cnn-plus": [{}, {"train_view": "slice"}, {"epochs": 100}],
}  # fmt: skip


def compare(
    out: Path, model: str, name: str, sets: Sequence[Path], rounds: int | None = None, seeds: int = 3, only: str = ""
) -> Iterator[Record]:
    """Train every setting of `model` and append its record to `out`.

    Args:
        out: The records' file.
        model: One of BASE.
        name: What the data are called in the table.
        sets: Shard sets; see the module on rounds.
        rounds: At most this many of them.
        seeds: Trainings per setting and round, seeds 0 to seeds - 1.
        only: Settings whose text contains it.

    Yields:
        A record per setting; its repeats are the means over rounds, one per seed.
    """
    chosen = [(path, roles) for path in sets for roles in _rounds(path)][:rounds]
    for setting in SETTINGS[model]:
        if only not in describe(setting) or not _possible(sets[0], setting):
            continue
        accuracy: list[list[float]] = []
        spent = []
        for seed in range(seeds):
            accuracy.append([])
            for path, roles in chosen:
                begin = time.process_time()  # of this process: what else runs on the machine does not count
                accuracy[-1].append(_train(path, roles, defaults(model, **{**BASE[model], **setting}, seed=seed)))
                spent.append(time.process_time() - begin)
        params = {
            "model": model, "data": name, "setting": setting, "base": BASE[model], "rounds": len(chosen), "seeds": seeds,
            "per_round": [[round(value, 4) for value in row] for row in accuracy], "cpu_seconds": statistics.median(spent),
        }  # fmt: skip
        means = [statistics.mean(row) for row in accuracy]
        record = Record(STAGE, f"{model} on {name}: {describe(setting)}", "ours", UNIT, means, params)
        append(out, record)
        yield record


def describe(setting: dict[str, Any]) -> str:
    """A setting as the table names it."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in setting.items()) or "base"


def table(rows: Sequence[dict[str, Any]], model: str) -> str:
    """The Markdown table of a model's records: a row per setting, a column per data set, in per cent."""
    mine = [row for row in rows if row["params"]["model"] == model]
    found = {(describe(row["params"]["setting"]), row["params"]["data"]): row for row in mine}
    names = list(dict.fromkeys(name for _, name in found))
    cells, counts = [], []
    for text in dict.fromkeys(text for text, _ in found):
        present = [found[text, name] for name in names if (text, name) in found]
        seconds = f"{present[0]['params']['cpu_seconds']:.1f}"
        cells.append((text, *(_cell(found.get((text, name))) for name in names), seconds))
    for name in names:
        params = [row["params"] for row in mine if row["params"]["data"] == name]
        rounds, seeds = (sorted({each[count] for each in params}) for count in ("rounds", "seeds"))
        counts.append(f"{name}: rounds {_range(rounds)}, seeds {_range(seeds)}")
    first = mine[0]
    where = (
        f"{first['environment']['cpu']}, {first['environment']['cores']} cores; commit {first['commit']}; {first['date'][:10]}"
    )
    head = ("setting", *names, "CPU seconds a training")
    note = f"Base: {describe(first['params']['base'])}. {'; '.join(counts)}. {where}."
    return f"{markdown_table(head, cells, list(range(1, len(head))))}\n\n<sub>{note}</sub>"


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    values = [100 * value for value in row["repeats"]]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _rounds(path: Path) -> list[Any]:
    from shardwave.models.data.splits import Roles, folds, resolve
    from shardwave.shards.read.open_set import open_set

    names = open_set(path).splits
    present = folds(names)
    if not present:
        return [Roles(("train",), ("val",), ())]
    return [resolve(names, None, fold)._replace(test=()) for fold in present]


def _possible(path: Path, setting: dict[str, Any]) -> bool:
    from shardwave.shards.read.open_set import open_set

    return setting.get("train_view", "full") == "full" or "slice" in open_set(path).views


def _train(path: Path, roles: Any, config: TrainConfig) -> float:
    """The last epoch's validation accuracy, of the score that matches the view trained on."""
    from shardwave.models.data.training_data import TrainingData
    from shardwave.models.training.fit import fit
    from shardwave.search.fused import mlp
    from shardwave.search.objective import fusable

    if fusable(config):
        config = dataclasses.replace(config, device="cpu")
    data = TrainingData(path, config, roles)
    result = (mlp.fit if fusable(config) else fit)(data, config)
    return float(result.history[-1][f"val_{data.selected}_accuracy"])


def main() -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("model", choices=sorted(BASE))
    parser.add_argument("name")
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    for record in compare(**vars(parser.parse_args())):
        print(f"{record.case}: {100 * statistics.mean(record.repeats):.2f} %, {record.params['cpu_seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
