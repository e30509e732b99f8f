"""Figures of a search: progress, parameters, importance of the parameters, cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from shardwave.search.space import Choice, LogUniform, Space
from shardwave.search.trial import Trial, best_so_far
from shardwave.shards.figures import prepare, save

prepare()
COLOURS = {"COMPLETE": "#0072B2", "PRUNED": "#E69F00", "FAILED": "#D55E00"}  # Okabe & Ito
MARKERS = {"COMPLETE": "o", "PRUNED": "v", "FAILED": "x"}


def progress(path: Path, trials: Sequence[Trial], title: str) -> None:
    """Plot the best value over time and over the epochs of all trials.

    Args:
        path: File of the figure.
        trials: The trials that ended; those without values are not drawn.
        title: Title of the figure.
    """
    figure = Figure(figsize=(10, 4), layout="tight")
    over_time, over_epochs = figure.subplots(1, 2, sharey=True)
    steps = best_so_far(trials)
    if steps:
        seconds, epochs, best = zip(*steps, strict=True)
        over_time.step(seconds, best, where="post")
        over_epochs.step(epochs, best, where="post")
    over_time.set(xlabel="seconds since the first trial started", ylabel="best validation value")
    over_epochs.set(xlabel="epochs spent, all trials together")
    for axes in (over_time, over_epochs):
        axes.grid(alpha=0.3)
    _save(figure, path, title)


def parameters(path: Path, trials: Sequence[Trial], space: Space, title: str) -> None:
    """Plot the best value of each trial against each searched parameter.

    Args:
        path: File of the figure.
        trials: The trials that ended; those without values are not drawn.
        space: The search space; an axes per dimension.
        title: Title of the figure.
    """
    names = list(space.dimensions)
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), layout="tight")
    for axes, name in zip(
        figure.subplots(rows, columns, squeeze=False).flat,
        [*names, *[None] * (rows * columns - len(names))],
        strict=True,
    ):
        if name is None:
            axes.axis("off")
            continue
        dimension = space.dimensions[name]
        _scatter(
            axes,
            trials,
            lambda trial, name=name, dimension=dimension: _position(dimension, trial.params[name]),
        )
        if isinstance(dimension, LogUniform):
            axes.set_xscale("log")
            axes.minorticks_off()
        elif isinstance(dimension, Choice):
            axes.set_xticks(range(len(dimension.values)), [str(value) for value in dimension.values])
        axes.set_xlabel(name)
    _legend(figure, trials)
    _save(figure, path, title)


def cost(path: Path, trials: Sequence[Trial], title: str) -> None:
    """Plot the best value of each trial against its trainable parameters and its duration.

    Args:
        path: File of the figure.
        trials: The trials that ended; those without values are not drawn.
        title: Title of the figure.
    """
    figure = Figure(figsize=(10, 4), layout="tight")
    size, seconds = figure.subplots(1, 2, sharey=True)
    _scatter(size, trials, lambda trial: trial.info.get("parameters"))
    _scatter(seconds, trials, lambda trial: trial.seconds)
    size.set(xlabel="trainable parameters", ylabel="best validation value", xscale="log")
    seconds.set(xlabel="seconds of the trial", xscale="log")
    size.minorticks_off()
    seconds.minorticks_off()
    _legend(figure, trials)
    _save(figure, path, title)


def importance(path: Path, trials: Sequence[Trial], space: Space, title: str) -> None:
    """Plot the share of the variance that each single parameter explains, see `explained`.

    Args:
        path: File of the figure.
        trials: The trials that ended; failed ones are ignored.
        space: The search space; a bar per dimension.
        title: Title of the figure.
    """
    shares = explained(trials, space)
    names = sorted(shares, key=lambda name: shares[name])
    figure = Figure(figsize=(7, 0.45 * len(names) + 1.6), layout="tight")
    axes = figure.subplots()
    axes.barh(names, [shares[name] for name in names], color=COLOURS["COMPLETE"])
    axes.set(
        xlim=(0, 1),
        xlabel=f"variance explained by the parameter alone (adjusted R², {len(_usable(trials))} trials)",
    )
    _save(figure, path, title)


def explained(trials: Sequence[Trial], space: Space) -> dict[str, float]:
    """Return the adjusted R² of a regression of the trials' best values on each parameter alone.

    The regression has a mean per value of a `Choice`, and is quadratic in a number (in its logarithm for
    `LogUniform`).

    Args:
        trials: The trials; failed ones are ignored.
        space: The search space.

    Returns:
        Adjusted R² by parameter; 0 if it is negative or there are too few trials.
    """
    usable = _usable(trials)
    if not usable:
        return dict.fromkeys(space.dimensions, 0.0)
    values = np.array([trial.value for trial in usable], float)
    shares = {}
    for name, dimension in space.dimensions.items():
        if isinstance(dimension, Choice):
            design = np.array(
                [[trial.params[name] == value for value in dimension.values] for trial in usable], float
            )
        else:
            x = np.array([trial.params[name] for trial in usable], float)
            x = np.log(x) if isinstance(dimension, LogUniform) else x
            design = np.stack([np.ones_like(x), x, x**2], 1)
        shares[name] = _adjusted_r2(design, values)
    return shares


def _adjusted_r2(design: np.ndarray, values: np.ndarray) -> float:
    if values.var() == 0:
        return 0.0
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    freedom = len(values) - rank
    if freedom <= 0:
        return 0.0
    unexplained = ((values - design @ fitted) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    return float(max(0.0, 1 - unexplained * (len(values) - 1) / freedom))


def _usable(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state != "FAILED" and trial.values]


def _position(dimension: Any, value: Any) -> float:
    return dimension.values.index(value) if isinstance(dimension, Choice) else value


def _scatter(axes: Any, trials: Sequence[Trial], x: Any) -> None:
    for state in COLOURS:
        ended = [trial for trial in trials if trial.state == state and trial.values and x(trial) is not None]
        points = [(x(trial), trial.value) for trial in ended]
        if points:
            axes.scatter(
                *zip(*points, strict=True), color=COLOURS[state], marker=MARKERS[state], s=28, alpha=0.8
            )
    axes.grid(alpha=0.3)


def _legend(figure: Figure, trials: Sequence[Trial]) -> None:
    from matplotlib.lines import Line2D

    names = {"COMPLETE": "completed", "PRUNED": "stopped early", "FAILED": "failed"}
    states = [state for state in COLOURS if any(trial.state == state and trial.values for trial in trials)]
    marks = [
        Line2D([], [], color=COLOURS[state], marker=MARKERS[state], linestyle="", label=names[state])
        for state in states
    ]
    if marks:
        figure.legend(handles=marks, loc="lower right", ncols=3, fontsize=8)


def _save(figure: Figure, path: Path, title: str) -> None:
    figure.suptitle(title)
    save(figure, path, dpi=120)
