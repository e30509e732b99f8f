"""Model cards in Markdown: what a run was trained on, how well it does, with which limits, how it is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from shardwave.common.errors import UsageError
from shardwave.common.printable import one_line
from shardwave.models.evaluation.bootstrap import Intervals, intervals
from shardwave.models.evaluation.clip_csv import PREDICTIONS, read_held_out
from shardwave.models.evaluation.licences import pretrained_licences
from shardwave.models.networks.registry import find
from shardwave.models.runs import result
from shardwave.models.runs.records import RunResult, Settings
from shardwave.models.training.config import VECTORS, TrainConfig, backbone_of
from shardwave.preprocess.embeddings.registry import EMBEDDINGS
from shardwave.shards.storage import atomic

CARD = "card.md"
FEW_CLIPS, FEW_GROUPS = 10, 20  # below these numbers, scores of a class and intervals are unreliable
_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
_ROLES = {"train": "training", "val": "validation (selected the epoch)", "test": "test"}


class CardResult(TypedDict):
    """Result of `write_card`."""

    command: str
    run: str
    out: str


def write_card(run: Path | str, out: Path | str | None = None, data_license: str | None = None) -> CardResult:
    """Write the model card of a run.

    Args:
        run: Run folder of a finished training, cross-validation or search.
        out: File to write; `card.md` in the run folder if None.
        data_license: Licence of the audio, as text; None: the card states that it is not known.

    Raises:
        UsageError: The run is not finished.
        ShardwaveError: A file of the run is damaged.
    """
    run = Path(run)
    fields = result.read(run)
    if fields["state"] != "COMPLETE":
        raise UsageError(f"{run} is not finished (state {fields['state']}): continue it with --resume")
    by_split: dict[str, Intervals] = {}
    if (run / PREDICTIONS).exists():
        rows, classes = read_held_out(run)
        for split in dict.fromkeys(row.split for row in rows):
            labelled = [row for row in rows if row.split == split and row.label]
            if labelled:
                by_split[split] = intervals(labelled, classes)
        if fields.get("per_fold"):
            by_split = {"all folds": intervals([row for row in rows if row.label], classes), **by_split}
    out = run / CARD if out is None else Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    text = card(run, fields, by_split, data_license)
    atomic.write_bytes(out, text.encode("utf-8", "backslashreplace"))
    return {"command": "card", "run": str(run), "out": str(out)}


def card(
    run: Path, fields: RunResult, by_split: Mapping[str, Intervals], data_license: str | None = None
) -> str:
    """Return the model card of a run as Markdown.

    Args:
        run: Run folder, named in the commands.
        fields: Content of result.json.
        by_split: Scores of the clips that were not trained on, by split.
        data_license: Licence of the audio.
    """
    name = Path(fields["set"]).name
    lines = ["---", "library_name: shardwave", "pipeline_tag: audio-classification", "---", ""]
    lines += [f"# {fields['model']}, trained on {one_line(name)}", "", *_model(fields), *_data(fields)]
    lines += [*_scores(fields, by_split), *_limits(fields, by_split), *_use(run, fields)]
    lines += [*_licences(fields, data_license), *_origin(fields)]
    return "\n".join(lines)


def _model(fields: RunResult) -> list[str]:
    config = fields.get("config") or {}
    spectrogram = fields.get("set_config") or {}
    lines = [f"- Network: `{fields['model']}`, {fields.get('parameters', 0):,} trained parameters"]
    if find(fields["model"]).field == VECTORS:
        lines.append(f"- Input: the vector fields `{config.get('inputs') or 'features'}` of a clip")
    elif "image_size" in spectrogram:
        size = spectrogram["image_size"]
        lines.append(
            f"- Input: spectrogram of {size} x {config.get('image_size') or size} pixels, "
            f"{spectrogram['frequency_scale']} frequency, of audio at {spectrogram['sample_rate']:,} Hz"
        )
    view = {"full": "the full clip", "slice_mean": "the mean over the slices of a clip"}
    lines.append(
        f"- Output: probabilities of {len(fields['classes'])} classes, by {view[fields['selected_by']]}"
    )
    if fields.get("best_epoch"):
        lines.append(f"- Selected: epoch {fields['best_epoch']}, by validation {fields['select_metric']}")
    best = fields.get("best")
    if best:
        lines.append(f"- Hyper-parameters: the best of {fields['trials']} trials ({fields['backend']})")
    return ["## Model", "", *lines, ""]


def _data(fields: RunResult) -> list[str]:
    folds = fields.get("folds") or {}
    lines = [
        f"- Shard set: `{one_line(Path(fields['set']).name)}`",
        f"- Set id `{fields['set_id']}`, fingerprint `{fields['fingerprint']}`",
        f"- Classes: {', '.join(one_line(each) for each in fields['classes'])}",
    ]
    clips = fields.get("clips") or {}
    roles = (
        {split: _ROLES[role] for role, splits in folds.items() for split in splits}
        if isinstance(folds, dict)
        else {f"fold{number}": "tested once, by a model trained on the other folds" for number in folds}
    )
    rows = [[split, str(count), roles.get(split, "not used")] for split, count in clips.items()]
    lines += ["", *_table(["split", "clips", "purpose"], rows)] if rows else []
    return [
        "## Data",
        "",
        *lines,
        "",
        "Clips of one group (recording, artist, speaker) are in one split.",
        "",
    ]


def _scores(fields: RunResult, by_split: Mapping[str, Intervals]) -> list[str]:
    lines = ["## Scores", ""]
    if not by_split:
        rows = [
            [key, f"{value:.3f}"]
            for key, value in (fields.get("scores") or {}).items()
            if value is not None and key.startswith(("val_", "test_"))
        ]
        return [
            *lines,
            *_table(["score", "value"], rows),
            "",
            "The run has no predictions for intervals.",
            "",
        ]
    rows = []
    for split, found in by_split.items():
        cells = [f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in found.scores.values()]
        rows.append([split, str(found.clips), str(found.groups), *cells])
    lines += _table(["split", "clips", "groups", *_NAMES.values()], rows)
    lines += ["", "In parentheses: 95 % intervals, by the bootstrap over groups. They do not contain the", ""]
    lines[-2] += " variation between trainings with other seeds."
    split, found = list(by_split.items())[0 if fields.get("per_fold") else -1]
    lines += [f"Confusion of {split}; a row is a class, a column a prediction:", ""]
    classes = [one_line(name) for name in fields["classes"]]
    counts = [[name, *map(str, row)] for name, row in zip(classes, found.confusion.tolist(), strict=True)]
    return [*lines, *_table(["", *classes], counts), ""]


def _limits(fields: RunResult, by_split: Mapping[str, Intervals]) -> list[str]:
    lines = ["Every clip is assigned to one of the classes, also sound of none of them."]
    folds = fields.get("folds")
    if isinstance(folds, dict) and not folds.get("test"):
        lines.append("There is no test split: the validation scores selected the epoch and are too high.")
    elif isinstance(folds, dict):
        lines.append("Validation scores selected the epoch and are too high; use those of the test split.")
    if by_split:
        split, found = list(by_split.items())[0 if fields.get("per_fold") else -1]
        support = found.confusion.sum(axis=1).tolist()
        few = [name for name, count in zip(fields["classes"], support, strict=True) if count < FEW_CLIPS]
        if few:
            listed = ", ".join(one_line(name) for name in few)
            lines.append(f"Fewer than {FEW_CLIPS} clips of {split} are of the classes {listed}.")
        if found.groups < FEW_GROUPS:
            lines.append(
                f"The intervals of {split} follow from {found.groups} groups only and may be too narrow."
            )
        wrong = found.confusion.copy()
        wrong[range(len(wrong)), range(len(wrong))] = 0
        if wrong.max() > 0:
            true, predicted = divmod(int(wrong.argmax()), len(wrong))
            names = fields["classes"]
            lines.append(
                f"The most frequent confusion of {split}: {one_line(names[true])} taken for "
                f"{one_line(names[predicted])} ({wrong.max()} of {support[true]} clips)."
            )
    lines.append("Scores hold for sound that was recorded as that of the shard set was.")
    return ["## Limits", "", *(f"- {line}" for line in lines), ""]


def _use(run: Path, fields: RunResult) -> list[str]:
    if fields.get("per_fold"):
        use = ["The run has one model per fold, in `fold1/` and so on; train one on all clips for use."]
    else:
        commands = [f"shardwave predict {run.name} AUDIO --out predictions.csv"]
        inputs = (fields.get("config") or {}).get("inputs") or "features"
        if find(fields["model"]).field != VECTORS or inputs in EMBEDDINGS:
            commands.append(f"shardwave export {run.name} --out model.onnx")
        code = f'shardwave.predict("{run.name}", "AUDIO")[0].label'
        use = ["```", *commands, "```", "", "```python", "import shardwave", code, "```"]
    return ["## Use", "", *use, ""]


def _licences(fields: RunResult, data_license: str | None) -> list[str]:
    config: Settings = fields.get("config") or {}
    data = data_license or "not stated (give it with `shardwave card --data-license`)"
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    training = TrainConfig(
        **{name: value for name, value in config.items() if name in names and value is not None}
    )
    published = training.weights == "default"
    pretrained = pretrained_licences(backbone_of(training) if published else None, training.inputs)
    lines = [f"- Audio: {data}", *(f"- Pretrained weights, {text}" for text in pretrained)]
    lines.append("- Trained weights: they follow from the audio, whose terms apply")
    return ["## Licences", "", *lines, ""]


def _origin(fields: RunResult) -> list[str]:
    params = {**(fields.get("params") or {}), "seed": fields.get("seed")}
    environment = fields["environment"]
    lines = _table(["setting", "value"], [[key, str(value)] for key, value in params.items()])
    versions = environment.get("versions") or {}
    text = ", ".join(
        f"{key} {value}" for key, value in versions.items() if key in ("torch", "lightning", "numpy")
    )
    return ["## Origin", "", *lines, "", *([f"Versions: {text}.", ""] if text else [])]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    cells = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]
