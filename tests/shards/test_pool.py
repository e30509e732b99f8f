from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shardwave.shards.format.verify import verify
from shardwave.shards.read.open_set import open_set
from tests.shards.conftest import CONFIG

SCRIPT = """
import sys
from shardwave.preprocess.config import SpectrogramConfig
from shardwave.shards.build.builder import BuildOptions, build
print("ran")
build(sys.argv[1], sys.argv[2], {config}, BuildOptions(workers=2))
"""


def test_a_script_needs_no_guard_for_its_main_program(audio: Path, tmp_path: Path) -> None:
    """Building processes do not run it once more."""
    (tmp_path / "script.py").write_text(SCRIPT.format(config=repr(CONFIG)))
    command = [sys.executable, tmp_path / "script.py", audio, tmp_path / "set"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout) == (0, "ran\n"), run.stderr
    assert verify(open_set(tmp_path / "set"))["clips"] == 24
