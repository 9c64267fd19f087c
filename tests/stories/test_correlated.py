"""The digits under correlated noise, through the command line: planned, trained, reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nacre.cli.main import cli

pytestmark = pytest.mark.slow

RECIPE = """\
nacre: 1
name: digits
data:
  kind: builtin
  name: digits
  size: 1438
  public_demonstration: true
  test: {{share: 0.2, stratified: true}}
  scaling: {{kind: declared}}
model: {{kind: mlp, hidden: [32]}}
gradient_clipping: {{kind: flat, norm: 1.0}}
differential_privacy: {{epsilon: 8, delta: 1.0e-4, noise: {noise}}}
training:
  steps: 48
  batch: 128
  sampling: {sampling}
  optimizer: {{kind: sgd, lr: 1.0}}
ledger:
  path: "{{run}}/privacy.db"
  dataset: digits
  grant: {{epsilon: 8, delta: 1.0e-4, rule: pld}}
audit: [membership]
"""


@pytest.mark.parametrize(
    ("noise", "sampling", "says"),
    [
        ("{kind: banded, bands: 8}", "{kind: cyclic_poisson}", "banded matrix"),
        ("{kind: tree}", "{kind: cyclic_poisson, cycle: 11}", "DP-FTRL"),
    ],
)
def test_digits_under_correlated_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str, sampling: str, says: str
) -> None:
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "cache"))
    recipe, run = tmp_path / "digits.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(noise=noise, sampling=sampling))
    planned = CliRunner().invoke(cli, ["plan", str(recipe)])
    assert planned.exit_code == 0, planned.output
    assert says in planned.output and "groups in turn" in planned.output
    for words in (["train", str(recipe), "--into", str(run)], ["audit", str(run)]):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
    assert not (run / "local" / "noise").exists()
    shown = CliRunner().invoke(cli, ["report", str(run)])
    assert shown.exit_code == 0, shown.output
    plan = json.loads((run / "plan.json").read_text())
    assert says in plan["techniques"]["differential_privacy"]
    assert says.split()[0] in (run / "report.html").read_text()
