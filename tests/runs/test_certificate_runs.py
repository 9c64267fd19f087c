"""Certificates of whole runs: `nacre run` with a certificate beside an evasion, and its report."""

import json

import pytest
import yaml

from nacre.audit.bounds import clopper_pearson
from nacre.cli.main import cli
from nacre.core.errors import Incompatible
from nacre.planning.plan import plan
from tests.training.tiny import CENTRAL, TABLE, changed, patients, recipe

BALL = {"kind": "l2", "radius": 0.4}
EVASION = {"kind": "evasion", "ball": BALL, "effort": "quick"}
DIGITS = changed(
    CENTRAL,
    {
        "data.name": "digits", "data.size": 1707, "data.test": {"share": 0.05},
        "training.batch": 300, "training.steps": 12, "ledger.dataset": "digits",
    },
)  # fmt: skip


def certificate(**method):
    return {"kind": "certificate", "ball": BALL, "rows": 60, "method": method}


def started(folder, base, audit, runner):
    """The folder of `nacre run`, and what it wrote as JSON."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(changed(base, {"audit": audit}), sort_keys=False))
    done = runner.invoke(cli, ["run", str(file), "--into", str(folder / "run")])
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture
def runner():
    from click.testing import CliRunner

    return CliRunner()


@pytest.fixture(params=["digits", "a table"])
def base(request, tmp_path):
    """A recipe whose test rows are public."""
    if request.param == "digits":
        return DIGITS
    patients(tmp_path / "patients.csv")
    return changed(TABLE, {"data.public_demonstration": True})


@pytest.mark.diagonal
@pytest.mark.parametrize(
    "method", [{"kind": "crown"}, {"kind": "smoothing", "deviation": 0.3, "samples": 200}],
    ids=lambda method: method["kind"],
)  # fmt: skip
def test_a_run_reports_what_it_certifies(tmp_path, base, method, runner):
    run = started(tmp_path, base, [certificate(**method), EVASION], runner)
    proved, attacked = json.loads((run / "findings.json").read_text())["findings"]
    assert (proved["audit"], attacked["audit"]) == ("certificate", "evasion")
    details, curve = proved["details"], proved["details"]["curve"]
    assert details["ball"] == attacked["details"]["ball"] == BALL | {"unit": "scaled"}
    assert [point["radius"] for point in curve] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    values = [point["value"] for point in curve]
    assert values == sorted(values, reverse=True) and values[0] > 0
    assert proved["value"] == values[-1] and details["rows_tested"] <= 60
    for point in curve:
        low, high = clopper_pearson(
            round(point["value"] * details["rows_tested"]), details["rows_tested"], 0.95
        )
        assert point["high"] == high
        assert point["low"] == max(0.0, low - details["failure"])
    page = (run / "report.html").read_text()
    assert "no answer changes with" in page
    below = "what a certificate proves" in page
    assert below == (method["kind"] == "crown")  # votes speak of another model
    assert below or "Certified accuracy by radius" in page
    assert ("a single answer of the model without noise is not covered" in page) == (not below)
    again = runner.invoke(cli, ["audit", str(run), "--json"])
    assert json.loads(again.stdout)["findings"][0] == proved
    told = runner.invoke(cli, ["audit", str(run)]).stdout
    assert "Certified accuracy by radius" in told and f"{curve[1]['value']:.3f}" in told


@pytest.mark.parametrize(
    ("changes", "method", "words"),
    [
        ({"model": {"kind": "cnn", "channels": [4]}}, {"kind": "crown"}, "norm0.*GroupNorm"),
        ({"model.activation": "tanh"}, {"kind": "ibp"}, "Tanh.*smoothing"),
        ({"model.activation": "tanh"}, {"kind": "smoothing", "deviation": 0.3}, None),
        ({}, {"kind": "crown"}, None),
    ],
)
def test_what_cannot_be_bounded_is_refused_before_the_run(tmp_path, changes, method, words):
    made = recipe(tmp_path, changed(DIGITS, changes), audit=[certificate(**method)])
    if words is None:
        assert "certificate" in plan(made).recipe.audit[0].sentence()
        return
    with pytest.raises(Incompatible, match=words) as refused:
        plan(made)
    assert "audit" in str(refused.value) and "\n" not in str(refused.value)
