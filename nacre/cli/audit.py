"""`nacre audit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nacre.cli.output import code_of, code_options, common_options, show

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.audit.finding import Finding


@click.command(short_help="Attack the finished model of a run.")
@click.argument("run", type=click.Path(path_type=Path))
@code_options
@common_options
def command(run: Path, packages: tuple[str, ...], trust_code: bool, as_json: bool) -> None:
    """Attack the model of RUN as its recipe's `audit` says, and measure how good it is on the test
    rows. What is found on rows that are not public stays in RUN/local."""
    from rich.console import Group

    from nacre.audit.comparison import own_figures
    from nacre.audit.run import audit_run
    from nacre.cli.figures import figures_table
    from nacre.cli.progress import watcher
    from nacre.runs.run import open_run

    opened = open_run(run, code=code_of(packages, trust_code))
    findings = audit_run(opened, observe=watcher())
    own = own_figures(opened.folder)
    document = {
        "findings": [finding.to_json() for finding in findings],
        "model": None if own is None else {"public": own.public, **own.facts},
    }
    tables = [_table(findings)] if findings or own is None else []
    show(document, Group(*tables, *([figures_table(own)] if own is not None else [])), as_json)


def _table(findings: Sequence[Finding]) -> Table:
    from rich.table import Table

    table = Table("audit", "measure", "value", "interval", "verdict")
    for found in findings:
        interval = f"{found.low:.3f} to {found.high:.3f} ({found.confidence:.0%})"
        table.add_row(found.audit, found.measure, f"{found.value:.3f}", interval, found.verdict)
    return table
