"""Export of a trained network, from waveforms to class probabilities, to ONNX or `torch.export`."""

from __future__ import annotations

import io
import json
import logging
import warnings
from pathlib import Path
from typing import TypedDict

import torch

from shardwave.common.errors import ShardwaveError, UsageError, require
from shardwave.models.evaluation import calibration
from shardwave.models.evaluation.embedding_waveform import EmbeddingClassifier, takes_embeddings
from shardwave.models.evaluation.licences import pretrained_licences
from shardwave.models.evaluation.waveform import WaveformClassifier
from shardwave.models.runs import checkpoint
from shardwave.models.training.config import backbone_of
from shardwave.shards.storage import atomic

FORMATS = ("onnx", "torch")
OPSET = 20
METADATA = "metadata.json"  # name of the metadata in a file of `torch.export`


class ExportResult(TypedDict):
    """Result of `export`."""

    command: str
    run: str
    out: str
    format: str
    bytes: int
    metadata: dict[str, str]  # see `metadata`


def export(run: Path | str, out: Path | str, format: str = "onnx") -> ExportResult:
    """Write the network of a run as one file that can be used without Shardwave.

    The graph takes `waveform`, float32 [samples], mono, at the sample rate of the metadata, and returns
    `probabilities`, float32 [classes], from the view whose score selected the epoch. It contains the
    spectrogram and its slices, or the pretrained audio networks of the embeddings that the network takes, and
    equals `predict` up to rounding.

    Args:
        run: Run folder.
        out: File to write.
        format: "onnx", or "torch" for a program of `torch.export` (conventional suffix .pt2).

    Raises:
        UsageError: The format is unknown, or the run cannot be exported; the message states the reason.
        ShardwaveError: PyTorch cannot export the network.
    """
    require(format in FORMATS, f"--format must be one of {', '.join(FORMATS)}", format)
    if format == "onnx":
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401  # used by torch.onnx
        except ImportError as error:
            raise UsageError(
                f"--format onnx: {error.name} is not installed: pip install 'shardwave[onnx]'"
            ) from None
    out = Path(out)
    if format == "torch" and out.suffix != ".pt2":
        raise UsageError(
            f"--out must end in .pt2 with --format torch, as torch.export.load requires, got {out}"
        )
    trained = checkpoint.load(Path(run) / checkpoint.NAME)
    temperature = calibration.temperature(Path(run))
    network: WaveformClassifier | EmbeddingClassifier
    if takes_embeddings(trained):
        network = EmbeddingClassifier(trained, temperature)
    else:
        network = WaveformClassifier(trained, temperature)
    described = metadata(trained, network.sample_rate)
    example = torch.randn(5 * network.sample_rate, generator=torch.Generator().manual_seed(0))
    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.export.export(
                network.eval(),
                (example,),
                dynamic_shapes=({0: torch.export.Dim("samples", min=1)},),
                # conditions that hold for every length, which the solver of shapes cannot prove
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            content = _onnx(program, described) if format == "onnx" else _torch(program, described)
        except Exception as error:  # the exporters raise errors of many classes
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise ShardwaveError(
                f"{run}: PyTorch cannot export model {trained.config.model} as {format} ({reason}): export a "
                "run of another model, or use shardwave.predict"
            ) from error
    atomic.write_bytes(out, content)
    return {
        "command": "export",
        "run": str(run),
        "out": str(out),
        "format": format,
        "bytes": len(content),
        "metadata": described,
    }


def metadata(trained: checkpoint.Trained, sample_rate: int) -> dict[str, str]:
    """Return the metadata of an exported file.

    Args:
        trained: The trained network.
        sample_rate: Sample rate of the waveform in Hz.

    Returns:
        `classes` (JSON list), `sample_rate` (Hz), `fingerprint`, `set_id`, `model`, `view`, `spectrogram`
        (JSON object) and `license` (of the weights).
    """
    config = trained.config
    pretrained = pretrained_licences(
        backbone_of(config) if config.weights == "default" else None, config.inputs
    )
    terms = f"Trained on the shard set {trained.set_id}: the terms of its audio apply."
    return {
        "classes": json.dumps(trained.classes, ensure_ascii=False),
        "sample_rate": str(sample_rate),
        "fingerprint": trained.fingerprint,
        "set_id": trained.set_id,
        "model": trained.config.model,
        "view": trained.selected,
        "spectrogram": json.dumps(trained.spectrogram),
        "license": " ".join([*(f"Pretrained weights, {text}." for text in pretrained), terms]),
    }


def _onnx(program: torch.export.ExportedProgram, described: dict[str, str]) -> bytes:
    """Convert a program to ONNX, check it, and return the content of its file."""
    import onnx

    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=["waveform"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, described)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _torch(program: torch.export.ExportedProgram, described: dict[str, str]) -> bytes:
    """Return the content of the file of a program."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(described)})
    return buffer.getvalue()
