"""Definitions of JSON files, held against values that do not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from shardwave.common import typed
from shardwave.common.errors import ShardwaveError, UsageError


class Entry(TypedDict):
    file: str
    samples: typed.Count


class Example(TypedDict):
    state: Literal["RUNNING", "COMPLETE"]
    entries: dict[str, list[Entry]]
    share: Annotated[float, typed.Range(0, 1)]
    seed: int | None
    config: dict[str, Any] | None
    names: NotRequired[list[str]]
    choice: NotRequired[dict[str, Any] | list[typed.Count]]
    name: NotRequired[Annotated[str, typed.Pattern(r"[ab]\d")]]


GOOD = {
    "state": "COMPLETE",
    "entries": {"full": [{"file": "a", "samples": 3}]},
    "share": 1,
    "seed": None,
    "config": {"x": [1]},
}


def test_what_fits_is_returned_unchanged() -> None:
    assert typed.check(GOOD, Example, "x.json") is GOOD
    more = {**GOOD, "names": ["a"], "unknown": 1, "seed": -5, "config": None, "choice": [1], "name": "b7"}
    more["entries"] = {"bytes that are not UTF-8: \udcff": ({"file": "\udcff", "samples": 0},)}
    assert typed.check(more, Example, "x.json") is more


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"state": "DONE"}, "field state must be 'RUNNING' or 'COMPLETE', got 'DONE'"),
        ({"state": None}, "field state must be 'RUNNING' or 'COMPLETE', got null"),
        (
            {"entries": {"full": [{"file": "a", "samples": "x"}]}},
            "entries.full[0].samples must be a valid integer, got 'x'",
        ),
        (
            {"entries": {"full": [{"file": "a", "samples": True}]}},
            "samples must be a valid integer, got true",
        ),
        (
            {"entries": {"full": [{"file": "a", "samples": 1e300}]}},
            "samples must be a valid integer, got 1e+300",
        ),
        (
            {"entries": {"full": [{"file": "a", "samples": -1}]}},
            "samples must be greater than or equal to 0, got -1",
        ),
        (
            {"entries": {"full": [{"file": "a", "samples": 1 << 64}]}},
            "samples must be less than or equal to 9223372036854775807",
        ),
        ({"entries": {"full": [{"file": "a"}]}}, "it lacks the field entries.full[0].samples"),
        ({"entries": []}, "field entries must be a valid dictionary, got a list of 0"),
        ({"share": 1.5}, "field share must be less than or equal to 1, got 1.5"),
        ({"share": float("nan")}, "field share must be a finite number, got nan"),
        ({"seed": "1"}, "field seed must be a valid integer, got '1'"),
        ({"config": 3}, "field config must be a valid dictionary, got 3"),
        ({"names": [1]}, "field names[0] must be an instance of str, got 1"),
        ({"choice": [1, "x"]}, "field choice[1] must be a valid integer, got 'x'"),
        ({"choice": "x"}, "field choice must be a valid dictionary or be a valid list, got 'x'"),
        ({"name": "c3"}, "field name must match pattern '^(?:[ab]\\d)$', got 'c3'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(change: dict[str, Any], told: str) -> None:
    import re

    with pytest.raises(ShardwaveError, match="^x.json is damaged: .*" + re.escape(told)):
        typed.check({**GOOD, **change}, Example, "x.json")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"{'a': 1}"]
)
def test_what_is_not_json_is_named(data: bytes) -> None:
    with pytest.raises(ShardwaveError, match="^x.json is damaged: (not JSON|its JSON is nested too deeply)"):
        typed.parse(data, "x.json")


def test_a_missing_value_within_a_list_is_located(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"file": "a", "samples": 1}, {"file": 2, "samples": 1}]')
    with pytest.raises(
        ShardwaveError, match=r"damaged: field \[1\].file must be an instance of str, got 2: restore it"
    ):
        typed.read(tmp_path / "x.json", list[Entry], "restore it")


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size must be at least 1, got {self.size}")


def test_dataclasses_are_built_or_their_file_is_named() -> None:
    assert typed.build(Settings, {"size": 3, "rate": 1}, "x") == Settings(3, 1)
    for values, told in (
        ({"size": "3"}, "field size must be a valid integer, got '3'"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"rate": 1.0}, "it lacks the field size"),
        ({"size": 3, "more": 1}, "there is no field more"),
        ([], "the content must be a valid dictionary or instance of Settings, got a list of 0"),
    ):
        with pytest.raises(ShardwaveError, match=f"^x is damaged: {told}") as caught:
            typed.build(Settings, values, "x")
        assert caught.value.exit_status == 1
