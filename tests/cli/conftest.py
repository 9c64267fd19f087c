"""A command line in this process, and one finished run that the tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nacre.cli.main import cli

TINY = """\
nacre: 1
name: tiny
data: {kind: builtin, name: iris, size: 120, public_demonstration: true, test: {share: 0.2}}
model: {kind: mlp, hidden: [4]}
gradient_clipping: {kind: flat, norm: 1.0}
differential_privacy: {epsilon: 8, delta: 1e-3}
training: {steps: 3, batch: 30}
ledger: {path: "{run}/privacy.db", dataset: tiny, grant: {epsilon: 9, delta: 1e-3}}
audit: [membership]
"""

Nacre = Callable[..., Result]


@pytest.fixture(scope="session")
def nacre() -> Nacre:
    """Runs `nacre` with these words."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words])

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that trains in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, nacre: Nacre) -> tuple[Path, Result]:
    """(the folder of a run that `nacre run` has finished, what it said)."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.yaml").write_text(TINY)
    return folder / "run", nacre("run", folder / "tiny.yaml", "--into", folder / "run", "--json")


def document(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)
