"""`nacre run`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.failures import resumable
from nacre.cli.launch import trained
from nacre.cli.output import code_of, code_options, common_options, show
from nacre.core.errors import NacreError


@click.command(short_help="Plan, train, audit and report in one go.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--resume", is_flag=True, help="Continue the run that is open in that folder.")
@code_options
@common_options
def command(
    recipe: Path,
    into: Path,
    resume: bool,
    packages: tuple[str, ...],
    trust_code: bool,
    as_json: bool,
) -> None:
    """Do everything that RECIPE says, into a new run folder: plan, train, audit, report.

    An interrupted run continues with --resume."""
    from rich.console import Group

    from nacre.audit.comparison import own_figures
    from nacre.audit.run import audit_run
    from nacre.cli.figures import figures_table
    from nacre.cli.progress import watcher
    from nacre.report.evidence import write_report
    from nacre.report.summary import run_figures, summary_json

    watch = watcher()
    with resumable("run", recipe, into):
        run = trained(recipe, into, resume, watch, code_of(packages, trust_code))
        if run is None:
            return  # the first process audits and reports
        try:
            audit_run(run, observe=watch)
        except NacreError:  # private rows may be the reason, and the report is for others
            write_report(into, None)
            raise
        write_report(into, None)
    own = own_figures(run.folder)
    tables = [figures_table(own)] if own is not None else []
    show(summary_json(into), Group(run_figures(into), *tables), as_json)
