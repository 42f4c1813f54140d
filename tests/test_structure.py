"""The structure that the design fixes: one version, one import direction, public names, no torch in the runtime."""

from __future__ import annotations

import ast
import inspect
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parent.parent
PYPROJECTS = [ROOT / folder / "pyproject.toml" for folder in (".", "runtime", "export")]
PACKAGES = {
    "mmalign_runtime": ROOT / "runtime/mmalign_runtime",
    "mmalign": ROOT / "mmalign",
    "mmalign_export": ROOT / "export/mmalign_export",
}
ALLOWED_SIBLINGS = {
    "mmalign_runtime": set(),
    "mmalign": {"mmalign_runtime"},
    "mmalign_export": {"mmalign_runtime", "mmalign"},
}
HEAVY = {"torch", "torchvision", "transformers", "timm", "onnx", "onnxscript"}


def test_the_three_distributions_have_one_version_and_pin_each_other() -> None:
    projects = [tomllib.loads(path.read_text())["project"] for path in PYPROJECTS]
    (version,) = {project["version"] for project in projects}
    siblings = [need for project in projects for need in project["dependencies"] if need.startswith("mmalign")]
    assert siblings
    assert all(need.endswith(f"=={version}") for need in siblings)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    imported = {name for path in PACKAGES[package].rglob("*.py") for name in _imports(path)}
    assert imported & PACKAGES.keys() - {package} <= ALLOWED_SIBLINGS[package]


def test_the_runtime_knows_no_torch_and_no_onnx() -> None:
    imported = {name for path in PACKAGES["mmalign_runtime"].rglob("*.py") for name in _imports(path)}
    assert not imported & HEAVY


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_sorted_and_there(package: str) -> None:
    module = import_module(package)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", ["mmalign", "mmalign_export"])
def test_no_public_name_is_a_module_s_too(package: str) -> None:
    """Importing the module would put it in the function's place."""
    modules = {path.stem if path.stem != "__init__" else path.parent.name for path in PACKAGES[package].rglob("*.py")}
    assert modules.isdisjoint(import_module(package).__all__)


@pytest.mark.parametrize("package", ["mmalign", "mmalign_export"])
def test_public_functions_are_documented_part_by_part(package: str) -> None:
    module = import_module(package)
    functions = [named for name in module.__all__ if inspect.isfunction(named := getattr(module, name))]
    assert len(functions) >= 4
    for function in functions:
        parts = inspect.getdoc(function) or ""
        wanted = ["Args:", "Returns:", "Example:"] + ["Raises:"] * (function.__name__ != "space_id")
        assert [part for part in wanted if f"\n{part}\n" not in parts] == [], function.__name__
        listed = parts.partition("\nArgs:\n")[2].partition("\n\n")[0]
        assert [name for name in inspect.signature(function).parameters if f"    {name}: " not in listed] == []


def test_no_room_is_named_for_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    named = [path for folder in PACKAGES.values() for path in folder.rglob("*.py") if path.stem in vague]
    assert named == []


def test_the_files_that_run_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found
