"""The closing table: what a person wants to know when a run has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nacre.figures.intervals import MeasuredFigure
from nacre.report.evidence import gather
from nacre.report.facts import Evidence, FindingFacts, IntervalFacts
from nacre.report.sections.headline import accuracy, finding, key_figures, loss, warnings
from nacre.report.sections.numbers import delta, epsilon_text


def run_figures(run_folder: Path) -> Table:
    """Epsilon of each party, accuracy, accuracy under attack, membership, and where the page is.

    An attack that neither the recipe asked for nor `nacre audit` reported has no row. Raises as
    `gather` does.
    """
    evidence = gather(run_folder)
    table = Table(title=_plain(evidence["plan"]["name"]), title_justify="left")
    table.add_column("figure", style="cyan")
    table.add_column("value", justify="right")
    table.add_column("to be read with")
    for party in evidence["plan"]["parties"]:
        by = f"delta {delta(party['delta'])}, by {party['accountant']}"
        promised = party["epsilon"] is not None
        table.add_row(
            _plain(f"epsilon, {party['name']}"),
            epsilon_text(party["epsilon"]),
            by if promised else "nothing is protected",
        )
    _, *measured = key_figures(evidence)
    for stat in measured:
        table.add_row(stat.label.lower(), stat.value, _plain(stat.detail))
    protected = evidence.get("evaluation")
    if protected is not None:
        value, words = _protected(protected["accuracy"])
        table.add_row("protected accuracy", value, words)
    for warning in warnings(evidence):
        table.add_row(Text("warning", style="bold red"), "", _plain(warning))
    page = run_folder / "report.html"
    table.add_row("report", "", _plain(page) if page.exists() else f"nacre report {run_folder}")
    return table


def _protected(figure: MeasuredFigure) -> tuple[str, str]:
    """(value, interval) of a figure that epsilon covers; the reason where it has none."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None or low is None or high is None:
        return "undefined", str(figure["why"])
    return f"{value:.1%}", f"95% interval {low:.1%} to {high:.1%}, noise included; may be shown"


def _plain(text: object) -> Text:
    """Text whose brackets are no markup."""
    return Text(str(text))


def summary_json(run_folder: Path) -> dict[str, Any]:
    """The same figures for programs; null where nothing was measured or may be shown."""
    evidence = gather(run_folder)
    page = run_folder / "report.html"
    return {
        "name": evidence["plan"]["name"],
        "private": evidence["plan"]["private"],
        "parties": [
            {name: party[name] for name in ("name", "account", "epsilon", "delta", "accountant")}
            for party in evidence["plan"]["parties"]
        ],
        "accuracy": _figure(accuracy(evidence)),
        "protected_accuracy": (
            evidence["evaluation"]["accuracy"] if "evaluation" in evidence else None
        ),
        "loss": _figure(loss(evidence)),
        "attacked_accuracy": _figure(finding(evidence, "evasion")),
        "membership_advantage": _membership(evidence),
        "warnings": warnings(evidence),
        "report": str(page) if page.exists() else None,
    }


def _figure(found: IntervalFacts | FindingFacts | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {"value": found["value"], "low": found["low"], "high": found["high"]}


def _membership(evidence: Evidence) -> dict[str, Any] | None:
    found = finding(evidence, "membership")
    figure = _figure(found)
    return {**figure, "verdict": found["verdict"]} if figure and found else None
