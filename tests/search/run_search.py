"""A search as a process, to be killed: run_search.py BACKEND FOLDER OBJECTIVE TRIALS [STORAGE [STUDY] |
ADDRESS]."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    import objectives

    from shardwave.search.backends.registry import make_backend
    from shardwave.search.budget import SearchBudget
    from shardwave.search.space import Grid, LogUniform, Space
    from shardwave.search.trial_log import TrialLog

    backend, folder, objective, trials = sys.argv[1:5]
    options = (
        dict(zip(("storage", "study"), [*sys.argv[5:], "shared"][:2], strict=True))
        if len(sys.argv) > 5
        else {}
    )
    if backend == "ray" and options:
        options = {"address": options["storage"]}
    out = Path(folder)
    space = Space({"quality": Grid((0.25, 0.5, 0.75)), "rate": LogUniform(1e-4, 1e-1)})
    budget = SearchBudget(
        trials=int(trials),
        epochs=objectives.EPOCHS,
        jobs=3 if "address" in options else 2,
        scheduler="none",
        sampler="random",
    )
    result = make_backend(backend, **options).run(
        getattr(objectives, objective)(out), space, budget, 0, TrialLog(out)
    )
    (out / "outcome.json").write_text(
        json.dumps({"state": result.state, "trials": [trial.row() for trial in result.trials]})
    )


if __name__ == "__main__":
    main()
