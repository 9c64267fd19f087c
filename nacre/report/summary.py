"""The closing table: what a person wants to know when a run has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from nacre.report.evidence import gather
from nacre.report.facts import Evidence, FindingFacts, IntervalFacts
from nacre.report.held import with_private_figures
from nacre.report.sections.headline import (
    HOLDERS_PAGE,
    accuracy,
    epsilon_figure,
    finding,
    key_figures,
    loss,
    warnings,
)
from nacre.report.sections.words import NOT_FOR_OTHERS


def run_figures(run_folder: Path) -> Table:
    """Epsilon of all parties, accuracy, accuracy under attack, membership, and where the pages are.

    It is for the terminal of the owner: figures on private rows are in it, each with the words
    that it is not for others. An attack that neither the recipe asked for nor `nacre audit`
    reported has no row. Raises as `gather` and `with_private_figures` do.
    """
    evidence = gather(run_folder)
    shown = with_private_figures(run_folder, evidence) or evidence
    table = Table(title=_plain(evidence["plan"]["name"]), title_justify="left")
    table.add_column("figure", style="cyan")
    table.add_column("value", justify="right")
    table.add_column("to be read with")
    figure, detail = epsilon_figure(evidence)
    table.add_row("epsilon", figure, _plain(detail))
    _, *measured = key_figures(shown)
    for stat in measured:
        said = f"{stat.detail}; {NOT_FOR_OTHERS}" if stat.private else stat.detail
        table.add_row(_begun(stat.label), stat.value, _plain(said))
    for warning in warnings(shown):
        table.add_row(Text("warning", style="bold red"), "", _plain(warning))
    page, own = run_folder / "report.html", run_folder / HOLDERS_PAGE
    table.add_row("report", "", _plain(page) if page.exists() else f"nacre report {run_folder}")
    if own.exists():
        table.add_row("with private figures", "", _plain(own))
    return table


def _plain(text: object) -> Text:
    """Text whose brackets are no markup."""
    return Text(str(text))


def summary_json(run_folder: Path) -> dict[str, Any]:
    """The same figures for programs; null where nothing was measured or may be shown.

    Figures on private rows stand under `on_private_rows` alone, null where there are none.
    """
    evidence = gather(run_folder)
    private = with_private_figures(run_folder, evidence)
    page, own = run_folder / "report.html", run_folder / HOLDERS_PAGE
    return {
        "name": evidence["plan"]["name"],
        "private": evidence["plan"]["private"],
        "parties": [
            {name: party[name] for name in ("name", "account", "epsilon", "delta", "accountant")}
            for party in evidence["plan"]["parties"]
        ],
        **_measured(evidence),
        "protected_accuracy": (
            evidence["evaluation"]["accuracy"] if "evaluation" in evidence else None
        ),
        "on_private_rows": (
            None if private is None else {"note": NOT_FOR_OTHERS, **_measured(private)}
        ),
        "warnings": warnings(evidence),
        "report": str(page) if page.exists() else None,
        "local_report": str(own) if own.exists() else None,
    }


def _measured(evidence: Evidence) -> dict[str, Any]:
    return {
        "accuracy": _figure(accuracy(evidence)),
        "loss": _figure(loss(evidence)),
        "attacked_accuracy": _figure(finding(evidence, "evasion")),
        "membership_advantage": _membership(evidence),
    }


def _figure(found: IntervalFacts | FindingFacts | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {"value": found["value"], "low": found["low"], "high": found["high"]}


def _membership(evidence: Evidence) -> dict[str, Any] | None:
    found = finding(evidence, "membership")
    figure = _figure(found)
    return {**figure, "verdict": found["verdict"]} if figure and found else None


def _begun(label: str) -> str:
    """A label as it stands within a sentence.

    >>> _begun("Balanced accuracy"), _begun("AUROC")
    ('balanced accuracy', 'AUROC')
    """
    return label if label[:2].isupper() else label[:1].lower() + label[1:]
