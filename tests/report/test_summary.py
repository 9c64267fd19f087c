"""The closing table and its JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from nacre.report import run_figures, summary_json, write_report
from tests.report import sample


def shown(run: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(run_figures(run))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_closing_table(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run")
    assert f"nacre report {run}" in shown(run)
    page = write_report(run)
    text = shown(run)
    for said in ("epsilon", "3.98 to 4.00", "all three parties; at δ = 10⁻⁴, by PLD", "94.7%",
                 "83.3%", "0.021", str(page)):  # fmt: skip
        assert said in text, said
    assert "warning" not in text


def test_markup_in_names_is_shown_as_it_stands(tmp_path: Path) -> None:
    plan = sample.plan()
    plan["name"] = "[bold]clinic[/bold]"
    recipe = sample.RECIPE.replace("public_demonstration: true", "unit: '[red]east'")
    plan["parties"][0]["unit"] = "group"
    text = shown(sample.write(tmp_path / "run", plan=plan, recipe=recipe))
    assert "[bold]clinic[/bold]" in text
    assert "[red]east" in text


def test_a_run_that_is_not_private_warns(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run", plan=sample.unprotected_plan(), findings=None)
    text = shown(run)
    assert "nothing is protected" in text
    assert "warning" in text
    facts = summary_json(run)
    assert not facts["private"]
    assert facts["membership_advantage"] is None
    assert facts["warnings"]


def test_an_attack_that_nobody_asked_for_has_no_row(tmp_path: Path) -> None:
    asked = "audit: [membership, evasion]\n"
    cases = {
        "": (False, False),
        "audit: [{kind: membership}]\n": (False, True),
        asked: (True, True),
    }
    for number, (audits, rows) in enumerate(cases.items()):
        recipe = sample.RECIPE.replace(asked, audits)
        run = sample.write(tmp_path / str(number), findings=None, comparison=None, recipe=recipe)
        (run / "local" / "findings.json").write_text("{}")
        text = shown(run)
        assert ("accuracy under attack" in text, "membership advantage" in text) == rows
        page = write_report(run).read_text()
        assert ("Accuracy under attack" in page, "Membership advantage" in page) == rows
        withheld = text.count("in local/report.html, for their holder alone")
        assert withheld == 1 + sum(rows)  # the accuracy, and each attack that was asked for


def test_a_language_model_has_a_loss_and_canaries(tmp_path: Path) -> None:
    plan = sample.plan() | {"task": "causal_lm"}
    recipe = sample.RECIPE.replace("[membership, evasion]", "[{kind: canaries}]")
    found = sample.membership() | {
        "audit": "canaries",
        "headline": "Canary exposure in bits",
        "unit": "bits",
        "value": 1.5,
        "low": 0.2,
        "high": 2.8,
    }
    outcome = sample.outcome() | {"curve": [{"round": 1, "loss": 2.5}, {"round": 2, "loss": 2.1}]}
    cases = {"1.500": {"findings": [found]}, "in local/report.html": None}
    for number, (says, findings) in enumerate(cases.items()):
        run = sample.write(
            tmp_path / str(number),
            plan=plan,
            recipe=recipe,
            findings=findings,
            comparison=None,
            outcome=outcome,
        )
        (run / "local" / "findings.json").write_text("{}")
        text = shown(run)
        assert "mean loss" in text and "accuracy" not in text
        page = write_report(run).read_text()
        assert "Mean loss on public rows" in page and "From 2.5 to 2.1." in page
        assert says in next(line for line in text.splitlines() if "canary exposure" in line)


def test_a_recipe_that_cannot_be_read_hides_no_figure(tmp_path: Path) -> None:
    for number, recipe in enumerate(("audit: [", "audit: 3", "audit: [{}]")):
        run = sample.write(tmp_path / str(number), findings=None, recipe=recipe)
        assert "accuracy under attack" in shown(run)


def test_the_same_as_json(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run")
    facts = summary_json(run)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["report"] is None
    assert facts["parties"][0] == {
        "name": "east",
        "account": "clinic/east",
        "epsilon": 3.971,
        "delta": 1e-4,
        "accountant": "pld",
    }
    assert facts["attacked_accuracy"] == {"value": 0.833, "low": 0.752, "high": 0.897}
    assert facts["membership_advantage"]["verdict"] == "not distinguishable from none"
    assert facts["accuracy"]["value"] == 0.947
    write_report(run)
    assert summary_json(run)["report"] == str(run / "report.html")
