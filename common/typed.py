"""Check JSON files against typed definitions with pydantic; an error names the file and the wrong value.

A definition is a `TypedDict`. Numbers must be finite, and integers must fit into 64 bits. No value is
converted, and fields that a definition does not name are allowed. `Annotated[int, Range(low, high)]` bounds a
number; `Annotated[str, Pattern(regex)]` restricts a text.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import re
import reprlib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NotRequired, TypeVar, Union

from shardwave.common.errors import DamagedFile, UsageError
from shardwave.common.regular_file import read_bytes

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
Json = dict[str, Any]  # a JSON object whose fields have no definition
DEEPEST = 100  # levels of nested JSON; recursive functions on deeper values could exceed the stack


class Range(NamedTuple):
    """Inclusive bounds of a number, for `Annotated`."""

    low: float
    high: float | None = None


class Pattern(NamedTuple):
    """A regular expression that a text must match as a whole, for `Annotated`."""

    regex: str


Count = Annotated[int, Range(0, 2**63 - 1)]


def shown(value: object) -> str:
    """Return a short text of a JSON value for messages."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)


def parse(data: bytes | str, where: object, remedy: str = "") -> Any:
    """Parse JSON.

    Args:
        data: The text.
        where: Name of the file, for messages.
        remedy: End of messages.

    Raises:
        DamagedFile: The data are not JSON, or are nested too deeply.
    """
    try:
        value = json.loads(data)
        text = data if isinstance(data, bytes) else data.encode(errors="replace")
        level = [value] if text.count(b"[") + text.count(b"{") > DEEPEST else []
        for _ in range(DEEPEST):
            inner = [
                one.values() if isinstance(one, dict) else one
                for one in level
                if isinstance(one, (dict, list))
            ]
            level = [each for values in inner for each in values]
        if level:
            raise RecursionError
    except RecursionError:
        raise DamagedFile(f"{where} is damaged: its JSON is nested too deeply{_end(remedy)}") from None
    except ValueError:  # of UTF-8 too
        raise DamagedFile(f"{where} is damaged: not JSON{_end(remedy)}") from None
    return value


def check(value: Any, kind: type[T], where: object, remedy: str = "") -> T:
    """Check a JSON value against a definition and return it unchanged.

    Args:
        value: The value.
        kind: The definition.
        where: Name of the file, for messages.
        remedy: End of messages.

    Raises:
        DamagedFile: The value does not satisfy the definition; the message names the field, its rule and the
            value received.
    """
    from pydantic import ValidationError

    try:
        _adapter(typing.cast(Any, kind)).validate_python(value)
    except ValidationError as error:
        raise DamagedFile(f"{where} is damaged: {_described(error.errors(), value)}{_end(remedy)}") from None
    return typing.cast(T, value)


def read(path: Path, kind: type[T], remedy: str = "") -> T:
    """Read a JSON file and check it against a definition.

    Args:
        path: The file.
        kind: The definition.
        remedy: End of messages.

    Raises:
        OSError: The file cannot be read.
        DamagedFile: The file is not JSON or does not satisfy the definition.
    """
    return check(parse(read_bytes(path), path, remedy), kind, path, remedy)


def lines(data: bytes, kind: type[T], where: object, remedy: str = "") -> list[T]:
    """Parse the lines of a JSON-lines file and check each against a definition. Empty lines are ignored.

    Args:
        data: Content of the file.
        kind: The definition of a line.
        where: Name of the file, for messages.
        remedy: End of messages.

    Raises:
        DamagedFile: A line is not JSON or does not satisfy the definition.
    """
    return [
        check(parse(line, f"{where} line {number}", remedy), kind, f"{where} line {number}", remedy)
        # splitlines would also split at other line ends within names
        for number, line in enumerate(data.split(b"\n"), 1)
        if line.strip()
    ]


def build(kind: type[T], values: Any, where: object) -> T:
    """Build a dataclass from a JSON object of its fields.

    Args:
        kind: The dataclass.
        values: The JSON object.
        where: Name of the file, for messages.

    Raises:
        DamagedFile: A field is missing, unknown, of another type or refused by the class; the message names
            it.
    """
    check(values, kind, where)
    try:
        return kind(**values)
    except UsageError as error:
        raise DamagedFile(f"{where} is damaged: {error}") from None


def _end(remedy: str) -> str:
    return f": {remedy}" if remedy else ""


def _described(errors: list[Any], value: Any) -> str:
    """Describe the error of the most deeply nested field; other types of a union fail at a higher level."""
    names = [_field(error, value) for error in errors]
    number = max(range(len(names)), key=lambda i: len(names[i]))
    name, error = "".join(names[number]).removeprefix("."), errors[number]
    if error["type"] in ("missing", "extra_forbidden"):
        return f"{'it lacks the' if error['type'] == 'missing' else 'there is no'} field {name}"
    rules = dict.fromkeys(
        each["msg"] for each, other in zip(errors, names, strict=True) if other == names[number]
    )
    rule = " or ".join(re.sub(r"^\w+ should ", "", each) for each in rules)
    return f"{f'field {name}' if name else 'the content'} must {rule}, got {shown(error['input'])}"


def _field(error: Any, value: Any) -> list[str]:
    """Return the path to the value of an error, without the steps that only name a type of a union."""
    steps = []
    for step in error["loc"]:
        try:
            value = value[step]
        except (LookupError, TypeError):
            if error["type"] != "missing":
                continue
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return steps


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    import pydantic

    return pydantic.TypeAdapter(_pydantic_type(kind))


def _pydantic_type(kind: Any) -> Any:
    """Return the type that pydantic checks, with strict scalars and a model for each TypedDict.

    pydantic itself accepts TypedDict only from Python 3.12 on.
    """
    from pydantic import ConfigDict, Field, InstanceOf, create_model

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is int:
        return Annotated[int, Field(strict=True, ge=-(2**63), lt=2**64)]
    if kind in (float, bool):
        return Annotated[kind, Field(strict=True, allow_inf_nan=False if kind is float else None)]
    if kind is str:
        return InstanceOf[str]  # a str of pydantic must not contain surrogates, which file names may have
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        closed = dataclasses.is_dataclass(kind)
        hints = typing.get_type_hints(kind, include_extras=True)
        if closed:
            optional = {
                f.name
                for f in dataclasses.fields(kind)
                if (f.default, f.default_factory) != (dataclasses.MISSING,) * 2
            }
        else:  # `__optional_keys__` lacks the NotRequired fields if annotations are postponed
            optional = {
                n for n, hint in hints.items() if typing.get_origin(hint) is NotRequired or not kind.__total__
            }
        fields: Any = {n: (_pydantic_type(hint), None if n in optional else ...) for n, hint in hints.items()}
        config = ConfigDict(arbitrary_types_allowed=True, extra="forbid" if closed else "ignore")
        return create_model(kind.__name__, __config__=config, **fields)
    if origin is Annotated:
        rule = arguments[1]
        if isinstance(rule, Pattern):
            return Annotated[str, Field(strict=True, pattern=f"^(?:{rule.regex})$")]
        return Annotated[_pydantic_type(arguments[0]), Field(ge=rule.low, le=rule.high)]
    if origin is NotRequired:
        return _pydantic_type(arguments[0])
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(_pydantic_type, arguments))
    return kind if origin in (None, Literal) else origin[tuple(map(_pydantic_type, arguments))]
