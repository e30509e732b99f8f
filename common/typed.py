"""JSON files checked by pydantic against typed definitions, so that a wrong value is named together with its file.

A definition is a `TypedDict`; a field is one line of it. Numbers must be finite and whole numbers fit into 64 bits, nothing is
converted, and fields that a definition does not name are allowed. `Annotated[int, Range(low, high)]` bounds a number,
`Annotated[str, Pattern(regex)]` a text.
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
DEEPEST = 100  # levels of nested JSON; what goes over it again, level by level, must not run out of stack


class Range(NamedTuple):
    """Inclusive bounds of a number, for `Annotated`."""

    low: float
    high: float | None = None


class Pattern(NamedTuple):
    """A regular expression that a text must match as a whole, for `Annotated`."""

    regex: str


Count = Annotated[int, Range(0, 2**63 - 1)]


def shown(value: object) -> str:
    """`value` as JSON writes it, shortened."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)


def parse(data: bytes | str, where: object, remedy: str = "") -> Any:
    """Parse JSON; `where` names the file in errors, `remedy` ends their messages.

    Raises:
        DamagedFile: the data are not JSON, or nested too deeply.
    """
    try:
        value = json.loads(data)
        text = data if isinstance(data, bytes) else data.encode(errors="replace")
        level = [value] if text.count(b"[") + text.count(b"{") > DEEPEST else []
        for _ in range(DEEPEST):
            inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
            level = [each for values in inner for each in values]
        if level:
            raise RecursionError
    except RecursionError:
        raise DamagedFile(f"{where} is damaged: its JSON is nested too deeply{_end(remedy)}") from None
    except ValueError:  # of UTF-8 too
        raise DamagedFile(f"{where} is damaged: not JSON{_end(remedy)}") from None
    return value


def check(value: Any, kind: type[T], where: object, remedy: str = "") -> T:
    """Return `value` itself if it is what the definition `kind` says.

    Raises:
        DamagedFile: names `where`, the field, its rule and the value received; `remedy` ends the message.
    """
    from pydantic import ValidationError

    try:
        _adapter(typing.cast(Any, kind)).validate_python(value)
    except ValidationError as error:
        raise DamagedFile(f"{where} is damaged: {_described(error.errors(), value)}{_end(remedy)}") from None
    return value


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
    check(values, kind, where)
    try:
        return kind(**values)
    except UsageError as error:
        raise DamagedFile(f"{where} is damaged: {error}") from None


def _end(remedy: str) -> str:
    return f": {remedy}" if remedy else ""


def _described(errors: list[Any], value: Any) -> str:
    """What is wrong, of several errors with the field that lies deepest: other types of a union fail above it."""
    names = [_field(error, value) for error in errors]
    number = max(range(len(names)), key=lambda i: len(names[i]))
    name, error = "".join(names[number]).removeprefix("."), errors[number]
    if error["type"] in ("missing", "extra_forbidden"):
        return f"{'it lacks the' if error['type'] == 'missing' else 'there is no'} field {name}"
    rules = dict.fromkeys(each["msg"] for each, other in zip(errors, names, strict=True) if other == names[number])
    rule = " or ".join(re.sub(r"^\w+ should ", "", each) for each in rules)
    return f"{f'field {name}' if name else 'the content'} must {rule}, got {shown(error['input'])}"


def _field(error: Any, value: Any) -> list[str]:
    """The steps to the value that an error is about, without those that only name a type of a union."""
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
def _adapter(kind: Any) -> TypeAdapter:
    import pydantic

    return pydantic.TypeAdapter(_pydantic_type(kind))


def _pydantic_type(kind: Any) -> Any:
    """The type that pydantic checks: scalars are not converted; a TypedDict, which it takes from Python 3.12 on, is a model."""
    from pydantic import ConfigDict, Field, InstanceOf, create_model

    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is int:
        return Annotated[int, Field(strict=True, ge=-(2**63), lt=2**64)]
    if kind in (float, bool):
        return Annotated[kind, Field(strict=True, allow_inf_nan=False if kind is float else None)]
    if kind is str:
        return InstanceOf[str]  # pydantic's own refuses surrogates, which stand for bytes of a name that are not UTF-8
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        closed = dataclasses.is_dataclass(kind)
        hints = typing.get_type_hints(kind, include_extras=True)
        if closed:
            optional = {f.name for f in dataclasses.fields(kind) if (f.default, f.default_factory) != (dataclasses.MISSING,) * 2}
        else:  # not `__optional_keys__`: with postponed annotations it misses NotRequired
            optional = {n for n, hint in hints.items() if typing.get_origin(hint) is NotRequired or not kind.__total__}
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
