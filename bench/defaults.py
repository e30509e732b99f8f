"""Comparison of a model's settings on validation data, to choose its defaults; no test fold is scored.

`python -m shardwave.bench.defaults OUT.jsonl TABLE NAME SET [SET ...] [--rounds N] [--seeds N] [--only TEXT]`
appends one record per setting of a table. A table has the name of its model, or `MODEL-on-strips`, which
leaves out one ingredient of the training on random slices at a time. A set with folds gives one round per
fold: this fold is not used, the next fold is used for validation, and the others for training. A set without
folds gives one round with its split `val`; for several rounds, name sets that were split with different
seeds. The accuracy is that of the last epoch, since a selected epoch would be better by chance.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

from shardwave.bench.harness.record import Record, RecordRow, append
from shardwave.bench.report.render import table as markdown_table
from shardwave.models.training.config import TrainConfig, defaults

Settings = dict[str, Any]  # fields of `TrainConfig`
STAGE, UNIT = "defaults", "accuracy"
BASE: dict[str, Settings] = {  # SETTINGS change these
    "mlp": {
        "train_view": "full", "batch_size": 32, "epochs": 60, "hidden_size": 512, "hidden_layers": 2,
        "dropout": 0.5,
        "learning_rate": 1e-3, "weight_decay": 0.05, "label_smoothing": 0.1, "mixup": 0.0,
    },
    "cnn": {"train_view": "full", "epochs": 15},
    "cnn-plus": {"train_view": "full", "epochs": 30},
    "cnn-plus-on-strips": {
        "train_view": "slice", "epochs": 100, "random_slices": True, "slice_stretch": "0.8,1.25",
        "mix_powers": 0.5, "mixup": 0.0, "random_gain": 6.0, "precision": "bf16-mixed",
    },
}  # fmt: skip
SETTINGS: dict[str, list[Settings]] = {
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
    "cnn-plus-on-strips": [
        {},
        {"random_slices": False, "slice_stretch": "1,1"},
        {"slice_stretch": "1,1"},
        {"mix_powers": 0.0},
        {"mix_powers": 0.0, "mixup": 0.3},
        {"mix_powers": 1.0},
        {"random_gain": 0.0},
        {"train_view": "full", "random_slices": False, "slice_stretch": "1,1"},
        {
            "train_view": "full", "random_slices": False, "slice_stretch": "1,1", "mix_powers": 0.0,
            "mixup": 0.3, "random_gain": 0.0,
        },
    ],
}  # fmt: skip


class DefaultsParams(TypedDict):
    """Parameters of a record of this comparison."""

    model: str
    data: str
    setting: Settings
    base: Settings
    rounds: int
    seeds: int
    per_round: list[list[float]]  # accuracy by seed and round
    on_whole_clips: NotRequired[list[list[float]]]  # as `per_round`, if that is the mean over slices
    cpu_seconds: float  # median of the trainings


class Accuracy(NamedTuple):
    """Validation accuracy of the last epoch of a training."""

    selected: float  # of the score that matches the training view
    whole: float | None  # on whole clips, if `selected` is the mean over slices


def compare(
    out: Path,
    model: str,
    name: str,
    sets: Sequence[Path],
    rounds: int | None = None,
    seeds: int = 3,
    only: str = "",
) -> Iterator[Record]:
    """Train every setting of `model` and append its record to `out`.

    Args:
        out: File of the records.
        model: One of BASE.
        name: Name of the data in the table.
        sets: Shard sets, which give the rounds.
        rounds: Maximum number of rounds; None is all.
        seeds: Trainings per setting and round, seeds 0 to seeds - 1.
        only: Text that the names of the settings to train contain.

    Yields:
        One record per setting, whose repeats are the mean over the rounds for each seed.
    """
    chosen = [(path, roles) for path in sets for roles in _rounds(path)][:rounds]
    for setting in SETTINGS[model]:
        if only not in describe(setting) or not _possible(sets[0], setting):
            continue
        trained: list[list[Accuracy]] = []
        spent = []
        for seed in range(seeds):
            trained.append([])
            for path, roles in chosen:
                begin = time.process_time()  # other processes do not count
                config = defaults(_model(model), **{**BASE[model], **setting}, seed=seed)
                trained[-1].append(_train(path, roles, config))
                spent.append(time.process_time() - begin)
        accuracy = [[each.selected for each in row] for row in trained]
        params: DefaultsParams = {
            "model": model, "data": name, "setting": setting, "base": BASE[model], "rounds": len(chosen),
            "seeds": seeds,
            "per_round": [[round(value, 4) for value in row] for row in accuracy],
            "cpu_seconds": statistics.median(spent),
        }  # fmt: skip
        whole = [[round(each.whole, 4) for each in row if each.whole is not None] for row in trained]
        if any(whole):
            params["on_whole_clips"] = whole
        means = [statistics.mean(row) for row in accuracy]
        record = Record(STAGE, f"{model} on {name}: {describe(setting)}", "ours", UNIT, means, dict(params))
        append(out, record)
        yield record


def _model(table: str) -> str:
    """Return the model of a table."""
    return table.removesuffix("-on-strips")


def describe(setting: Settings) -> str:
    """Return the name of a setting in the table."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in setting.items()) or "base"


def table(rows: Sequence[RecordRow], model: str) -> str:
    """Return the Markdown table of a model: a row per setting, a column per data set, in per cent.

    Args:
        rows: Records.
        model: Model of the table.
    """
    records = [(row, cast(DefaultsParams, row["params"])) for row in rows]
    records = [(row, params) for row, params in records if params["model"] == model]
    by_setting = {(describe(params["setting"]), params["data"]): (row, params) for row, params in records}
    names = list(dict.fromkeys(name for _, name in by_setting))
    cells, counts = [], []
    for text in dict.fromkeys(text for text, _ in by_setting):
        present = [by_setting[text, name] for name in names if (text, name) in by_setting]
        seconds = f"{present[0][1]['cpu_seconds']:.1f}"
        cells.append((text, *(_cell(by_setting.get((text, name))) for name in names), seconds))
    for name in names:
        of_data = [params for _, params in records if params["data"] == name]
        rounds, seeds = (
            sorted({each["rounds"] for each in of_data}),
            sorted({each["seeds"] for each in of_data}),
        )
        counts.append(f"{name}: rounds {_range(rounds)}, seeds {_range(seeds)}")
    first, params = records[0]
    machine = first["environment"]
    origin = (
        f"{machine['cpu']}, {machine['cores']} cores; commit {first['commit']}; {(first['date'] or '')[:10]}"
    )
    head = ("setting", *names, "CPU seconds per training")
    note = f"Base: {describe(params['base'])}. {'; '.join(counts)}. {origin}."
    return f"{markdown_table(head, cells, list(range(1, len(head))))}\n\n<sub>{note}</sub>"


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _cell(cell: tuple[RecordRow, DefaultsParams] | None) -> str:
    if cell is None:
        return "–"
    row, params = cell
    whole = [statistics.mean(values) for values in params.get("on_whole_clips", ())]
    return _mean(row["repeats"]) + (f" ({_mean(whole)})" if whole else "")


def _mean(repeats: Sequence[float]) -> str:
    """Return the mean and the standard deviation of values, in per cent."""
    values = [100 * value for value in repeats]
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


def _possible(path: Path, setting: Settings) -> bool:
    from shardwave.shards.read.open_set import open_set

    return setting.get("train_view", "full") == "full" or "slice" in open_set(path).views


def _train(path: Path, roles: Any, config: TrainConfig) -> Accuracy:
    """Train on the splits of `roles` and return the accuracy of the last epoch."""
    from shardwave.models.data.training_data import TrainingData
    from shardwave.models.runs.records import score
    from shardwave.models.training.fit import fit
    from shardwave.search.fused import mlp
    from shardwave.search.objective import fusable

    if fusable(config):
        config = dataclasses.replace(config, device="cpu")
    data = TrainingData(path, config, roles)
    result = (mlp.fit if fusable(config) else fit)(data, config)
    last = result.history[-1]
    whole = score(last, "val_full_accuracy") if data.selected != "full" else None
    return Accuracy(score(last, f"val_{data.selected}_accuracy"), whole)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("model", choices=sorted(BASE))
    parser.add_argument("name")
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    for record in compare(**vars(parser.parse_args())):
        print(
            f"{record.case}: {100 * statistics.mean(record.repeats):.2f} %, "
            f"{record.params['cpu_seconds']:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
