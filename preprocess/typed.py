"""JSON files checked against typed definitions when they are read, so that a wrong value is named together with its file.

A definition is a `TypedDict`; a field is one line of it. Understood are `int`, `float`, `str`, `bool`, `None`, `Any`, unions,
`Literal`, `list[T]`, `dict[str, T]`, nested `TypedDict`s with `NotRequired` fields, and any other class (an instance of it).
Numbers must be finite and whole numbers fit into 64 bits; `Annotated[int, Range(low, high)]` bounds them and
`Annotated[str, Pattern(regex)]` a text. Fields that a definition does not name are allowed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar, Union

from preprocess.errors import DamagedFile, UsageError
from preprocess.regular_file import read_bytes

T = TypeVar("T")
DEEPEST = 100  # levels of nested JSON; what goes over it again, level by level, must not run out of stack


@dataclasses.dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number, for `Annotated`."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"from {self.low:,}" + (f" to {self.high:,}" if self.high < math.inf else "")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A regular expression that a text must match as a whole, for `Annotated`."""

    regex: str


Count = Annotated[int, Range(0, 2**63 - 1)]


_MISSING = "there"  # the rule of a required field


class _Wrong(Exception):
    """A value that does not fit: the path to it, from the innermost name outwards, and the rule it breaks."""

    def __init__(self, rule: str, value: object, path: Sequence[str] = ()):
        super().__init__(rule)
        self.rule, self.value, self.path = rule, value, list(path)

    def __str__(self) -> str:
        name = "".join(reversed(self.path)).removeprefix(".")
        if self.rule == _MISSING:
            return f"it lacks the field {name}"
        return f"{f'field {name}' if name else 'the content'} must be {self.rule}, got {shown(self.value)}"


def shown(value: object) -> str:
    """`value` as JSON writes it, shortened."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if value is None or isinstance(value, (bool, int, float)):
        return reprlib.repr(value).replace("None", "null").replace("True", "true").replace("False", "false")
    return reprlib.repr(value)


def parse(data: bytes | str, where: object, remedy: str = "") -> Any:
    """Parse JSON; `where` names the file in errors, `remedy` ends their messages.

    Raises:
        DamagedFile: the data are not JSON, or nested too deeply.
    """
    try:
        value = json.loads(data)
        brackets = data.count("[") + data.count("{") if isinstance(data, str) else data.count(b"[") + data.count(b"{")
        if brackets > DEEPEST and _depth(value) > DEEPEST:
            raise RecursionError
    except RecursionError:
        raise DamagedFile(f"{where} is damaged: its JSON is nested too deeply{_end(remedy)}") from None
    except ValueError:  # of UTF-8 too
        raise DamagedFile(f"{where} is damaged: not JSON{_end(remedy)}") from None
    return value


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested, up to one more than DEEPEST."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        level = [
            each
            for one in level
            if isinstance(one, (dict, list))
            for each in (one.values() if isinstance(one, dict) else one)
            if isinstance(each, (dict, list))
        ]
        depth += 1
    return depth


def check(value: Any, kind: type[T], where: object, remedy: str = "") -> T:
    """Return `value` if it is what the definition `kind` says.

    Raises:
        DamagedFile: names `where`, the field, its rule and the value received; `remedy` ends the message.
    """
    checker: Callable[[Any], None] = _checker(typing.cast(Any, kind))
    try:
        checker(value)
    except _Wrong as wrong:
        raise DamagedFile(f"{where} is damaged: {wrong}{_end(remedy)}") from None
    return value


def _end(remedy: str) -> str:
    return f": {remedy}" if remedy else ""


def read(path: Path, kind: type[T], remedy: str = "") -> T:
    """Read the JSON file `path` and check it; raises OSError, or DamagedFile as `parse` and `check` do."""
    return check(parse(read_bytes(path), path, remedy), kind, path, remedy)


def lines(data: bytes, kind: type[T], where: object, remedy: str = "") -> list[T]:
    """Parse and check the lines of a JSON-lines file; empty ones are left out. Raises DamagedFile as `parse` and `check` do."""
    return [
        check(parse(line, f"{where} line {number}", remedy), kind, f"{where} line {number}", remedy)
        for number, line in enumerate(data.split(b"\n"), 1)  # not splitlines: names may hold other line ends
        if line.strip()
    ]


def build(kind: type[T], values: Any, where: object) -> T:
    """Build the dataclass `kind` from a JSON object of its fields.

    Raises:
        DamagedFile: names `where` and the field that is missing, unknown, of another type or refused by the class.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    check(values, dict, where)
    hints = _hints(kind)
    for name, value in values.items():
        if name not in fields:
            raise DamagedFile(f"{where} is damaged: {kind.__name__} has no field {shown(name)}")
        try:
            _checker(hints[name])(value)
        except _Wrong as wrong:
            wrong.path.append(f".{name}")
            raise DamagedFile(f"{where} is damaged: {wrong}") from None
    try:
        return kind(**values)
    except TypeError:
        required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING and n not in values]
        raise DamagedFile(f"{where} is damaged: it lacks {', '.join(required)}") from None
    except UsageError as error:
        raise DamagedFile(f"{where} is damaged: {error}") from None


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def _checker(kind: Any) -> Callable[[Any], None]:
    """A function that raises _Wrong for a value that is not of `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any or kind is object:
        return lambda value: None
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind is dict or kind is list:
        return _instance(kind, "an object" if kind is dict else "a list")
    if origin is Annotated:
        return _bounded(_checker(arguments[0]), arguments[1])
    if origin is NotRequired:
        return _checker(arguments[0])
    if origin is Literal:
        return _literal(arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is list:
        return _list(_checker(arguments[0]))
    if origin is tuple:  # JSON has lists only
        return _list(_checker(arguments[0]))
    if origin is dict:
        return _dict(_checker(arguments[1]))
    if typing.is_typeddict(kind):
        return _typed_dict(kind)
    return _instance(origin or kind, f"a {(origin or kind).__name__}")


def _int(value: Any) -> None:
    if type(value) is not int:
        raise _Wrong("a whole number", value)
    if not -(2**63) <= value < 2**64:
        raise _Wrong("a whole number of 64 bits", value)


def _float(value: Any) -> None:
    if type(value) is int:
        _int(value)
    elif type(value) is not float or not math.isfinite(value):
        raise _Wrong("a finite number", value)


def _str(value: Any) -> None:
    if type(value) is not str:
        raise _Wrong("text", value)


def _bool(value: Any) -> None:
    if type(value) is not bool:
        raise _Wrong("true or false", value)


def _none(value: Any) -> None:
    if value is not None:
        raise _Wrong("null", value)


_SIMPLE: dict[Any, Callable[[Any], None]] = {
    int: _int, float: _float, str: _str, bool: _bool, None: _none, type(None): _none,
}  # fmt: skip


def _instance(kind: type, rule: str) -> Callable[[Any], None]:
    def check_value(value: Any) -> None:
        if not isinstance(value, kind):
            raise _Wrong(rule, value)

    return check_value


def _bounded(inner: Callable[[Any], None], bounds: Range | Pattern) -> Callable[[Any], None]:
    if isinstance(bounds, Pattern):
        expression = re.compile(bounds.regex)

        def check_text(value: Any) -> None:
            inner(value)
            if not expression.fullmatch(value):
                raise _Wrong(f"text like {expression.pattern}", value)

        return check_text

    def check_value(value: Any) -> None:
        inner(value)
        if not bounds.low <= value <= bounds.high:
            raise _Wrong(f"a number {bounds}", value)

    return check_value


def _literal(values: tuple[Any, ...]) -> Callable[[Any], None]:
    def check_value(value: Any) -> None:
        if not any(type(value) is type(each) and value == each for each in values):
            raise _Wrong(f"one of {', '.join(map(str, values))}", value)

    return check_value


def _union(kinds: tuple[Any, ...]) -> Callable[[Any], None]:
    checkers = [_checker(kind) for kind in kinds]
    optional = type(None) in kinds

    def check_value(value: Any) -> None:
        if value is None and optional:
            return
        rules: list[str] = []  # not the exceptions: kept here, they would keep the callers' frames alive
        inside: tuple[str, object, list[str]] | None = None  # of a value of the right kind, with a wrong one in it
        for each in checkers:
            try:
                each(value)
                return
            except _Wrong as wrong:
                rules.append(wrong.rule)
                inside = (wrong.rule, wrong.value, wrong.path) if wrong.path else inside
        if inside is not None:
            raise _Wrong(*inside)
        raise _Wrong(" or ".join(dict.fromkeys(rules)), value)

    return check_value


def _list(item: Callable[[Any], None]) -> Callable[[Any], None]:
    def check_value(value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise _Wrong("a list", value)
        try:
            for each in value:
                item(each)
        except _Wrong as wrong:
            wrong.path.append(f"[{next(i for i, one in enumerate(value) if one is each)}]")
            raise

    return check_value


def _dict(item: Callable[[Any], None]) -> Callable[[Any], None]:
    def check_value(value: Any) -> None:
        if not isinstance(value, dict):
            raise _Wrong("an object", value)
        for name, each in value.items():
            try:
                _str(name)
                item(each)
            except _Wrong as wrong:
                wrong.path.append(f".{name}")
                raise

    return check_value


def _typed_dict(kind: Any) -> Callable[[Any], None]:
    # Required keys come from the definitions themselves: with postponed annotations `__required_keys__` misses NotRequired.
    hints = _hints(kind)
    total = kind.__total__
    checkers = {name: (_checker(hint), total and typing.get_origin(hint) is not NotRequired) for name, hint in hints.items()}

    def check_value(value: Any) -> None:
        if not isinstance(value, dict):
            raise _Wrong("an object", value)
        for name, (item, required) in checkers.items():
            if name not in value:
                if not required:
                    continue
                missing = _Wrong(_MISSING, None)
                missing.path.append(f".{name}")
                raise missing
            try:
                item(value[name])
            except _Wrong as wrong:
                wrong.path.append(f".{name}")
                raise

    return check_value
