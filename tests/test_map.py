"""The map from files to the tests that cover them is current."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATH = re.compile(r"\b(?:nacre|tests|benchmarks)/[\w./]*\w")
MAPS = [ROOT / "tests" / "README.md", ROOT / "CONTRIBUTING.md"]


def test_every_path_of_the_map_exists() -> None:
    for page in MAPS:
        named = PATH.findall(page.read_text(encoding="utf-8"))
        assert named and [path for path in named if not (ROOT / path).exists()] == [], page.name


def test_every_folder_of_the_package_is_on_the_map() -> None:
    named = MAPS[0].read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "nacre").glob("*/__init__.py")}
    assert sorted(name for name in folders if f"`nacre/{name}" not in named) == []


def test_every_law_and_oracle_is_named() -> None:
    """A law that no row names is not run by those who change its subject."""
    named = MAPS[0].read_text(encoding="utf-8")
    files = [*ROOT.glob("tests/laws/test_*.py"), *ROOT.glob("tests/oracles/test_*.py")]
    missing = [path.name for path in files if f"/{path.name}`" not in named]
    assert sorted(missing) == []
