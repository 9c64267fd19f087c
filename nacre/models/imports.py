"""Which files beside a recipe its Python code is made of, found by reading and never by running."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_LOADED = (".py", ".pyc", ".so", ".pyd")  # what an import may load


def files_of_module(folder: Path, top: str) -> list[Path]:
    """All that importing the module or package `top` from `folder` may load: its files of source or
    compiled code, those of a whole package; none where it is not there."""
    single = [path for path in folder.glob(f"{top}.*") if path.suffix in _LOADED]
    inside = [path for path in (folder / top).rglob("*") if path.suffix in _LOADED]
    return [
        path for path in (*single, *inside) if path.is_file() and "__pycache__" not in path.parts
    ]


def files_reached(folder: Path, top: str) -> list[Path]:
    """The files of `top` in `folder`, and of all that they import from there by a statement,
    wherever it stands, and so on; sorted.

    What is imported by a computed name (`importlib`), from a path that the code adds, or read as
    data is not among them.
    """
    found: set[Path] = set()
    seen: set[str] = set()
    due = [top]
    while due:
        name = due.pop()
        if name in seen:
            continue
        seen.add(name)
        files = files_of_module(folder, name)
        found.update(files)
        for file in files:
            if file.suffix == ".py":
                due.extend(_imports(file))
    return sorted(found)


def _imports(file: Path) -> Iterator[str]:
    """The top names of the modules that a file imports; none of one that is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the import of it fails, too
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
