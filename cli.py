"""The command line: thin commands over the rooms; what is heavy is imported inside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from shardwave.cli_frame import (
    CONFIG_FILE,
    DEFAULTS_OF,
    Extensible,
    Group,
    among,
    columns,
    examples,
    given,
    kind_of,
    read_config,
    run,
    say,
    show_best,
    show_scores,
)
from shardwave.common.errors import UsageError
from shardwave.common.printable import write_line
from shardwave.models.networks.registry import NETWORKS
from shardwave.models.training.config import PRECISIONS, SCHEDULES, SELECT_BY, TRAIN_VIEWS, defaults_table
from shardwave.preprocess.auto_config import AUTO, PRESETS, SAMPLE_RATE, SHORTEST_SLICE, AutoConfig, preset_values
from shardwave.preprocess.config import FITS, FREQUENCY_SCALES, SpectrogramConfig
from shardwave.preprocess.engines.registry import DEVICES, ENGINES
from shardwave.shards.format.layout import check_url, is_url
from shardwave.shards.sources import known

PATH = click.Path(path_type=Path)


class Location(click.Path):
    """A path, or a URL as it was given."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not is_url(value):
            return super().convert(value, param, ctx)
        try:
            return check_url(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


LOCATION = Location(path_type=Path)


class OrAuto(click.ParamType):
    """A number, or `auto`."""

    def __init__(self, kind: click.ParamType):
        self.kind, self.name = kind, f"{kind.name}|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == AUTO else self.kind.convert(value, param, ctx)


def options(*decorators: Callable) -> Callable:
    """Several click options as one decorator."""

    def apply(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.version_option(None, "--version", package_name="shardwave", prog_name="shardwave")
@click.option(
    "--config",
    type=PATH,
    help=f"Options from a TOML file, one table per command; the command line wins. Default: ./{CONFIG_FILE} where it exists.",
)
@click.pass_context
def main_group(ctx: click.Context, config: Path | None) -> None:
    """From a folder of audio to a tuned classifier: shards, models, search, and where every second went."""
    path = config or Path(CONFIG_FILE)
    if config or path.exists():
        ctx.default_map = read_config(path, main_group)


SET = click.argument("shard_set", metavar="SET", type=LOCATION)
OUT_RUN = click.option("--out", required=True, type=PATH, metavar="RUN", help="The run folder to write.")
DEVICE = click.option("--device", type=click.Choice(["auto", *DEVICES]), default="auto", help="Where to compute.")
DEFAULTS = SpectrogramConfig()


@main_group.command(
    epilog=examples(
        "shard music --out sets/music --features",
        "shard esc50/audio --labels esc50/labels.csv --out sets/esc50 --image-size 128 --features",
        "shard songs --label-from '^([^/]+)/' --group-from tag:artist --out sets/songs",
        "shard words --out sets/words --preset speech --dry-run",
        "shard --table features_30_sec.csv --label-column label --out sets/table",
    )
)
@click.argument("audio", type=LOCATION, required=False)
@click.option(
    "--out",
    required=True,
    type=LOCATION,
    metavar="SET",
    help="The set's folder or URL; run again to finish one that was cut off.",
)
@click.option(
    "--labels",
    type=LOCATION,
    metavar="CSV",
    help="Columns path,label[,fold][,group][,split][,start][,end] (segments in seconds); without it the class is the folder.",
)
@click.option("--table", type=PATH, metavar="FILE", help="A CSV or Parquet table of features instead of audio.")
@click.option("--path-column", metavar="NAME", help="Column of --labels or --table that names the audio file.")
@click.option("--label-column", metavar="NAME", help="Column of --labels or --table that holds the class.")
@click.option("--group-column", metavar="NAME", help="Column of --labels or --table whose equal values stay in one split.")
@click.option("--label-from", metavar="REGEX", help="Class of each file: the expression's first group in its path below AUDIO.")
@click.option("--group-from", metavar="REGEX|tag:NAME", help="Group of each file, from its path or a tag (tag:artist).")
@click.option("--split-from", metavar="REGEX", help="Split of each file, from its path: train, val, test or a synonym.")
@click.option("--classes", metavar="A,B,...", help="Build the clips of these classes only.")
@click.option(
    "--val-fraction", type=float, default=0.2, help="Share of groups for validation, where neither folds nor splits are given."
)
@click.option("--test-fraction", type=float, default=0.0, help="Share of groups held out as test.")
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), help="Settings for a kind of sound (docs/how-to.md lists them); options win."
)
@click.option(
    "--slices",
    type=OrAuto(click.INT),
    metavar="N|auto",
    help="Equal time slices per clip, each a full image; 0 = none; auto: ten, fewer where they would be shorter than "
    f"{SHORTEST_SLICE:g} s.  [default: auto]",
)
@click.option("--slice-seconds", type=float, help="Slices of this length instead; what is left at the end of a clip is in none.")
@click.option("--slice-overlap", type=float, help="Share of each slice of --slice-seconds that the next repeats, 0 to below 1.")
@click.option(
    "--fit",
    type=click.Choice(FITS),
    help="Clips of other lengths than --fit-seconds: stretch draws each into the whole width, pad adds silence to shorter ones, "
    "crop does that too and keeps the beginning of longer ones.  [default: stretch]",
)
@click.option(
    "--fit-seconds",
    type=OrAuto(click.FLOAT),
    metavar="SECONDS|auto",
    help="Length for --fit; auto: the median of the clips for crop, what 95 % do not exceed for pad.  [default: auto]",
)
@click.option("--image-size", type=int, help=f"Pixels, both axes.  [default: {DEFAULTS.image_size}]")
@click.option(
    "--frequency-scale", type=click.Choice(FREQUENCY_SCALES), help=f"Frequency axis.  [default: {DEFAULTS.frequency_scale}]"
)
@click.option(
    "--sample-rate",
    type=OrAuto(click.INT),
    metavar="HZ|auto",
    help=f"Hz; audio at other rates is resampled; auto: {SAMPLE_RATE}, or the clips' median rate where that is lower.  "
    "[default: auto]",
)
@click.option("--n-fft", type=int, help=f"Samples per STFT frame.  [default: {DEFAULTS.n_fft}]")
@click.option("--hop-length", type=int, help=f"Samples between frames.  [default: {DEFAULTS.hop_length}]")
@click.option("--features/--no-features", default=None, help="Tabular features too, as the MLP needs them.  [default: no]")
@click.option("--engine", type=Extensible(("auto", *ENGINES), "engines"), default="auto", help="What computes the images.")
@DEVICE
@click.option("--workers", type=int, help="Processes. [default: one per core, of the cluster with --address]")
@click.option("--seed", type=int, default=0, help="Of the split and of the order within shards.")
@click.option("--shard-mb", type=int, help="Size a large set's shards stay near. [default: 256]")
@click.option("--min-shards", type=int, help="Shards per split and view, if its clips suffice; larger sets have a multiple.")
@click.option("--max-bad-fraction", type=float, help="More unusable files than this end with exit status 3. [default: 0.05]")
@click.option("--max-clip-minutes", type=float, help="Longer clips are quarantined. [default: 60]")
@click.option(
    "--max-missing-seconds",
    type=float,
    help="Clips of which more is missing are quarantined, others used with a remark. [default: 0.1]",
)
@click.option("--overwrite", is_flag=True, help="Replace a set made from other inputs or options.")
@click.option(
    "--break-lock", is_flag=True, help="Remove the lock that a killed build left at the URL --out; no other may be running."
)
@click.option("--address", metavar="auto|HOST:PORT", help="Build on all nodes of this Ray cluster.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be built, how large it would be and how long it would take, and stop."
)
def shard(
    audio: Path | str | None, out: Path | str, table: Path | None, preset: str | None, dry_run: bool, **options: Any
) -> dict:
    """Build a shard set from AUDIO, a folder (or URL) of sound files, or finish building it."""
    from shardwave.shards.build.builder import build, build_table
    from shardwave.shards.build.options import BuildOptions

    spectrogram = _spectrogram_options(preset, options)
    build_options = BuildOptions(**{name: value for name, value in given(options).items() if name not in spectrogram})
    if table is not None:
        if dry_run:
            raise UsageError("--dry-run is for audio: a table's set is about as large as the table")
        if audio is not None:
            raise UsageError("--table replaces the AUDIO folder: give one of them")
        if build_options.labels is not None:
            raise UsageError("--table has the classes in a column of its own: give no --labels")
        return build_table(table, out, build_options)
    if audio is None:
        raise UsageError("shard needs a folder of audio, or --table FILE; see shardwave shard --help")
    if not dry_run:
        return build(audio, out, AutoConfig(spectrogram), build_options)
    from shardwave.shards.build.preview import preview

    made, lines = preview(audio, out, AutoConfig(spectrogram), build_options)
    write_line("\n".join(lines))
    return dataclasses.asdict(made)


def _spectrogram_options(preset: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Settings of the spectrogram: those of the preset, and over them those that were given."""
    names = {field.name for field in dataclasses.fields(SpectrogramConfig)}
    return {**preset_values(preset), **{name: value for name, value in given(options).items() if name in names}}


@main_group.command(epilog=examples("verify sets/music"))
@SET
def verify(shard_set: Path | str) -> dict:
    """Recompute checksums and counts of SET and read every sample; names the bad shard."""
    from shardwave.shards.format.verify import verify as verify_set
    from shardwave.shards.read.open_set import open_set

    report = verify_set(open_set(shard_set))
    write_line(f"{shard_set}: {report['samples']} samples in {report['shards']} shards, all as the manifest says")
    return report


@main_group.command(
    epilog=examples("inspect sets/music", "inspect sets/music --sheet sheet.png", "inspect sets/music --key KEY --png one.png")
)
@SET
@click.option("--key", help="Print the sample with this key, or that of the clip with this path.")
@click.option("--png", type=PATH, metavar="FILE", help="Draw that sample with axes in Hz and seconds, and its slices.")
@click.option("--sheet", type=PATH, metavar="FILE", help="Draw some samples of every class.")
@click.option("--against", type=PATH, metavar="AUDIO", help="Compare samples with the folder of audio they came from.")
def inspect(shard_set: Path | str, key: str | None, png: Path | None, sheet: Path | None, against: Path | None) -> dict:
    """Show what is in SET: classes, splits, views, durations, and what was quarantined and why."""
    from shardwave.shards.inspect import compare_audio, figures, lookup
    from shardwave.shards.inspect import summary as inspection

    if png is not None and key is None:
        raise UsageError("--png needs --key, the sample to draw; --sheet draws some of every class")
    if against is not None:
        report = compare_audio.against(shard_set, against, key)
        write_line(compare_audio.report(report))
        return report
    if key is not None:
        sample = lookup.sample(shard_set, key)
        write_line(lookup.describe_sample(sample))
        return sample if png is None else figures.draw_sample(shard_set, key, png)
    summary = inspection.summary(shard_set)
    write_line(inspection.describe(summary))
    if sheet is not None:
        figures.draw_sheet(shard_set, sheet)
        say(f"drawn: {sheet}")
    return summary


MODEL = click.option("--model", required=True, type=Extensible(tuple(NETWORKS), "networks"), help="What to train.")
FOLDS = options(
    click.option(
        "--val-fold", type=int, help="Validate on this fold. [default: the split val, or the fold after the one held out]"
    ),
    click.option("--test-fold", type=int, help="Hold this fold out, scored once at the end."),
)
LEARNING = options(
    click.option(
        "--train-view", type=click.Choice(TRAIN_VIEWS), help="What to train on. [default: auto: by model (train --help)]"
    ),
    click.option(
        "--select-by", type=click.Choice(SELECT_BY), help="The validation score that chooses. [default: auto: as trained]"
    ),
    click.option("--seed", type=int, default=0, help="Of weights, order and augmentation."),
    click.option("--device", type=click.Choice(["auto", *DEVICES]), default="auto", help="Where to train."),
    click.option("--precision", type=click.Choice(PRECISIONS), help="Lightning's name. [default: 32-true]"),
    click.option(
        "--weights", metavar="FILE|none|default", help="vgg16: a file of weights, none, or torchvision's. [default: default]"
    ),
)
HYPERPARAMETERS = options(
    click.option("--batch-size", type=int, help="Samples, over all devices together."),
    click.option("--hidden-size", type=int, help="Width of each hidden layer."),
    click.option("--hidden-layers", type=int),
    click.option("--dropout", type=float, help="After each hidden layer."),
    click.option("--learning-rate", type=float, help="AdamW's; the peak where there is a schedule."),
    click.option("--weight-decay", type=float, help="AdamW's."),
    click.option("--conv1-kernel", type=int, help="Pixels, square."),
    click.option("--conv2-kernel", type=int, help="Pixels, square."),
    click.option("--conv1-channels", type=int, help="cnn-plus: of the first block."),
    click.option("--conv2-channels", type=int),
    click.option("--label-smoothing", type=float),
    click.option("--mixup", type=float, help="Alpha of Beta(alpha, alpha); 0 = off."),
    click.option("--time-shift/--no-time-shift", default=None, help="Roll training images along time."),
    click.option("--frequency-mask", type=float, help="Widest masked band, as a part of the image's height."),
    click.option("--time-mask", type=float, help="Likewise of its width."),
    click.option("--average-decay", type=float, help="Moving average of weights, per step; 0 = off."),
    click.option("--schedule", type=click.Choice(SCHEDULES), help="Of the learning rate."),
)


@main_group.command(
    epilog=examples(
        "train sets/music --model cnn --out runs/cnn", "train sets/esc10 --model mlp --folds all --out runs/mlp-5-folds"
    )
    + columns("Defaults of each model:", defaults_table())
)
@SET
@MODEL
@OUT_RUN
@click.option("--epochs", type=int, help="Passes over the training data.")
@FOLDS
@click.option("--folds", type=click.Choice(["all"]), help="Every fold once as test, the next as validation: mean and each.")
@LEARNING
@click.option("--devices", type=int, help="How many, on each node; several by Lightning's strategy. [default: 1]")
@click.option("--nodes", type=int, help="Machines; start the command on each (see docs/scale.md). [default: 1]")
@click.option("--strategy", help="Lightning's name. [default: auto]")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted.")
@HYPERPARAMETERS
def train(shard_set: Path | str, out: Path, resume: bool, **chosen: Any) -> dict:
    """Train one model on SET and write RUN: result.json, checkpoint.ckpt, errors.csv, curves.png, confusion.png."""
    from shardwave.models.training.config import defaults

    config = defaults(chosen.pop("model"), **given(chosen))
    from shardwave.models.training.train import train as train_model

    result = train_model(shard_set, config, out, resume=resume)
    if "scores" not in result:  # a process that trained along: the first one scores and writes
        return result
    show_scores(result["scores"], result["selected_by"], {"train": "while learning"})
    epoch = f"; best epoch {result['best_epoch']}" if result.get("best_epoch") else ""
    say(f"{result['seconds']['total']:.1f} s{epoch}; written to {out}")
    return result


@main_group.command(epilog=examples("evaluate runs/cnn sets/music", "evaluate runs/cnn sets/music --split test"))
@click.argument("run_folder", metavar="RUN", type=PATH)
@SET
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Score this split; may be repeated. [default: each]")
@click.option(
    "--errors",
    type=PATH,
    metavar="CSV",
    help="File for the clips that are classified wrongly, without those that were trained on. [default: RUN/errors-<set>.csv]",
)
@DEVICE
def evaluate(run_folder: Path, shard_set: Path | str, splits: tuple[str, ...], errors: Path | None, device: str) -> dict:
    """Score RUN's model on SET, on whole clips and on the mean of their slices.

    Each row says what RUN used the clips for: trained, validation, test, or new. There is a total only where all are of one kind.
    """
    from shardwave.models.evaluation.evaluate import evaluate as score

    result = score(run_folder, shard_set, splits=splits or None, device=device, errors=errors)
    show_scores(result["scores"], result["selected_by"], {name: kind_of(about) for name, about in result["splits"].items()})
    if len(result["splits"]) > 1 and not any(name.startswith("all_") for name in result["scores"]):
        click.echo("no total: the splits are not of one kind")
    return result


@main_group.command(
    epilog=examples(
        "predict runs/cnn unlabelled --out submission.csv", "predict runs/cnn sets/music --split test --out predictions.csv"
    )
)
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.argument("audio", type=LOCATION)
@click.option(
    "--out",
    required=True,
    type=PATH,
    metavar="CSV",
    help="Rows id,class for audio (id = the path relative to AUDIO); path,split,label,class,probability for a shard set.",
)
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Of a shard set: this split; may be repeated. [default: all]"
)
@click.option("--probabilities", is_flag=True, help="One more column per class.")
@DEVICE
def predict(run_folder: Path, audio: Path | str, out: Path, splits: tuple[str, ...], probabilities: bool, device: str) -> dict:
    """Classify a folder of AUDIO, a file, or a shard set with RUN's model."""
    from shardwave.models.evaluation.predict import predict as classify

    made = classify(run_folder, audio, out, probabilities=probabilities, device=device, splits=splits or None)
    say(f"{made['clips']} rows written to {out}")
    return made


@main_group.command(
    epilog=examples(
        "search sets/music --model cnn --backend ray --trials 20 --out runs/cnn-ray",
        "search sets/music --model mlp --backend optuna --jobs 2 --scheduler hyperband --out runs/mlp-optuna",
    )
)
@SET
@MODEL
@click.option(
    "--backend", required=True, type=Extensible(("ray", "optuna", "random"), "backends"), help="Who schedules the trials."
)
@OUT_RUN
@click.option("--trials", type=int, default=20, help="In all, whatever the backend.")
@click.option("--epochs", type=int, help="Of a trial that is not stopped. [default: 10; cnn-plus, on whole clips: 30]")
@click.option("--jobs", type=int, help="Trials at once. [default: one per core, or one per GPU]")
@click.option(
    "--scheduler",
    shell_complete=among("asha", "median", "none", "hyperband"),
    help="asha, median, none; optuna: hyperband too. [default: asha; random: none]",
)
@click.option("--grace", type=int, default=1, help="Epochs that every trial is given.")
@click.option("--reduction", type=int, default=3, help="One in this many goes on at each rung.")
@click.option(
    "--sampler",
    shell_complete=among("random", "grid", "tpe", "gp"),
    help="random, grid, tpe; optuna: gp too. [default: optuna tpe, else random]",
)
@click.option("--space", type=PATH, metavar="FILE", help="A YAML file that overrides the model's search space.")
@FOLDS
@LEARNING
@click.option("--resume", is_flag=True, help="Go on with a search that was interrupted.")
@click.option("--storage", help="optuna: a database's URL, so that several machines join one study.")
@click.option("--study", help="optuna: the study's name in that database.")
@click.option("--address", help="ray: a running cluster's address, or auto.")
@click.option(
    "--fused/--no-fused",
    default=None,
    help="mlp, vgg16: compiled training steps on the CPU. [default: for mlp, unless --device is cuda]",
)
def search(shard_set: Path | str, out: Path, resume: bool, **chosen: Any) -> dict:
    """Tune MODEL on SET; hyper-parameters are chosen on validation data only."""
    from shardwave.search.run import SearchConfig
    from shardwave.search.run import search as run_search

    result = run_search(shard_set, SearchConfig(**given(chosen)), out, resume=resume)
    show_best(result)
    return result


@main_group.group()
def bench() -> None:
    """Measure: every stage with its floor and its peers, search backends on recorded curves, two records."""


@bench.command(
    "throughput",
    epilog=examples(
        "bench throughput --out runs/bench --quick", "bench throughput --stage preprocess --stage loading --out runs/bench"
    ),
)
@click.option("--out", required=True, type=PATH, metavar="RUN", help="The folder for records.jsonl and report.html.")
@click.option("--stage", "stages", multiple=True, help="Only these. [default: all]")
@click.option("--quick", is_flag=True, help="Two minutes on two cores instead of thirty.")
@click.option("--scale", is_flag=True, help="Cost as clips (100 to 10,000) and workers grow, and the fitted exponent.")
def throughput(out: Path, **chosen: Any) -> dict:
    """Measure every stage beside its floor and its peers."""
    from shardwave.bench.harness.run import throughput as measure

    return measure(out, **chosen)


@bench.command(
    "search",
    epilog=examples("bench search --out runs/backends", "bench search --only optuna/tpe --workers 4 --seeds 50 --out runs/tpe"),
)
@click.option("--out", required=True, type=PATH, metavar="RUN", help="The folder for the results.")
@click.option(
    "--table",
    type=PATH,
    metavar="FILE",
    help="Learning curves: a search's run folder, or a file of them. [default: the MLP's on ESC-10]",
)
@click.option("--seeds", type=int, default=20, help="Replays of each combination.")
@click.option("--workers", type=int, multiple=True, default=(1, 4, 16), help="Simulated workers.")
@click.option("--epochs", type=int, help="Epochs of a full training. [default: 10, or what the table has]")
@click.option("--trainings", type=int, default=20, help="Full trainings' worth of epochs that a search may spend.")
@click.option("--only", metavar="TEXT", multiple=True, help="Strategies whose name (backend/sampler/scheduler) contains it.")
def bench_search(out: Path, **chosen: Any) -> dict:
    """Compare search backends, samplers and schedulers on recorded learning curves."""
    from shardwave.bench.search_quality.replay import replay

    return replay(out, **chosen)


@bench.command("compare", epilog=examples("bench compare runs/bench-before runs/bench-after"))
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
def compare(before: Path, after: Path) -> dict:
    """Say what became faster or slower from BEFORE to AFTER, and what is within noise."""
    from shardwave.bench.report.compare import compare as compare_records

    report = compare_records(before, after)
    write_line(report["text"])
    return report


@bench.command("accuracy", epilog=examples("bench accuracy esc10 --labels esc10/labels.csv --model mlp --work runs/accuracy"))
@click.argument("audio", type=PATH)
@click.option("--labels", type=PATH, metavar="CSV", help="Labels with folds.")
@click.option(
    "--model", "models", multiple=True, type=click.Choice(tuple(NETWORKS)), help="Only these. [default: mlp, cnn, cnn-plus]"
)
@click.option("--work", required=True, type=PATH, metavar="DIR", help="The folder for sets and runs; run again to go on.")
@click.option("--out", type=PATH, default=Path("bench/results"), help="Where accuracy.json and accuracy.md go.")
@click.option("--leakage/--no-leakage", default=True, help="Also with slices split at random: what leakage would have flattered.")
@click.option("--jobs", type=int, help="Cross-validations at a time, one core each. [default: one per core; on a GPU 1]")
def accuracy(
    audio: Path, labels: Path | None, models: tuple[str, ...], work: Path, out: Path, leakage: bool, jobs: int | None
) -> dict:
    """Cross-validate the models on AUDIO's folds, over seeds; the epochs are chosen without the fold that is scored."""
    from shardwave.bench.accuracy import SEEDS, run

    seeds: dict[str, Sequence[int]] = {name: SEEDS.get(name, (0,)) for name in models or SEEDS}
    return run(audio, labels, out, work, seeds=seeds, leakage=leakage, jobs=jobs)


@main_group.command(epilog=examples("fetch gtzan --out data/gtzan", "fetch esc10 --from downloads/ESC-10 --out data/esc10"))
@click.argument("name", type=Extensible(known.NAMES, "datasets"), metavar="NAME")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="The folder for audio and labels.csv.")
@click.option("--from", "source", type=PATH, metavar="FOLDER", help="A folder that has it already.")
@click.option(
    "--split",
    shell_complete=among("random", "filtered", "official", "speaker"),
    help="gtzan: random (by track) or filtered (fault-filtered); fsdd: official or speaker; other sets: official.",
)
@click.option("--url", help="A mirror to download from.")
def fetch(name: str, out: Path, source: Path | None, split: str | None, url: str | None) -> dict:
    """Get a known data set (gtzan, esc50, esc10, fsdd, speech-commands) and write its labels with the official folds."""
    from shardwave.shards.sources.fetch import fetch as fetch_set

    return fetch_set(name, out, source=source, **given({"split": split, "url": url}))


@main_group.command(epilog=examples("report runs/cnn", "report runs/mlp-ray runs/mlp-optuna --out compared.html"))
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, default=Path("report.html"), help="The page to write.")
@click.option("--markdown", is_flag=True, help="Print it as Markdown too.")
def report(runs: tuple[Path, ...], out: Path, markdown: bool) -> dict:
    """One self-contained HTML page from run folders and bench records; two searches are compared side by side."""
    from shardwave.bench.report.page import write

    text = write(list(runs), out)
    if markdown:
        write_line(text)
    say(f"open {out}")
    return {"report": str(out)}


@main_group.command(epilog=examples("demo", "demo --data my-audio --out runs/my-demo"))
@click.option(
    "--out", type=PATH, help="The folder for everything the demo makes. [default: demo, or demo-NAME of the --data folder]"
)
@click.option("--data", type=PATH, metavar="FOLDER", help="Your own audio instead of synthetic genres.")
@click.option("--labels", type=PATH, metavar="CSV", help="Its labels; without them the class is the parent folder.")
def demo(out: Path | None, data: Path | None, labels: Path | None) -> dict:
    """The whole way on a small data set made here: shards, training, two searches, report. Offline, minutes on two cores."""
    from shardwave.bench.demo import demo as run_demo

    if labels is not None and data is None:
        raise UsageError("--labels belongs to --data: the demo's own audio brings its labels")
    return run_demo(out or Path(f"demo-{data.resolve().name}" if data else "demo"), data, labels, say=say)


def _build_defaults(chosen: dict[str, Any]) -> dict[str, Any]:
    from shardwave.shards.build.options import BuildOptions

    if chosen["table"]:
        return {}
    open_ = {"sample_rate": AUTO, "slices": AUTO, "fit_seconds": AUTO}
    return {**dataclasses.asdict(BuildOptions()), **dataclasses.asdict(DEFAULTS), **open_, **preset_values(chosen["preset"])}


def _train_defaults(chosen: dict[str, Any]) -> dict[str, Any]:
    from shardwave.models.training.config import defaults

    return dataclasses.asdict(defaults(chosen["model"]))


def _search_defaults(chosen: dict[str, Any]) -> dict[str, Any]:
    from shardwave.search.config import SearchConfig

    return dataclasses.asdict(SearchConfig(chosen["model"], chosen["backend"]))


DEFAULTS_OF.update({"shardwave shard": _build_defaults, "shardwave train": _train_defaults, "shardwave search": _search_defaults})


def main() -> None:
    """The console script's entry."""
    run(main_group)


if __name__ == "__main__":
    main()
