"""Findings as tables: for the terminal of who audits, with whose rows they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nacre.report.sections.words import NOT_FOR_OTHERS

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.audit.finding import Finding


def findings_tables(findings: Sequence[Finding]) -> list[Table]:
    """The findings on public rows, then those on private ones under words that say so, and of each
    certificate what it proves at each radius."""
    public = [found for found in findings if found.public]
    private = [found for found in findings if not found.public]
    tables = [findings_table(public)] if public or not private else []
    if private:
        tables.append(findings_table(private, f"findings {NOT_FOR_OTHERS}"))
    return tables + [_by_radius(found) for found in findings if found.audit == "certificate"]


def findings_table(findings: Sequence[Finding], title: str | None = None) -> Table:
    """A line for each finding, and one for the accuracy before an attack."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("audit", "measure", "value", "interval", "verdict", title=title)
    table.title_justify = "left"
    named = [(found.audit, found.measure) for found in findings]
    for found in findings:
        interval = f"{found.low:.3f} to {found.high:.3f} ({found.confidence:.0%})"
        # Two findings of one name differ in what was put to the test.
        twice = named.count((found.audit, found.measure)) > 1
        measure = f"{found.measure}; {found.claim}" if twice else found.measure
        table.add_row(found.audit, escape(measure), f"{found.value:.3f}", interval, found.verdict)
        if (clean := found.details.get("clean")) is not None:
            interval = f"{clean['low']:.3f} to {clean['high']:.3f} ({found.confidence:.0%})"
            table.add_row("", "the same rows before any attack", f"{clean['value']:.3f}", interval)
    return table


def _by_radius(found: Finding) -> Table:
    """What is certified at each radius."""
    from rich.table import Table

    ball = found.details["ball"]
    unit = "the features' own units" if ball["unit"] == "features" else "scaled units"
    private = "" if found.public else f", {NOT_FOR_OTHERS}"
    table = Table(
        f"{ball['kind']} radius", "certified", "interval",
        title=f"Certified accuracy by radius, in {unit}{private}", title_justify="left",
    )  # fmt: skip
    for point in found.details["curve"]:
        interval = f"{point['low']:.3f} to {point['high']:.3f}"
        table.add_row(f"{point['radius']:g}", f"{point['value']:.3f}", interval)
    return table
