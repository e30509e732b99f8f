"""Search spaces: the default space of each model and YAML files that override it.

Points are drawn with `random.Random` seeded by text, which gives the same values on every platform and Python
version. This module avoids heavy imports because the command line and every backend import it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.models.networks.registry import find
from shardwave.models.training.config import defaults
from shardwave.search.recorded import STARTS

Value = int | float | str | bool


@dataclasses.dataclass(frozen=True)
class Choice:
    """Categorical parameter: each trial draws one of `values` with equal probability.

    Attributes:
        values: The candidate values.
    """

    values: tuple[Value, ...]

    def draw(self, generator: random.Random) -> Value:
        """Draw a value."""
        return generator.choice(self.values)

    def allows(self, value: Any) -> bool:
        """Return whether `value` is one of `values`."""
        return value in self.values

    def nearest(self, value: Any) -> Value | None:
        """Return the candidate that is equal to `value` or, of numbers, nearest to it; else None."""
        if value in self.values:
            return next(candidate for candidate in self.values if candidate == value)
        if not all(_is_number(number) for number in (*self.values, value)):
            return None
        return min(self.values, key=lambda candidate: abs(float(candidate) - float(value)))


@dataclasses.dataclass(frozen=True)
class Grid(Choice):
    """Categorical parameter whose values are covered evenly.

    The `Grid` parameters of a space form cells, one for each combination of their values. The random and grid
    samplers use every cell once before they use any cell again; the model-based samplers treat a `Grid` as a
    `Choice`.

    Attributes:
        values: The candidate values.
    """


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Float parameter, uniformly distributed in [low, high].

    Attributes:
        low: Lower bound, inclusive.
        high: Upper bound, inclusive.
    """

    low: float
    high: float

    def draw(self, generator: random.Random) -> Value:
        """Draw a value."""
        return min(max(generator.uniform(self.low, self.high), self.low), self.high)

    def allows(self, value: Any) -> bool:
        """Return whether `value` is a number in [low, high]."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    def nearest(self, value: Any) -> Value | None:
        """Return the number in [low, high] that is nearest to `value`, or None if `value` is no number."""
        return min(max(float(value), self.low), self.high) if _is_number(value) else None


@dataclasses.dataclass(frozen=True)
class LogUniform(Uniform):
    """Float parameter whose logarithm is uniformly distributed in [log(low), log(high)].

    Attributes:
        low: Lower bound, inclusive, greater than 0.
        high: Upper bound, inclusive.
    """

    def draw(self, generator: random.Random) -> Value:
        """Draw a value."""
        value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return min(max(value, self.low), self.high)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Dimension = Choice | Uniform
Description = dict[str, Any]  # see `Space.describe`

_HEAD: dict[str, Dimension] = {
    "dropout": Uniform(0.0, 0.6),
    "learning_rate": LogUniform(1e-4, 1e-2),
    "weight_decay": LogUniform(1e-6, 1e-1),
}
_SHARED: dict[str, Dimension] = {
    "batch_size": Choice((16, 32, 64)),
    "learning_rate": LogUniform(1e-4, 1e-2),
    "weight_decay": LogUniform(1e-6, 1e-1),
}
SPACES: dict[str, dict[str, Dimension]] = {
    "mlp": {"batch_size": Grid((16, 32, 64)), "hidden_size": Grid((32, 64, 128, 256)), **_HEAD},
    "cnn": {
        "conv1_kernel": Choice((3, 5, 7)),
        "conv2_kernel": Choice((3, 5, 7)),
        "batch_size": Choice((16, 32, 64)),
        "hidden_size": Choice((64, 128, 256)),
        **_HEAD,
    },
    "vgg16": {"batch_size": Choice((16, 32, 64)), "hidden_size": Choice((128, 256, 512)), **_HEAD},
    "transfer": {"batch_size": Choice((16, 32, 64)), "hidden_size": Choice((128, 256, 512)), **_HEAD},
    "cnn-plus": {
        "conv1_kernel": Choice((3, 5, 7)),
        "conv1_channels": Choice((16, 24, 32)),
        "batch_size": Choice((16, 32, 64)),
        **_HEAD,
    },
}


@dataclasses.dataclass(frozen=True)
class Space:
    """Search space of a model.

    Attributes:
        dimensions: The searched parameters, by name.
        fixed: Values of the parameters that are not searched, by name.
        prior: Values of searched parameters that are known to be good, by name: in the space of a model, its
            default values, moved into the space.
        starts: Values of searched parameters for the first trials of a search, best first: in the space of a
            model, those of `shardwave.search.recorded`, moved into the space.
    """

    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    prior: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    starts: tuple[Mapping[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise UsageError("the search space is empty: search a parameter, or use `train` instead")
        for kind, values in (("prior", self.prior), *(("starts", start) for start in self.starts)):
            for name, value in values.items():
                if name not in self.dimensions or not self.dimensions[name].allows(value):
                    raise UsageError(f"{kind} must hold values of the search space, got {name}={value}")

    def cells(self) -> list[dict[str, Value]]:
        """Return all combinations of the `Grid` values, in order; one empty cell without `Grid`."""
        grids = {
            name: dimension.values
            for name, dimension in self.dimensions.items()
            if isinstance(dimension, Grid)
        }
        return [dict(zip(grids, values, strict=True)) for values in product(*grids.values())]

    def point(self, trial: int, seed: int, *, shuffle: bool = True) -> dict[str, Value]:
        """Return the parameters of a trial, which depend on the arguments only.

        Args:
            trial: Number of the trial, from 0.
            seed: Seed of the search.
            shuffle: Whether each pass over the grid cells has a new random order.

        Returns:
            The value of every searched and fixed parameter, by name.
        """
        cells = self.cells()
        cycle, position = divmod(trial, len(cells))
        if shuffle:
            random.Random(f"cells {seed} {cycle}").shuffle(cells)
        values = {**self.fixed, **cells[position]}
        for name, dimension in self.dimensions.items():
            if not isinstance(dimension, Grid):
                values[name] = dimension.draw(random.Random(f"{name} {seed} {trial}"))
        return {name: values[name] for name in (*self.dimensions, *self.fixed)}

    def near(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """Return the values of searched parameters in `params`, moved into the space.

        Args:
            params: Values by name. Those of parameters that are not searched, and those to which no value of
                the space is near, are left out.
        """
        near = {name: rule.nearest(params[name]) for name, rule in self.dimensions.items() if name in params}
        return {name: value for name, value in near.items() if value is not None}

    def with_starts(self, starts: Sequence[Mapping[str, Any]]) -> Space:
        """Return the space with other starts, moved into it; equal ones are kept once."""
        moved = [near for start in starts if (near := self.near(start))]
        kept = [start for number, start in enumerate(moved) if start not in moved[:number]]
        return dataclasses.replace(self, starts=tuple(kept))

    def first_trial(self, number: int, kind: str) -> dict[str, Value] | None:
        """Return the values that a search gives to its first trials.

        Args:
            number: Number of the trial, from 0.
            kind: `default` or `recorded`, see `shardwave.search.budget.SearchBudget.first_trial`; any other
                text: none.

        Returns:
            Values of searched parameters, by name; None: the sampler chooses all of them.
        """
        if kind == "default" and number == 0:
            return dict(self.prior)
        if kind == "recorded" and number < len(self.starts):
            return dict(self.starts[number])
        return None

    def first(self, name: str, default: Any) -> Any:
        """Return the first or the fixed value of a categorical parameter, or `default` without it."""
        rule = self.dimensions.get(name)
        return rule.values[0] if isinstance(rule, Choice) else self.fixed.get(name, default)

    def describe(self) -> Description:
        """Return the space as JSON.

        Returns:
            `{name: {class: [fields]}}`, with a further entry `"prior": value` if the parameter has a prior;
                `{name: value}` for a fixed parameter.
        """
        rules = {
            name: {
                type(rule).__name__: list(vars(rule).values()),
                **({"prior": self.prior[name]} if name in self.prior else {}),
            }
            for name, rule in self.dimensions.items()
        }
        # tuples become lists, so that the result is equal to the content of a file
        description: Description = json.loads(json.dumps({**rules, **self.fixed}))
        return description

    @classmethod
    def from_description(cls, description: Description) -> Space:
        """Create the space that `describe` returned as `description`."""
        kinds: dict[str, Callable[..., Dimension]] = {
            kind.__name__: kind for kind in (Choice, Grid, Uniform, LogUniform)
        }
        dimensions: dict[str, Dimension] = {}
        prior: dict[str, Value] = {}
        for name, rule in description.items():
            if isinstance(rule, dict):
                prior |= {name: rule["prior"]} if "prior" in rule else {}
                ((kind, fields),) = ((key, value) for key, value in rule.items() if key != "prior")
                dimensions[name] = kinds[kind](
                    *(tuple(each) if isinstance(each, list) else each for each in fields)
                )
        fixed = {name: value for name, value in description.items() if name not in dimensions}
        return cls(dimensions, fixed, prior)

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Return whether `params` has exactly the parameters of this space, each with an allowed value."""
        if set(params) != {*self.dimensions, *self.fixed}:
            return False
        if any(params[name] != value for name, value in self.fixed.items()):
            return False
        return all(dimension.allows(params[name]) for name, dimension in self.dimensions.items())


def space_for(
    model: str,
    override: Mapping[str, Dimension] | Path | str | None = None,
    fixed: Mapping[str, Value] | None = None,
) -> Space:
    """Return the search space of a model.

    Args:
        model: Name of the model.
        override: A mapping replaces the default dimensions. A YAML file changes single parameters and keeps
            the other defaults.
        fixed: Values of parameters that are not searched.

    Raises:
        UsageError: If the model is unknown, no parameter is searched, or the file cannot be read, names an
            unknown parameter or contains an invalid rule.
    """
    find(model)
    if isinstance(override, Mapping):
        return _complete(model, Space(dict(override), dict(fixed or {})))
    dimensions: dict[str, Dimension] = dict(SPACES.get(model, _SHARED))
    constants: dict[str, Value] = dict(fixed or {})
    for name, rule in (_read_yaml(Path(override)) if override else {}).items():
        parsed = _parse(name, rule, model, override)
        if isinstance(parsed, Dimension):
            dimensions[name] = parsed
            constants.pop(name, None)
        else:
            constants[name] = parsed
    searched = {name: dimension for name, dimension in dimensions.items() if name not in constants}
    return _complete(model, Space(searched, constants))


def _complete(model: str, space: Space) -> Space:
    """Return the space of a model with its prior and its starts."""
    prior = space.near(vars(defaults(model)))
    return dataclasses.replace(space, prior=prior).with_starts(STARTS.get(model, ()))


KINDS: dict[str, Callable[..., Any]] = {
    "grid": Grid,
    "choice": Choice,
    "uniform": Uniform,
    "log_uniform": LogUniform,
}
_RULES = (
    "grid: [values], choice: [values], uniform: [low, high], log_uniform: [low, high], or one fixed value"
)


def _read_yaml(path: Path) -> dict[str, object]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"--space {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: invalid UTF-8 or date
        raise UsageError(f"--space {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"--space {path} must map parameter names to rules ({_RULES})")
    return content


def _parse(name: Any, rule: Any, model: str, path: Path | str | None) -> Dimension | Value:
    """Parse one entry of a space file, and return a dimension or the value of a fixed parameter."""
    where = f"--space {path}: {name}"
    types = parameters(model)
    if name not in types:
        raise UsageError(f"{where} is not a hyper-parameter of {model}; choose from {', '.join(types)}")
    kind = types[name]
    if not isinstance(rule, dict):
        return _value(where, kind, rule)
    if len(rule) != 1 or next(iter(rule)) not in KINDS:
        raise UsageError(f"{where} must be one of {_RULES}; got {rule}")
    key, arguments = next(iter(rule.items()))
    if not isinstance(arguments, Sequence) or isinstance(arguments, str) or not arguments:
        raise UsageError(f"{where}: {key} takes a list, got {arguments}")
    values = tuple(_value(where, kind, value) for value in arguments)
    if key in ("grid", "choice"):
        if len(set(values)) != len(values):
            raise UsageError(f"{where}: {key} contains a value twice: {list(values)}")
        choice: Choice = KINDS[key](values)
        return choice
    if kind is not float:
        noun = "texts" if kind is str else "whole numbers"
        raise UsageError(f"{where} takes {noun}: use grid or choice, not {key}")
    if len(values) != 2 or not float(values[0]) < float(values[1]):
        raise UsageError(f"{where}: {key} takes [low, high] with low < high, got {list(values)}")
    low, high = float(values[0]), float(values[1])
    if key == "log_uniform" and low <= 0:
        raise UsageError(f"{where}: log_uniform needs low > 0, got {low}")
    interval: Uniform = KINDS[key](low, high)
    return interval


def _value(where: str, kind: type, value: Any) -> Value:
    """Convert `value` to `kind`; numbers may be text, since YAML reads 1e-4 as text."""
    if kind is str:
        if not isinstance(value, str):
            raise UsageError(f"{where} takes texts, got {value!r}")
        return value
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where} takes numbers, got {value!r}")
    if kind is int and number != int(number):
        raise UsageError(f"{where} takes whole numbers, got {value}")
    converted: Value = kind(number)
    return converted


def parameters(model: str) -> dict[str, type]:
    """Return the hyper-parameters that a space for `model` may contain, with their types."""
    integers: dict[str, tuple[str, ...]] = {
        "mlp": ("hidden_size", "hidden_layers"),
        "cnn-plus": ("conv1_kernel", "conv1_channels"),
    }
    integers["vgg16"] = integers["transfer"] = integers["mlp"]
    integers["cnn"] = (*integers["mlp"], "conv1_kernel", "conv2_kernel", "conv1_channels", "conv2_channels")
    rates = ("dropout", "learning_rate", "weight_decay", "label_smoothing", "mixup", "ema_decay")
    images = ("time_mask", "frequency_mask", "mix_powers", "random_gain", "slice_seconds")
    masks = images if model.startswith("cnn") else ()
    cuts = ("slices", "image_size") if model.startswith("cnn") else ()  # of a set of strips
    return {
        **dict.fromkeys(("batch_size", *integers.get(model, ()), *cuts), int),
        **dict.fromkeys((*rates, *masks), float),
        **({"inputs": str} if model == "mlp" else {}),
        **({"slice_stretch": str} if model.startswith("cnn") else {}),
    }
