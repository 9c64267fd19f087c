"""No verb runs Python code that a folder from elsewhere names, unless it is told to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nacre import Code, audit_run, load, open_run, plan
from nacre.core.errors import Refusal
from tests.cli.conftest import Nacre

pytestmark = pytest.mark.slow

NETS = """
from pathlib import Path

from torch import nn

Path(__file__).with_name("imported").touch()


def net():
    return nn.Linear(4, 3)
"""


@pytest.fixture
def own(recipe: Path) -> Path:
    """The recipe with a Python model of its own, at a folder of its own."""
    text = recipe.read_text()
    (model,) = (line for line in text.splitlines() if line.startswith("model:"))
    recipe.write_text(text.replace(model, 'model: {kind: python, call: "nets:net"}'))
    (recipe.parent / "nets.py").write_text(NETS)
    return recipe


def test_a_run_of_ones_own_needs_no_flag_and_one_from_elsewhere_runs_no_code(
    nacre: Nacre, own: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert nacre("plan", own).exit_code == 0
    done = nacre("run", own, "--into", run)
    assert done.exit_code == 0, done.stderr
    assert nacre("run", own, "--into", run, "--resume").exit_code == 0
    imported = own.parent / "imported"
    imported.unlink()
    shutil.copy(own.parent / "nets.py", run)
    for words in (
        ("audit", run),
        ("export", run, tmp_path / "out"),
        ("plan", run / "recipe.yaml"),
        ("audit", run, "--allow-package", "nets"),
    ):
        refused = nacre(*words)
        assert refused.exit_code == 2 and "--trust-code" in refused.stderr, refused.output
    assert nacre("report", run).exit_code == 0
    with pytest.raises(Refusal, match="--trust-code"):
        audit_run(open_run(run))
    with pytest.raises(Refusal, match="--trust-code"):
        plan(load(run / "recipe.yaml"))
    assert not imported.exists() and not (run / "imported").exists()
    assert audit_run(open_run(run, code=Code(runs=True)))
    assert nacre("audit", run, "--trust-code").exit_code == 0
    assert nacre("plan", run / "recipe.yaml", "--trust-code").exit_code == 0
    assert nacre("export", run, tmp_path / "out", "--trust-code").exit_code == 0


@pytest.mark.parametrize("call", ["os:system", "subprocess:call", "pathlib:Path.touch"])
def test_a_recipe_that_calls_a_module_of_the_system_is_refused(
    nacre: Nacre, own: Path, tmp_path: Path, call: str
) -> None:
    own.write_text(own.read_text().replace("nets:net", call))
    for words in (
        ("plan", own),
        ("train", own, "--into", tmp_path / "run"),
        ("plan", own, "--trust-code"),
    ):
        assert nacre(*words).exit_code == 2
    asked = nacre("plan", own, "--allow-package", "os")
    assert asked.exit_code == 2 and "Python's own library" in asked.stderr
