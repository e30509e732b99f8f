"""No module imports a module of a higher package; there is no import cycle, not even inside functions."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    "common",
    "preprocess",
    "shards",
    "models",
    "search",
    "bench",
)  # each imports only from itself and those before it


def _modules(root: Path) -> dict[str, Path]:
    """{dotted name: file} of every module of the product below `root`."""
    modules = {}
    for layer in LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            name = ".".join(("shardwave", *path.relative_to(root).with_suffix("").parts))
            modules[name.removesuffix(".__init__")] = path
    return modules


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """Product modules that a file imports at its top, in functions, or under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules.keys()
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not used in this project"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found |= {name if name in modules else str(node.module)} & modules.keys()
    return found


def _graph(root: Path) -> dict[str, set[str]]:
    modules = _modules(root)
    return {name: _imports(path, modules) - {name} for name, path in modules.items()}


def _upward(graph: dict[str, set[str]]) -> list[str]:
    def level(name: str) -> int:
        return LAYERS.index(name.split(".")[1])

    return [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if level(other) > level(name)
    ]


def test_packages_import_only_from_packages_below_them() -> None:
    graph = _graph(ROOT)
    assert len(graph) > 100
    assert _upward(graph) == []


def test_no_import_cycles() -> None:
    graphlib.TopologicalSorter(_graph(ROOT)).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize(
    "hidden", ["    from shardwave.common import first", "    import shardwave.common.first"]
)
def test_a_cycle_inside_a_function_is_found(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "first.py").write_text("from shardwave.common import second\n")
    (tmp_path / "common" / "second.py").write_text(f"def function():\n{hidden}\n")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(_graph(tmp_path)).prepare()


def test_an_import_from_a_package_above_is_found(tmp_path: Path) -> None:
    for layer in ("common", "models"):
        (tmp_path / layer).mkdir()
        (tmp_path / layer / "__init__.py").touch()
    (tmp_path / "common" / "low.py").write_text("if TYPE_CHECKING:\n    from shardwave.models import high\n")
    (tmp_path / "models" / "high.py").touch()
    assert _upward(_graph(tmp_path)) == ["shardwave.common.low -> shardwave.models.high"]
