"""Blocks of a search that Optuna's users expect: importances, slices, contours, curves and a timeline.

They are drawn from the trials of the run folder, so that every backend has them. The gain over random search
is not estimated: what random search would have found at the same cost does not follow from the trials of
another sampler, which are not draws from the space. `shardwave bench search` measures it.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shardwave.bench.report.blocks import Bar, Bars, Block, Chart, Text
from shardwave.common.errors import ShardwaveError, UsageError
from shardwave.search.backends.optuna.parts import distributions, optuna_module
from shardwave.search.figures import COLOURS
from shardwave.search.space import Space
from shardwave.search.trial import Trial

if TYPE_CHECKING:
    import optuna

MINIMUM = 4  # COMPLETE trials for importances
NO_GAIN = (
    "The gain over random search at the same cost is not estimated: the trials of a sampler that learns, or "
    "of a scheduler that stops, do not show what random search would have found. `shardwave bench search` "
    "compares strategies on recorded learning curves."
)


def study_blocks(trials: Sequence[Trial], description: Mapping[str, Any]) -> list[Block]:
    """Return the blocks of the trials of a search.

    Args:
        trials: The trials that ended.
        description: The search space, as in result.json.

    Raises:
        ShardwaveError: The description is damaged.
    """
    try:
        space = Space.from_description(dict(description))
    except UsageError as error:
        raise ShardwaveError(f"result.json is damaged: {error}") from None
    study = study_of([trial for trial in trials if space.contains(trial.params)], space)
    shares = importances(study)
    blocks: list[Block] = []
    if shares:
        bars = [Bar(name, "part c0", share, f"{share:.2f}") for name, share in shares.items()]
        blocks.append(
            Bars("Importance of the parameters", "share of the variance (fANOVA), complete trials", bars)
        )
    else:
        blocks.append(
            Text(
                f"Importances of the parameters need {MINIMUM} complete trials with different values and two "
                "values of a parameter."
            )
        )
    blocks += [
        _chart("Values over epochs, all trials", lambda: _intermediate(study)),
        _chart("Timeline of the trials by worker", lambda: _timeline(trials)),
    ]
    top = list(shares)[:2]
    if top:
        blocks.append(_chart(f"Complete trials over {' and over '.join(top)}", lambda: _slices(study, top)))
    if len(top) == 2:
        blocks.append(_chart(f"Contours over {' and '.join(top)}", lambda: _contours(study, top)))
    return [*blocks, Text(NO_GAIN)]


def study_of(trials: Sequence[Trial], space: Space) -> optuna.Study:
    """Return a study in memory with the trials of a search.

    Args:
        trials: The trials that ended, of any backend, with points of the space.
        space: The search space.
    """
    module = optuna_module()
    study: optuna.Study = module.create_study(direction="maximize")
    states = {"COMPLETE": module.trial.TrialState.COMPLETE, "PRUNED": module.trial.TrialState.PRUNED}
    rules = distributions(space)
    for trial in trials:
        state = states.get(trial.state, module.trial.TrialState.FAIL)
        study.add_trial(
            module.trial.create_trial(
                state=state,
                params={name: trial.params[name] for name in rules},
                distributions=rules,
                value=trial.value if trial.state == "COMPLETE" else None,
                intermediate_values=dict(enumerate(trial.values, 1)),
            )
        )
    return study


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each parameter by fANOVA, the greatest first.

    Args:
        study: A study.

    Returns:
        Shares that sum to 1; empty if the complete trials are too few or equal.
    """
    module = optuna_module()
    complete = study.get_trials(deepcopy=False, states=(module.trial.TrialState.COMPLETE,))
    if len(complete) < MINIMUM or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = module.importance.FanovaImportanceEvaluator(seed=0)
    shares = module.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def _intermediate(study: optuna.Study) -> Any:
    axes = _plots().plot_intermediate_values(study)
    if axes.get_legend() is not None:  # an entry per trial
        axes.get_legend().remove()
    axes.set(title="", xlabel="epoch", ylabel="validation value")
    return axes.figure


def _slices(study: optuna.Study, names: list[str]) -> Any:
    axes = _plots().plot_slice(study, names, target_name="best validation value")
    figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
    figure.suptitle("")
    return figure


def _contours(study: optuna.Study, names: list[str]) -> Any:
    axes = _plots().plot_contour(study, names, target_name="best validation value")
    axes.set_title("")
    return axes.figure


def _timeline(trials: Sequence[Trial]) -> Any:
    """Draw a bar per trial in the row of its worker, coloured by its state."""
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    figure, axes = pyplot.subplots()
    origin = min(trial.start for trial in trials)
    workers = sorted({trial.worker for trial in trials})
    for trial in trials:
        row = workers.index(trial.worker)
        axes.barh(
            row, trial.seconds, left=trial.start - origin, color=COLOURS[trial.state], edgecolor="white"
        )
    axes.set_yticks(range(len(workers)), [f"worker {number + 1}" for number in range(len(workers))])
    axes.invert_yaxis()
    axes.set(xlabel="seconds since the first trial started")
    states = [state for state in COLOURS if any(trial.state == state for trial in trials)]
    marks = [Patch(color=COLOURS[state], label=state) for state in states]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    return figure


def _plots() -> Any:
    optuna_module()
    from optuna.visualization import matplotlib as plots

    return plots


def _chart(title: str, draw: Callable[[], Any]) -> Chart:
    """Return the figure that `draw` returns as an SVG image."""
    from matplotlib import pyplot

    with _style():
        figure = draw()
        figure.set_size_inches(6.4, 3.6)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return Chart(title, "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode())


@contextmanager
def _style() -> Iterator[None]:
    """Restore matplotlib's settings, which Optuna's plots change, and hide its warnings about them."""
    import matplotlib

    settings: Any = {
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "shardwave",
        "text.parse_math": True,  # labels of logarithmic axes
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
