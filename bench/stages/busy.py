"""Training with default and with fixed numbers of threads while other processes use all cores."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shardwave.bench.harness.process import ROOT
from shardwave.bench.harness.record import Record
from shardwave.bench.harness.scope import Scope
from shardwave.bench.harness.timing import Case, Seconds, timed

STAGE, UNIT = "busy", "s"
SPIN = "while True: pass"
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # default of GNU OpenMP
TRAIN = """
import json, sys
from shardwave.models.training.config import defaults
from shardwave.models.data.training_data import TrainingData
from shardwave.models.training.fit import fit
from shardwave.models.training.threads import useful_threads
path, model, epochs = sys.argv[1:]
config = defaults(model, epochs=int(epochs), train_view="slice", device="cpu")
data = TrainingData(path, config)
threads = useful_threads(data.learner(config, 1).network, config.batch_size)
print(json.dumps([fit(data, config).seconds["total"], threads]))
"""


def run(scope: Scope) -> Iterator[Record]:
    """Measure trainings of the MLP and of the CNN while one other process per core works without a pause.

    Yields:
        Seconds of a training with the default number of threads and with fixed numbers of threads.
    """
    from shardwave.bench.stages.training import labelled_set

    path = labelled_set(scope, 128, scope.pick(8, 60))
    yield from compare(scope, path, "mlp", scope.pick(2, 30))
    yield from compare(scope, path, "cnn", 1)


def compare(scope: Scope, path: Path, model: str, epochs: int) -> Iterator[Record]:
    """Measure the trainings of one model.

    Args:
        scope: Scope of the run.
        path: Shard set.
        model: Model to train.
        epochs: Epochs of a training.
    """
    variables_kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "KMP_", "GOMP_", "MKL_"))
    }
    command = [sys.executable, "-c", TRAIN, str(path), model, str(epochs)]

    def case(name: str, role: str, **variables: str) -> Case:
        params = {"model": model, "epochs": epochs, "neighbours": scope.workers}

        def train() -> Seconds:  # torch reads the OpenMP variables when it is imported
            environment = {**variables_kept, "PYTHONPATH": str(ROOT), **variables}
            done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
            seconds, params["threads"] = json.loads(done.stdout)
            return Seconds(seconds)

        return Case(name, role, train, params=params)

    counts = sorted({1, scope.workers // 2 or 1, scope.workers})
    fixed = [case(f"{model}: {n} thread{'s' * (n > 1)}", "peer", OMP_NUM_THREADS=str(n)) for n in counts]
    most = case(
        f"{model}: {counts[-1]} threads that spin", "peer", OMP_NUM_THREADS=str(counts[-1]), **SPINNING
    )
    cases = [case(f"{model}: default threads", "ours"), *fixed, most]
    with neighbours(scope.workers):
        yield from timed(STAGE, UNIT, cases, scope.plan)


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Run `count` processes that use one core each."""
    started = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
