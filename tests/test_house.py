"""The house stays one that can be walked through: no circle of imports, one name for one thing,
and folders that can be taken in at a glance."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nacre"
WIDE = {"nacre/cli", "nacre/gradient_clipping/operations"}  # a file a verb, a file a kind
SIDE_BY_SIDE = 16


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _trees() -> dict[str, ast.Module]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def _imported(name: str) -> set[str]:
    """The modules of the package that a module imports, wherever and whatever for."""
    found: set[str] = set()
    for node in ast.walk(_trees()[name]):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in _trees() else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {other for other in found if other in _trees()} - {name}


def _circles() -> list[list[str]]:
    """Modules that import each other, directly or through others, by removing those that import
    nothing that is left, and those that nothing left imports, until neither is found."""
    left = {name: _imported(name) for name in _trees()}
    while True:
        needed = {other for others in left.values() for other in others}
        ends = {name for name, others in left.items() if not others or name not in needed}
        if not ends:
            return [sorted(left)] if left else []
        left = {name: others - ends for name, others in left.items() if name not in ends}


@pytest.mark.slow
def test_no_module_imports_itself_through_others() -> None:
    """Imports for types alone count: a reader follows them too."""
    assert _circles() == []


def _defined() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Names of classes, type aliases among them, and of public functions -> their modules."""
    classes: dict[str, list[str]] = defaultdict(list)
    functions: dict[str, list[str]] = defaultdict(list)
    for module, tree in _trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(module)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                name = target.id if isinstance(target, ast.Name) else ""
                if len(name) > 1 and name[0].isupper() and not name.isupper():
                    classes[name].append(module)
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                functions[node.name].append(module)
    return classes, functions


def _imported_bare() -> set[str]:
    """Names of functions that some module imports without their module in front."""
    return {
        alias.name
        for tree in _trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nacre")
        for alias in node.names
    }


def test_a_class_has_a_name_of_its_own() -> None:
    """A type alias is a name for a class, so it counts."""
    classes, _ = _defined()
    assert {name: modules for name, modules in classes.items() if len(modules) > 1} == {}


def test_a_function_that_is_imported_bare_has_a_name_of_its_own() -> None:
    """Where it is called, nothing but the name says which one it is."""
    _, functions = _defined()
    bare = _imported_bare()
    twice = {n: modules for n, modules in functions.items() if len(modules) > 1 and n in bare}
    assert twice == {}


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]
    counts = {path.relative_to(ROOT).as_posix(): len(list(path.glob("*.py"))) for path in folders}
    wide = {name: n for name, n in counts.items() if n > SIDE_BY_SIDE and name not in WIDE}
    assert wide == {}
