"""Figures on private rows: on the holder's page and terminal, marked, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nacre.core.errors import FileDamaged
from nacre.report import gather, write_report
from nacre.report.page import render
from nacre.report.sections.words import NOT_FOR_OTHERS
from nacre.report.summary import summary_json
from tests.report import sample
from tests.report.test_page import Walk
from tests.report.test_summary import shown

ROWS = 114
NO_ROWS = "no row has this value"


def figure(value: float | None, *ends: float, why: str | None = None) -> dict[str, Any]:
    low, high = ends if ends else (None, None)
    return {"value": value, "low": low, "high": high, "why": why}


FIGURES: dict[str, Any] = {
    "rows": ROWS,
    "figures": {"accuracy": figure(0.9, 0.8, 0.95), "auroc": figure(0.8713, 0.81, 0.92)},
    "classes": [],
    "groups": [
        {"column": "sex", "name": "F", "rows": 0, "figures": {
            "accuracy": figure(None, why=NO_ROWS)}},
        {"column": "sex", "name": "M", "rows": 90, "figures": {
            "accuracy": figure(0.7319, 0.6, 0.8)}},
    ],
    "bins": [],
    "confusion": [],
}  # fmt: skip


def measured() -> dict[str, Any]:
    """The comparison of the sample with figures of its first model."""
    found = sample.comparison()
    found["variants"][0]["figures"] = FIGURES
    return found


def private_run(folder: Path) -> Path:
    """A run of which one finding, and the membership and figures compared, are on private rows."""
    comparison = sample.comparison()
    for variant in comparison["variants"]:
        variant["membership_advantage"] = None
    public = {"findings": [sample.evasion()]}
    run = sample.write(folder, findings=public, comparison=comparison)
    local = measured()
    finding = sample.membership() | {"public": False, "value": 0.0177}
    every = {"findings": [sample.evasion(), finding]}
    (run / "local" / "findings.json").write_text(json.dumps(every))
    (run / "local" / "comparison.json").write_text(json.dumps(local))
    return run


def test_private_figures_are_on_the_holders_page_and_terminal_alone(tmp_path: Path) -> None:
    run = private_run(tmp_path / "run")
    page = write_report(run)
    own = run / "local" / "report.html"
    to_hand_on = page.read_text() + (run / "evidence.json").read_text()
    mine, terminal = Walk(own.read_text()).text, shown(run)
    for figure in ("0.018", "87.1", "0.8713", "73.2", "sex = M"):
        assert figure not in to_hand_on, figure
    assert all(figure in mine for figure in ("0.018", "0.8713", "73.2%", NO_ROWS))
    assert "For the holder of the rows." in mine
    assert f"Membership advantage: {NOT_FOR_OTHERS}." in mine
    assert "For the holder" not in to_hand_on and NOT_FOR_OTHERS not in to_hand_on
    line = next(line for line in terminal.splitlines() if "membership" in line)
    assert "0.018" in line and NOT_FOR_OTHERS in line
    assert NOT_FOR_OTHERS not in next(n for n in terminal.splitlines() if "under attack" in n)
    assert str(own) in terminal
    facts = summary_json(run)
    assert facts["membership_advantage"] is None
    assert facts["on_private_rows"]["membership_advantage"]["value"] == 0.0177
    assert facts["on_private_rows"]["note"] == NOT_FOR_OTHERS


def test_the_holders_page_goes_with_its_figures(tmp_path: Path) -> None:
    run = private_run(tmp_path / "run")
    write_report(run)
    (run / "local" / "findings.json").unlink()
    (run / "local" / "comparison.json").unlink()
    write_report(run)
    assert not (run / "local" / "report.html").exists()
    assert summary_json(run)["on_private_rows"] is None


def test_what_the_holders_page_cannot_show_is_refused_before_a_page_is_written(
    tmp_path: Path,
) -> None:
    run = private_run(tmp_path / "run")
    (run / "local" / "comparison.json").write_text('{"rows": "many"}')
    with pytest.raises(FileDamaged, match=f"`nacre audit {run}` writes it anew"):
        write_report(run)
    assert not (run / "report.html").exists() and not (run / "evidence.json").exists()


def test_a_public_comparison_with_private_figures_is_refused(tmp_path: Path) -> None:
    comparison = sample.comparison() | {"on_private_rows": ["accuracy"]}
    run = sample.write(tmp_path / "run", comparison=comparison)
    with pytest.raises(FileDamaged, match="belongs in local/"):
        gather(run)


def test_further_figures_are_a_table_of_their_own(tmp_path: Path) -> None:
    run = sample.write(tmp_path / "run", comparison=measured())
    text = Walk(render(gather(run))).text
    for said in ("Further figures", "0.8713 0.81 to 0.92", "undefined", "73.2%", NO_ROWS):
        assert said in text, said
    assert text.count("AUROC") == 1
