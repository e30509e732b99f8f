"""Rounds of `search` killed with SIGKILL at random moments and gone on with: kill_rounds.py SET BACKEND
[ROUNDS [SEED]].

Prints one JSON object: rounds, kills that met a running search, rounds that ended COMPLETE, trials lost
(ended before a kill and missing afterwards), trials recorded twice, and what is left in the temporary folder.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TRIALS = 30


def main(shard_set: str, backend: str, rounds: int = 20, seed: int = 0) -> dict[str, Any]:
    chance, counts = (
        random.Random(seed),
        Counter(dict.fromkeys(("rounds", "kills", "complete", "lost", "twice", "left"), 0)),
    )
    folder = Path(tempfile.mkdtemp(prefix="kills-", dir="/tmp"))
    temporary = folder / "tmp"
    temporary.mkdir()
    seconds = duration(command(shard_set, backend, folder / "first"), temporary)
    for number in range(rounds):
        out = folder / f"run-{number}"
        counts["rounds"] += 1
        for _ in range(chance.choice((1, 1, 2))):
            before = ended(out)
            counts["kills"] += killed(
                command(shard_set, backend, out), temporary, chance.uniform(0.02, 0.95) * seconds
            )
            counts["lost"] += len(before.keys() - ended(out).keys())
        before = ended(out)
        done = subprocess.run(
            command(shard_set, backend, out),
            env=environment(temporary),
            capture_output=True,
            text=True,
            timeout=300,
        )
        after = ended(out)
        counts["lost"] += len(before.keys() - after.keys())
        counts["twice"] += sum(after.values()) - len(after)
        whole = done.returncode == 0 and sorted(after) == list(range(TRIALS))
        counts["complete"] += whole and json.loads((out / "result.json").read_text())["state"] == "COMPLETE"
        if not whole:
            print(
                f"round {number}: exit {done.returncode}, {len(after)} trials: {done.stderr[-2000:]}",
                file=sys.stderr,
            )
    counts["left"] = len(list(temporary.iterdir()))
    shutil.rmtree(folder)
    return {"backend": backend, "trials": TRIALS, **counts}


def command(shard_set: str, backend: str, out: Path) -> list[str]:
    options = [
        "--backend",
        backend,
        "--model",
        "mlp",
        "--trials",
        str(TRIALS),
        "--epochs",
        "3",
        "--jobs",
        "2",
        "--device",
        "cpu",
    ]
    return [
        sys.executable,
        str(ROOT / "cli.py"),
        "search",
        shard_set,
        *options,
        "--out",
        str(out),
        "--resume",
        "--quiet",
    ]


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary)}


def duration(arguments: list[str], temporary: Path) -> float:
    start = time.monotonic()
    subprocess.run(arguments, env=environment(temporary), check=True, capture_output=True)
    return time.monotonic() - start


def killed(arguments: list[str], temporary: Path, seconds: float) -> bool:
    """Start a search and kill its whole group (main process, workers) after so many seconds, if it still
    runs."""
    process = subprocess.Popen(
        arguments,
        env=environment(temporary),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def ended(out: Path) -> Counter[int]:
    """How often each trial is recorded as ended; half a line counts as none."""
    path, found = out / "trials.jsonl", Counter[int]()
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            found[json.loads(line)["trial"]] += 1
        except ValueError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))))
