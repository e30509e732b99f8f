"""From a folder of audio to a tuned classifier: shard sets, models, hyper-parameter search, benchmarks."""

import os

# Idle OpenMP threads sleep instead of spinning: beside other programs, a spinning thread takes the time that it waits for.
# GNU's and LLVM's (Intel's) runtimes read these when torch loads them, so they are set before any module imports torch.
for _name, _value in {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}.items():
    os.environ.setdefault(_name, _value)
