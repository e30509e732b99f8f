"""A search's figures, and the importance they show."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from shardwave.search import figures
from shardwave.search.space import Choice, Grid, LogUniform, Space, Uniform
from shardwave.search.trial import Trial

SPACE = Space(
    {
        "a": Uniform(0.0, 1.0),
        "rate": LogUniform(1e-5, 1e-1),
        "kind": Choice((3, 5, 7)),
        "width": Grid((8, 16)),
    }
)


def trials(value, count: int = 200) -> list[Trial]:
    made = []
    for number in range(count):
        params = SPACE.point(number, 0)
        made.append(
            Trial(
                number,
                params,
                "COMPLETE",
                [value(params)],
                [1.0],
                start=float(number),
                seconds=1.0 + number,
                info={"parameters": number},
            )
        )
    return made


def test_importance_is_what_each_parameter_explains() -> None:
    noise = np.random.default_rng(0)
    alone = figures.explained(trials(lambda params: -((math.log10(params["rate"]) + 3) ** 2)), SPACE)
    assert alone["rate"] > 0.999 and max(alone[name] for name in ("a", "kind", "width")) < 0.05
    shared = figures.explained(
        trials(lambda params: (params["kind"] == 5) + params["a"] + 0.1 * noise.normal()), SPACE
    )
    assert 0.6 < shared["kind"] < 0.8 and 0.15 < shared["a"] < 0.4 and shared["rate"] < 0.05


def test_importance_of_few_trials() -> None:
    nothing = dict.fromkeys(SPACE.dimensions, 0.0)
    assert figures.explained([], SPACE) == nothing
    assert (
        figures.explained(trials(lambda params: params["a"], 2), SPACE)["a"] == 0.0
    )  # two points fit anything
    assert figures.explained(trials(lambda params: 0.5), SPACE) == nothing


def test_all_figures_are_drawn_for_any_trials(tmp_path: Path) -> None:
    failed = Trial(0, SPACE.point(0, 0), "FAILED", error="no luck")
    some = [
        *trials(lambda params: params["a"], 5),
        Trial(5, SPACE.point(5, 0), "PRUNED", [0.2], [1.0]),
        failed,
    ]
    for name, chosen in (("some", some), ("failed", [failed]), ("none", [])):
        figures.progress(tmp_path / f"{name}-progress.png", chosen, name)
        figures.parameters(tmp_path / f"{name}-parameters.png", chosen, SPACE, name)
        figures.importance(tmp_path / f"{name}-importance.png", chosen, SPACE, name)
        figures.cost(tmp_path / f"{name}-cost.png", chosen, name)
    drawn = list(tmp_path.glob("*.png"))
    assert len(drawn) == 12 and all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
