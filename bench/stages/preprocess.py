"""Audio files to uint8 images on all cores: every engine and set of views, peers, and the FFT alone."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shardwave.bench.harness import limits, process
from shardwave.bench.harness.audio import CLASSES, RATE, SECONDS, repeat_clips
from shardwave.bench.harness.record import Params, Record
from shardwave.bench.harness.scope import NO_CUDA, Scope, missing
from shardwave.bench.harness.timing import Case, timed
from shardwave.common.errors import BadAudio
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.preprocess.engines.registry import CPU_ONLY, make_engine

STAGE, UNIT = "preprocess", "x real time"
FULL = SpectrogramConfig(slices=0)
SETS = {
    "full": FULL,
    "full + 10 slices": SpectrogramConfig(),
    "full + 10 slices + features": SpectrogramConfig(features=True),
}

BUILDS, BESIDE = "Whole builds by the command line", " (beside the builds)"
VIEWS = 11  # images of a clip that a build writes
HEADLINE = "numba cpu: full + 10 slices"  # the record of the step "computing images" of a clip


def run(scope: Scope) -> Iterator[Record]:
    """Measure engines, peers and the FFT alone; then whole builds: rate, start to first shard, memory.

    The limit of files to images is the operations of the FFTs or one copy of the files' bytes. A build also
    writes, syncs and digests its images.

    Yields:
        Records in seconds of audio per second, in seconds, and in MB.
    """
    cases = [*fft_baseline(scope), fft_limit(scope), *_peers(scope), *_engines(scope, "cpu")]
    if not scope.quick:  # takes seconds per clip
        case = engine_case(scope, "reference cpu: full", "reference", FULL, scope.audio[: scope.workers])
        cases.append(dataclasses.replace(case, once=True))
    yield from timed(STAGE, UNIT, cases, scope.plan, seconds=scope.pick(3, 60), limit=scope.pick(8, 240))
    yield from timed(STAGE, UNIT, list(_engines(scope, "cuda")), scope.plan)
    yield from _builds(scope)


def _engines(scope: Scope, device: str) -> Iterator[Case]:
    """Yield cases of all engines of a device; slow engines get fewer clips."""
    for engine in ("numba", "torch", "dali"):
        if engine in CPU_ONLY and device == "cuda":
            continue
        absent = missing("nvidia.dali", "dali") if engine == "dali" else None
        absent = absent or (NO_CUDA if device == "cuda" and not scope.cuda else None)
        for name, config in SETS.items():
            name = f"{engine} {device}: {name}"
            if absent:
                yield Case(name, "ours", skipped=absent)
            elif device == "cuda":
                clips = scope.audio * (1 if engine == "dali" else scope.pick(1, 10))
                params = {**parameters(scope, len(clips)), "workers": 1, "group": "GPU: files to images"}
                work = functools.partial(streaming(engine, device, config), clips)
                yield Case(name, "ours", work, len(clips) * SECONDS, params)
            else:
                few = engine != "numba" and (scope.quick or config != FULL)
                clips = scope.audio[: scope.workers * scope.pick(2, 10)] if few else scope.audio
                yield engine_case(scope, name, engine, config, clips)


def engine_setup(
    engine: str, device: str, config: SpectrogramConfig
) -> Callable[[Sequence[str | Path]], int]:
    """Limit torch to one thread, and return the function that `streaming` returns.

    Args:
        engine: Name of the engine.
        device: Device of the engine.
        config: Spectrogram configuration.
    """
    import torch

    torch.set_num_threads(1)
    return streaming(engine, device, config)


def streaming(engine: str, device: str, config: SpectrogramConfig) -> Callable[[Sequence[str | Path]], int]:
    """Return `work(paths)`, which reads files as a build does and returns the number of images.

    Args:
        engine: Name of the engine.
        device: Device of the engine.
        config: Spectrogram configuration.
    """
    maker = make_engine(engine, device, config)

    def work(paths: Sequence[str | Path]) -> int:
        images = 0
        for i, output in maker.stream(map(Path, paths)):
            if isinstance(output, BadAudio):
                raise RuntimeError(f"{paths[i]}: {output}")
            images += 1 + len(output.slices)
        return images

    return work


def _least(scope: Scope, paths: Sequence[Path]) -> float:
    """Return the least seconds for images of `paths` on the CPU: FFTs, or one copy of the files' bytes."""
    operations = len(paths) * limits.stft_operations(SECONDS, RATE)
    return scope.machine.least(flops=operations, cache=sum(path.stat().st_size for path in paths))[0]


def fft_limit(scope: Scope) -> Case:
    """Return the case of the limit of files to images on the CPU."""
    count, size = len(scope.audio), sum(path.stat().st_size for path in scope.audio)
    operations = count * limits.stft_operations(SECONDS, RATE)
    return scope.machine.limit_case(
        "", count * SECONDS, parameters(scope, count), flops=operations, cache=size
    )


def fft_baseline(scope: Scope, group: str = "", beside: str = "") -> list[Case]:
    """Return cases of the FFTs alone on all cores: with a process per core, and with a thread per core.

    Args:
        scope: Scope of the run.
        group: Group of the cases in the report, if it is not the default one.
        beside: Suffix that makes the names of the cases unique in their stage.
    """
    count = len(scope.audio)
    params = {
        **parameters(scope, count),
        "n_fft": limits.N_FFT,
        "hop_length": limits.HOP,
        **({"group": group} if group else {}),
    }
    job = limits.fft_setup, SECONDS, RATE
    scope.pool.each([1] * scope.workers, *job)
    shares = [2] * (count // 2) + [1] * (count % 2)
    threads = limits.fft_setup(SECONDS, RATE, scope.workers)
    least, _ = scope.machine.least(flops=count * limits.stft_operations(SECONDS, RATE))

    def processes() -> list[Any]:
        return list(scope.pool.map(shares, *job))

    return [
        Case(
            f"FFT alone, a process per core{beside}",
            "baseline",
            processes,
            count * SECONDS,
            params,
            least=least,
        ),
        Case(
            f"FFT alone, a thread per core{beside}",
            "baseline",
            lambda: threads(count),
            count * SECONDS,
            params,
            least=least,
        ),
    ]


def engine_case(
    scope: Scope, name: str, engine: str, config: SpectrogramConfig, paths: Sequence[Path]
) -> Case:
    """Return the case of an engine with one worker process per core.

    A task is ten clips for DALI, and two clips for other engines.

    Args:
        scope: Scope of the run.
        name: Name of the case.
        engine: Name of the engine.
        config: Spectrogram configuration.
        paths: Audio files.
    """
    chunk = 10 if engine == "dali" else 2
    case = pooled_case(scope, name, "ours", paths, chunk, engine_setup, engine, "cpu", config)
    if name == HEADLINE:
        case.params["clip_step"] = {
            "step": "Decoding and computing the images",
            "work": SECONDS,
            "when": "once",
        }
    return case


def pooled_case(
    scope: Scope, name: str, role: str, paths: Sequence[Path], chunk: int, setup: Callable, *arguments: Any
) -> Case:
    """Return the case of a job over files with one worker process per core.

    Every worker runs one task before the measurement.

    Args:
        scope: Scope of the run.
        name: Name of the case.
        role: Role of the case.
        paths: Audio files.
        chunk: Files of a task.
        setup: Function that returns the job in a worker.
        *arguments: Arguments of `setup`.
    """
    names = [str(path) for path in paths]
    scope.pool.each([[names[i % len(names)]] for i in range(scope.workers)], setup, *arguments)
    tasks = [names[i : i + chunk] for i in range(0, len(names), chunk)]
    work, least = len(names) * SECONDS, _least(scope, paths)
    params = parameters(scope, len(names))
    return Case(name, role, lambda: list(scope.pool.map(tasks, setup, *arguments)), work, params, least=least)


def parameters(scope: Scope, clips: int) -> Params:
    """Return the parameters of records about `clips` clips."""
    amounts = {"clips": clips, "seconds": SECONDS, "image_size": FULL.image_size, "workers": scope.workers}
    return {"group": "Files to results in memory, on all cores", **amounts, "audio": scope.audio_source}


def _peers(scope: Scope) -> list[Case]:
    """Return cases of the peers on all cores; slow peers get fewer clips."""
    from shardwave.bench.peers import spectrogram

    clips, cases = scope.audio, _librosa_figures(scope)
    if missing("librosa", "bench") is None:
        images, some = str(scope.subfolder("images")), clips[: scope.workers * scope.pick(2, 8)]
        cases.append(
            pooled_case(scope, "librosa, PIL, PNG", "peer", some, 1, spectrogram.librosa_setup, images)
        )
    some = clips[: scope.workers * scope.pick(2, 16)]
    cases.append(
        pooled_case(scope, "torchaudio, torchvision resize", "peer", some, 1, spectrogram.torchaudio_setup)
    )
    if missing("nvidia.dali", "dali") is None:
        dali = spectrogram.DaliPipeline([str(path) for path in clips], scope.workers)
        work, params = len(clips) * SECONDS, parameters(scope, len(clips))
        cases.append(
            Case("DALI stock pipeline, CPU", "peer", dali.run, work, params, least=_least(scope, clips))
        )
    return cases


def _librosa_figures(scope: Scope, group: str = "", beside: str = "") -> list[Case]:
    """Return the case of librosa with matplotlib, if installed; arguments as for `fft_baseline`."""
    from shardwave.bench.peers import spectrogram

    if missing("librosa", "bench"):
        return []
    few, images = scope.audio[: scope.workers * scope.pick(1, 2)], str(scope.subfolder("images"))
    name = f"librosa, specshow, PNG{beside}"
    case = pooled_case(scope, name, "peer", few, 1, spectrogram.report_setup, images)
    case.params.update({"group": group} if group else {})
    return [case]


def _builds(scope: Scope) -> Iterator[Record]:
    """Measure whole builds in fresh processes: rate, rate without start-up, first shard and memory."""
    count = scope.pick(20, 1000)
    folder = scope.subfolder("build")
    clips = repeat_clips(scope.audio, folder / "audio", count)
    few = repeat_clips(scope.audio, folder / "few", max(CLASSES, scope.workers))
    params = {**parameters(scope, count), "group": BUILDS, "different_clips": len(scope.audio)}
    variants = [""] if scope.quick else ["", " + features", *[", cuda"] * scope.cuda]
    runs: dict[str, list[process.Watched]] = {options: [] for options in variants}
    out = folder / "set"
    clear = functools.partial(shutil.rmtree, out, ignore_errors=True)  # takes seconds, not timed

    def build(options: str, source: Sequence[Path] = clips) -> process.Watched:
        command = [*process.CLI, "shard", str(source[0].parent.parent), "--out", str(out)]
        command += ["--device", "cuda"] if "cuda" in options else ["--engine", "numba"]
        command += ["--features"] * ("features" in options) + ["--val-fraction", "0"]
        clear()
        return process.watch(command, lambda: next(out.glob("*.tar"), None) is not None)

    images = float(count * VIEWS * FULL.image_size**2)  # bytes
    bytes_ = {"disk_write": images, "digest": images}
    operations = {"flops": count * limits.stft_operations(SECONDS, RATE)}

    def case(options: str) -> Case:
        name = f"shard command: full + 10 slices{options}"
        work, least = (
            count * SECONDS,
            scope.machine.least(**({} if "cuda" in options else operations), **bytes_)[0],
        )
        return Case(
            name, "ours", lambda: runs[options].append(build(options)), work, params, clear, least=least
        )

    starts = {options: min(build(options, few).seconds for _ in range(scope.pick(1, 3))) for options in runs}
    times = scope.pick(1, 5)
    cases = [case(options) for options in runs]
    beside = [*fft_baseline(scope, BUILDS, BESIDE), *_librosa_figures(scope, BUILDS, BESIDE)]
    limit = scope.pick(8, 240)
    bound = scope.machine.limit_case("build: ", count * SECONDS, params, **operations, **bytes_)
    records = timed(
        STAGE, UNIT, [*beside, *cases, bound], scope.plan, warmup=0, minimum=times, maximum=times, limit=limit
    )
    for options, builds in runs.items():
        name = f"shard command, once started: full + 10 slices{options}"
        start = starts[options]
        details = {**params, "start": start, "start_clips": len(few)}
        if min(watched.seconds for watched in builds) > 1.5 * start:
            rates = [(count - len(few)) * SECONDS / (watched.seconds - start) for watched in builds]
            records.append(Record(STAGE, name, "ours", UNIT, rates, details))
        else:
            records.append(
                Record(
                    STAGE,
                    name,
                    "ours",
                    UNIT,
                    params=details,
                    skipped="the build is too short to subtract its start-up",
                )
            )
    yield from records
    for options, builds in runs.items():
        firsts = [watched.first for watched in builds]
        yield Record(
            STAGE, f"start to first shard{options}", "ours", "s", firsts, {**params, "group": "Start"}
        )
    all_builds = [watched for builds in runs.values() for watched in builds]
    yield process.memory(STAGE, "largest process of a build", all_builds, {**params, "group": "Memory"})
