"""Tabular features from the transform of the images, and librosa's functions called one by one."""

from __future__ import annotations

from collections.abc import Iterator

from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope, missing
from shardwave.bench.harness.timing import Case, timed
from shardwave.bench.stages.preprocess import engine_case, fft_baseline, fft_limit, pooled_case
from shardwave.preprocess.config import SpectrogramConfig

STAGE, UNIT = "features", "x real time"
SETS = {
    "image + features of the clip": SpectrogramConfig(slices=0, features=True),
    "images + features of the clip and 10 slices": SpectrogramConfig(features=True),
    "image alone": SpectrogramConfig(slices=0),
}


def run(scope: Scope) -> Iterator[Record]:
    """Measure files to images and features on all cores, and to images alone.

    Yields:
        Records in seconds of audio per second.
    """
    clips = scope.audio[: scope.workers * scope.pick(2, 25)]
    cases = [
        *fft_baseline(scope),
        fft_limit(scope),
        *(engine_case(scope, f"numba cpu: {name}", "numba", config, clips) for name, config in SETS.items()),
    ]
    peer, absent = "librosa.feature, one by one, whole clip", missing("librosa", "bench")
    if absent is None:
        from shardwave.bench.peers.features import librosa_setup

        cases.append(
            pooled_case(scope, peer, "peer", clips[: scope.workers * scope.pick(1, 4)], 1, librosa_setup)
        )
    else:
        cases.append(Case(peer, "peer", skipped=absent))
    yield from timed(STAGE, UNIT, cases, scope.plan, seconds=scope.pick(2, 20))
