"""Commands watched from outside."""

import sys
import time

import pytest

from shardwave.bench.harness.process import watch
from shardwave.common.errors import ShardwaveError

SCRIPT = """
import sys, time, pathlib, subprocess
time.sleep(0.2)
pathlib.Path(sys.argv[1]).touch()
block = bytearray(80_000_000)
subprocess.run([sys.executable, '-c', 'b = bytearray(160_000_000); import time; time.sleep(0.4)'])
"""


def test_first_result_duration_and_the_largest_process_are_measured(tmp_path):
    file = tmp_path / "first"
    before = time.time()
    seen = watch([sys.executable, "-c", SCRIPT, str(file)], file.exists)
    assert before <= seen.started <= time.time()
    assert 0.2 <= seen.first < seen.seconds
    assert 160 < seen.peak_mb < 400


def test_a_failing_command_is_reported_with_its_last_line():
    with pytest.raises(ShardwaveError, match="exit status 3: no such thing"):
        watch([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"])
