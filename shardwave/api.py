"""The public functions of `shardwave`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardwave.common.errors import UsageError
from shardwave.preprocess.auto_config import AutoConfig
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.options import BuildOptions

if TYPE_CHECKING:
    from shardwave.models.networks.registry import Factory
    from shardwave.models.runs.checkpoint import Trained
    from shardwave.models.runs.records import Evaluation, RunResult
    from shardwave.preprocess.engines.base import Engine
    from shardwave.search.space import Dimension
    from shardwave.shards.format.manifest import Manifest
    from shardwave.shards.read.shardset import ShardSet
    from shardwave.shards.read.torch_dataset import ViewDataset


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """Images and features of one clip, as a shard set stores them.

    Attributes:
        image: Image of the full clip, uint8 [frequency, time]. Row 0 is the lowest frequency; 0 is
            `config.floor_db`, 255 is 0 dB.
        slices: Images of the slices, uint8 [slices, frequency, time].
        features: Features of the full clip (row 0) and of the slices, float32 [1 + slices, features]; None
            unless `config.features`.
    """

    image: np.ndarray
    slices: np.ndarray
    features: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction of a model for one clip.

    Attributes:
        clip: Path of the file below the folder, or index of the array.
        label: Most probable class.
        probabilities: Probability by class.
    """

    clip: str
    label: str
    probabilities: dict[str, float]


def build(
    audio: Path | str,
    out: Path | str,
    config: SpectrogramConfig | None = None,
    *,
    features: bool = True,
    embeddings: str = "",
    **options: Any,
) -> Manifest:
    """Build a shard set from a folder of audio, or finish an interrupted build.

    Args:
        audio: Folder of audio, or its URL.
        out: Folder or URL of the set.
        config: Parameters of the spectrogram; by default, the sample rate and the number of slices are chosen
            from the clips.
        features: Compute feature vectors too; ignored if `config` is given.
        embeddings: Pretrained audio networks whose outputs are stored too, with commas, such as "aisfx";
            ignored if `config` is given.
        **options: Fields of `BuildOptions`, for example `labels`, `val_fraction`, `workers`, `engine`.

    Returns:
        The manifest of the set.

    Raises:
        UsageError: An option is not valid, or `out` contains other files.
        TooManyBadInputs: The set is finished, but more than the fraction `max_bad_fraction` of the files was
            quarantined.

    Example:
        >>> manifest = shardwave.build("my-audio", "sets/mine", labels="labels.csv")
        >>> manifest["classes"]
        ['jazz', 'rock']
    """
    from shardwave.shards.build.builder import build

    chosen = config or AutoConfig({"features": features, "embeddings": embeddings})
    return build(audio, out, chosen, BuildOptions(**options))


def open_set(path: Path | str, *, verify: bool = False) -> ShardSet:
    """Open a finished shard set.

    Args:
        path: Folder or URL of the set.
        verify: Read the whole set and verify its checksums first.

    Returns:
        The set; `ShardSet.view` gives access to its samples.

    Raises:
        UsageError: There is no shard set at `path`.
        ShardwaveError: The set is unfinished or damaged, or has another format.
    """
    from shardwave.shards.format.verify import verify as verify_set
    from shardwave.shards.read.open_set import open_set

    shard_set = open_set(path)
    if verify:
        verify_set(shard_set)
    return shard_set


def as_dataset(
    shard_set: ShardSet | Path | str,
    splits: str | Sequence[str],
    view: str = "full",
    *,
    fields: Sequence[str] = ("npy",),
    shuffle: bool = False,
    seed: int = 0,
) -> ViewDataset:
    """Return samples of a shard set as a `torch.utils.data.IterableDataset`, for a plain `DataLoader`.

    Args:
        shard_set: A set, its folder or its URL.
        splits: One split or several.
        view: `full`, `slice` or `both`.
        fields: Array fields to read, for example "features.npy".
        shuffle: Shuffle the samples; `set_epoch` chooses the order.
        seed: Seed of the order.

    Returns:
        A data set whose samples are dicts of tensors and integers (see `ViewDataset`).

    Example:
        >>> dataset = shardwave.as_dataset("sets/mine", "train", shuffle=True)
        >>> loader = DataLoader(dataset, batch_size=32, num_workers=2)
    """
    from shardwave.shards.read.torch_dataset import ViewDataset

    opened = open_set(shard_set) if isinstance(shard_set, str | Path) else shard_set
    return ViewDataset(opened.view(splits, view), fields, shuffle=shuffle, seed=seed)


def spectrogram(samples: np.ndarray, rate: int, config: SpectrogramConfig | None = None) -> Spectrogram:
    """Compute the images and features of one clip, as a build does.

    Args:
        samples: float32 [time] or [time, channels]; channels are averaged.
        rate: Sample rate of `samples` in Hz. If it differs from `config.sample_rate`, the samples are
            resampled.
        config: Parameters of the spectrogram; the defaults of `SpectrogramConfig` if None.

    Returns:
        Images and features of the clip and of its slices.

    Raises:
        UsageError: `samples` is empty, has another shape, or holds values that are not finite.
    """
    config = config or SpectrogramConfig()
    output = _engine(config)([_mono(samples, rate, config.sample_rate)])
    return Spectrogram(
        output.full[0], output.slices[0], None if output.features is None else output.features[0]
    )


@functools.lru_cache(maxsize=4)
def _engine(config: SpectrogramConfig) -> Engine:
    from shardwave.preprocess.engines.registry import make_engine

    return make_engine("numba", "cpu", config)


def _mono(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Return a clip as float32 [time] at `target` Hz."""
    import soxr

    values = np.asarray(samples, np.float32)
    if values.ndim == 2:
        values = values.mean(axis=1)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise UsageError(
            "samples must be finite numbers of shape [time] or [time, channels], got shape "
            f"{np.shape(samples)}"
        )
    return values if rate == target else np.asarray(soxr.resample(values, rate, target, quality="HQ"))


def train(
    shard_set: Path | str,
    model: str | Factory,
    out: Path | str,
    *,
    resume: bool = False,
    params: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunResult:
    """Train a model on a shard set and write a run folder.

    Args:
        shard_set: Folder or URL of the set.
        model: Name of a network, "auto" (mlp or cnn-plus, whichever is better after a few epochs), or a
            function `(shape, classes, **params) -> nn.Module`. `shape` is that of
            one input: (1, frequency, time) for images, (features,) for feature vectors. The module maps
            float32 [batch, *shape], standardised with the mean and standard deviation of the training data,
            to logits [batch, classes].
        out: The run folder.
        resume: Continue an interrupted run.
        params: Keyword arguments of the function.
        **options: Fields of `TrainConfig`, for example `epochs`, `batch_size`, `learning_rate`, `val_fold`;
            with a function also `field`: "npy" for images (default), "features.npy" for feature vectors.

    Returns:
        The content of result.json.

    Example:
        >>> def network(shape, classes, width=32):
        ...     return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, classes))
        >>> result = shardwave.train("sets/mine", network, "runs/own", epochs=5, params={"width": 64})
        >>> result["scores"]["val_full_accuracy"]
    """
    from shardwave.models.networks.registry import register
    from shardwave.models.training.auto_model import resolve_model
    from shardwave.models.training.config import defaults
    from shardwave.models.training.train import train

    name = model if isinstance(model, str) else register(model)
    name = resolve_model(name, shard_set, out, options, resume=resume)
    return train(shard_set, defaults(name, network_options=dict(params or {}), **options), out, resume=resume)


def audit(
    shard_set: Path | str,
    out: Path | str,
    *,
    run: Path | str | None = None,
    audio: Path | str | None = None,
) -> dict[str, Any]:
    """Check a shard set for copies across splits, wrong labels, shortcuts, imbalance and damaged clips.

    Args:
        shard_set: Folder or URL of the set.
        out: Folder for audit.csv, audit.html and groups.csv.
        run: Run folder of a training on the set with `folds="all"`, for probable label errors.
        audio: Folder of the set's audio files.

    Returns:
        `severities` and `kinds` (numbers of findings), `findings` (a list of dictionaries) and the names of
        the files.

    Example:
        >>> shardwave.audit("sets/mine", "audits/mine", run="runs/mlp-folds")["severities"]
        {'high': 2, 'medium': 15, 'low': 4}
    """
    from shardwave.bench.audit import audit

    return audit(shard_set, out, run=run, audio=audio)


def evaluate(
    run: Path | str, shard_set: Path | str, *, splits: Sequence[str] | None = None, device: str = "auto"
) -> Evaluation:
    """Score the model of a run on a shard set.

    Args:
        run: The run folder.
        shard_set: Folder or URL of the set.
        splits: Splits to score; all splits by default.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        `scores` by name, for example `test_full_accuracy`; `per_class`; `confusion`; and `splits`, which
        states how the run used the clips of each split: for training, validation or test, or not at all.
    """
    from shardwave.models.evaluation.evaluate import evaluate

    return evaluate(run, shard_set, splits, device)


def predict(
    run: Path | str,
    clips: Path | str | Iterable[np.ndarray],
    *,
    rate: int | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> list[Prediction]:
    """Predict the class of clips.

    Args:
        run: The run folder.
        clips: A folder of audio, a file, a shard set, or arrays of samples, float32 [time] or [time,
            channels].
        rate: Sample rate of the arrays in Hz.
        device: `auto`, `cpu` or `cuda`.
        workers: Processes that read audio; one per core by default.

    Returns:
        One prediction per clip, in the order of the paths or of the arrays. Files that cannot be used are
        logged as warnings.
    """
    from shardwave.models.evaluation import predict as prediction

    if isinstance(clips, str | Path):
        predictions = prediction.predict_clips(run, clips, device=device, workers=workers)
        names, classes = [row.source.path for row in predictions.rows], predictions.trained.classes
        probabilities = [row.probabilities for row in predictions.rows]
    else:
        if rate is None:
            raise UsageError("rate is missing: give the sample rate of the arrays in Hz")
        from shardwave.models.evaluation.audio_classifier import AudioClassifier
        from shardwave.models.evaluation.calibration import temperature

        classifier = AudioClassifier(load_model(run), device, temperature(Path(run)))
        samples = [_mono(clip, rate, classifier.config.sample_rate) for clip in clips]
        names, classes = [str(number) for number in range(len(samples))], classifier.trained.classes
        probabilities = list(classifier(samples)) if samples else []
    return [
        Prediction(
            name,
            classes[int(np.argmax(row))],
            dict(zip(classes, np.asarray(row, float).tolist(), strict=True)),
        )
        for name, row in zip(names, probabilities, strict=True)
    ]


def export(run: Path | str, out: Path | str, format: str = "onnx") -> Path:
    """Write the model of a run, from samples to class probabilities, as one file that needs no Shardwave.

    Args:
        run: The run folder.
        out: File to write. Its input `waveform` is float32 [samples], mono, at the sample rate of its
            metadata, its output `probabilities` float32 [classes].
        format: "onnx", or "torch" for a program of `torch.export` (a file .pt2).

    Raises:
        UsageError: The run cannot be exported; the message states the reason.
    """
    from shardwave.models.evaluation.export import export

    export(run, out, format)
    return Path(out)


def load_model(run: Path | str, model: Factory | None = None) -> Trained:
    """Load the model of a run.

    Args:
        run: The run folder.
        model: The function that returns the network, if it cannot be imported by its name.

    Returns:
        An object with `network`, `classes`, `config` and `spectrogram`. `network` is an `nn.Module` in
        evaluation mode. It maps raw batches, uint8 [batch, frequency, time] or float32 [batch, features], to
        logits [batch, classes].
    """
    from shardwave.models.networks.registry import register
    from shardwave.models.runs import checkpoint

    if model is not None:
        register(model)
    return checkpoint.load(Path(run) / checkpoint.NAME)


def tune(
    shard_set: Path | str,
    model: str | Factory,
    out: Path | str,
    *,
    space: Mapping[str, Dimension] | Path | str | None = None,
    backend: str = "optuna",
    resume: bool = False,
    **options: Any,
) -> RunResult:
    """Search hyper-parameters of a model.

    Args:
        shard_set: Folder or URL of the set.
        model: Name of a network, or a function as for `train`.
        out: The run folder.
        space: Dimensions by name (`Choice`, `Grid`, `Uniform`, `LogUniform`), or a YAML file; the default of
            the model if None. Names are fields of `TrainConfig`, or keyword arguments of the function.
        backend: `optuna`, `ray` or `random`.
        resume: Continue an interrupted search.
        **options: Fields of `SearchConfig`, for example `trials`, `epochs`, `jobs`, `scheduler`, `val_fold`.

    Returns:
        The content of result.json; `best` holds the parameters and the value of the best trial.
    """
    from shardwave.models.networks.registry import register
    from shardwave.search.config import SearchConfig
    from shardwave.search.run import search

    name = model if isinstance(model, str) else register(model)
    config = SearchConfig(name, backend, space=space, **options)
    return search(shard_set, config, out, resume=resume)


def report(runs: Path | str | Sequence[Path | str], out: Path | str = "report.html") -> Path:
    """Write one self-contained HTML page from run folders and benchmark records.

    Args:
        runs: A run folder or a folder of benchmark records, or several.
        out: The HTML file to write.

    Returns:
        Path of the file.
    """
    from shardwave.bench.report import page

    page.write([runs] if isinstance(runs, str | Path) else list(runs), out)
    return Path(out)
