"""Search spaces: one per model, given once, translated by every backend; a YAML file may override them.

Light: no heavy imports, since `cli.py` and every backend read it. Sampling is the standard library's `random.Random` seeded by
text, which is the same on every platform and Python version.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from shardwave.common.errors import UsageError
from shardwave.models.networks.registry import find

Value = int | float | str | bool


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of `values`, each equally likely and drawn anew for every trial."""

    values: tuple[Value, ...]

    def draw(self, generator: random.Random) -> Value:
        return generator.choice(self.values)

    def allows(self, value: Any) -> bool:
        return value in self.values


@dataclasses.dataclass(frozen=True)
class Grid(Choice):
    """One of `values`; together with the space's other grids it spans cells that are covered evenly."""


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A float, uniform in [low, high]."""

    low: float
    high: float

    def draw(self, generator: random.Random) -> Value:
        return min(max(generator.uniform(self.low, self.high), self.low), self.high)

    def allows(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class LogUniform(Uniform):
    """A float whose logarithm is uniform in [log low, log high]; 0 < low."""

    def draw(self, generator: random.Random) -> Value:
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)


Dimension = Choice | Uniform

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
    "cnn-plus": {
        "conv1_kernel": Choice((3, 5, 7)),
        "conv1_channels": Choice((16, 24, 32)),
        "batch_size": Choice((16, 32, 64)),
        **_HEAD,
    },
}


@dataclasses.dataclass(frozen=True)
class Space:
    """The dimensions that are searched, and the parameters that are held fixed; both by hyper-parameter name."""

    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise UsageError("the search space is empty: leave at least one parameter to search, or use `train` for one training")

    def cells(self) -> list[dict[str, Value]]:
        """All combinations of the grid dimensions, in order; one empty cell when there is no grid."""
        grids = {name: dimension.values for name, dimension in self.dimensions.items() if isinstance(dimension, Grid)}
        return [dict(zip(grids, values, strict=True)) for values in product(*grids.values())]

    def point(self, trial: int, seed: int, *, shuffle: bool = True) -> dict[str, Value]:
        """Parameters of trial number `trial` (from 0), a function of (trial, seed) alone.

        Every grid cell comes once before any comes twice (in a new random order each time round, or in order without `shuffle`);
        all other dimensions are drawn anew.
        """
        cells = self.cells()
        turn, position = divmod(trial, len(cells))
        if shuffle:
            random.Random(f"cells {seed} {turn}").shuffle(cells)
        values = {**self.fixed, **cells[position]}
        for name, dimension in self.dimensions.items():
            if not isinstance(dimension, Grid):
                values[name] = dimension.draw(random.Random(f"{name} {seed} {trial}"))
        return {name: values[name] for name in (*self.dimensions, *self.fixed)}

    def describe(self) -> dict[str, Any]:
        """The space as a JSON object: `{name: {kind: [its fields]}}`, or the value of a fixed parameter."""
        rules = {name: {type(rule).__name__: list(vars(rule).values())} for name, rule in self.dimensions.items()}
        return json.loads(json.dumps({**rules, **self.fixed}))  # tuples become lists, as in what a file gives back

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Space:
        """The space that `describe` describes."""
        kinds: dict[str, Any] = {kind.__name__: kind for kind in (Choice, Grid, Uniform, LogUniform)}
        dimensions: dict[str, Dimension] = {}
        for name, rule in description.items():
            if isinstance(rule, dict):
                ((kind, fields),) = rule.items()
                dimensions[name] = kinds[kind](*(tuple(each) if isinstance(each, list) else each for each in fields))
        return cls(dimensions, {name: value for name, value in description.items() if name not in dimensions})

    def contains(self, params: Mapping[str, Any]) -> bool:
        """Whether `params` names exactly this space's parameters, each with a value the space allows."""
        if set(params) != {*self.dimensions, *self.fixed}:
            return False
        if any(params[name] != value for name, value in self.fixed.items()):
            return False
        return all(dimension.allows(params[name]) for name, dimension in self.dimensions.items())


def space_for(
    model: str, override: Mapping[str, Dimension] | Path | str | None = None, fixed: Mapping[str, Value] | None = None
) -> Space:
    """Return the search space of a model.

    Args:
        model: Name of the model.
        override: Dimensions that are searched instead of the default ones, or a YAML file of dimensions that replace single ones.
        fixed: Parameters that are not searched.

    Raises:
        UsageError: The file cannot be read, names an unknown parameter, or has a rule that is not valid.
    """
    find(model)
    if isinstance(override, Mapping):
        return Space(dict(override), dict(fixed or {}))
    dimensions: dict[str, Dimension] = dict(SPACES.get(model, _SHARED))
    constants: dict[str, Value] = dict(fixed or {})
    for name, rule in (_read_yaml(Path(override)) if override else {}).items():
        parsed = _parse(name, rule, model, override)
        if isinstance(parsed, Dimension):
            dimensions[name] = parsed
            constants.pop(name, None)
        else:
            constants[name] = parsed
    return Space({name: dimension for name, dimension in dimensions.items() if name not in constants}, constants)


KINDS: dict[str, Any] = {"grid": Grid, "choice": Choice, "uniform": Uniform, "log_uniform": LogUniform}
_RULES = "grid: [values], choice: [values], uniform: [low, high], log_uniform: [low, high], or one fixed value"


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"--space {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of UTF-8, of dates, of deep nesting
        raise UsageError(f"--space {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"--space {path} must map parameter names to rules ({_RULES})")
    return content


def _parse(name: Any, rule: Any, model: str, path: Path | str | None) -> Dimension | Value:
    """One entry of a space file."""
    where = f"--space {path}: {name}"
    types = parameters(model)
    if name not in types:
        raise UsageError(f"{where} is not a hyper-parameter of {model}; choose from {', '.join(types)}")
    kind = types[name]
    if not isinstance(rule, dict):
        return _value(where, kind, rule)
    if len(rule) != 1 or next(iter(rule)) not in KINDS:
        raise UsageError(f"{where} must be one of {_RULES}; got {rule}")
    key, given = next(iter(rule.items()))
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise UsageError(f"{where}: {key} takes a list, got {given}")
    values = tuple(_value(where, kind, value) for value in given)
    if key in ("grid", "choice"):
        if len(set(values)) != len(values):
            raise UsageError(f"{where}: {key} names a value twice: {list(values)}")
        return KINDS[key](values)
    if kind is not float:
        raise UsageError(f"{where} takes whole numbers: give it a grid or a choice, not {key}")
    if len(values) != 2 or not float(values[0]) < float(values[1]):
        raise UsageError(f"{where}: {key} takes [low, high] with low < high, got {list(values)}")
    low, high = float(values[0]), float(values[1])
    if key == "log_uniform" and low <= 0:
        raise UsageError(f"{where}: log_uniform needs low > 0, got {low}")
    return KINDS[key](low, high)


def _value(where: str, kind: type, value: Any) -> Value:
    """`value` as `kind`; YAML reads 1e-4 as text, so numbers may be given as text."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where} takes numbers, got {value!r}")
    if kind is int and number != int(number):
        raise UsageError(f"{where} takes whole numbers, got {value}")
    return kind(number)


def parameters(model: str) -> dict[str, type]:
    """Every hyper-parameter that a space for `model` may name, with its type."""
    whole: dict[str, tuple[str, ...]] = {"mlp": ("hidden_size", "hidden_layers"), "cnn-plus": ("conv1_kernel", "conv1_channels")}
    whole["vgg16"] = whole["mlp"]
    whole["cnn"] = (*whole["mlp"], "conv1_kernel", "conv2_kernel", "conv1_channels", "conv2_channels")
    rates = ("dropout", "learning_rate", "weight_decay", "label_smoothing", "mixup", "ema_decay")
    masks = ("time_mask", "frequency_mask") if model.startswith("cnn") else ()
    return {**dict.fromkeys(("batch_size", *whole.get(model, ())), int), **dict.fromkeys((*rates, *masks), float)}
