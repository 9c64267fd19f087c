"""`nacre run`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.failures import resumable
from nacre.cli.output import common_options, show


@click.command(short_help="Plan, train, audit and report in one go.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--resume", is_flag=True, help="Go on with the run that is open in that folder.")
@common_options
def command(recipe: Path, into: Path, resume: bool, as_json: bool) -> None:
    """Do everything that RECIPE says, into a new run folder: plan, train, audit, report.

    An interrupted run goes on with --resume."""
    from nacre.audit.run import audit_run
    from nacre.cli.progress import watcher
    from nacre.recipe.load import load
    from nacre.report.evidence import write_report
    from nacre.report.summary import summary, summary_json
    from nacre.training.folder import refuse_existing
    from nacre.training.plan import plan
    from nacre.training.run import train

    watch = watcher()
    with resumable("run", recipe, into):
        if not resume:
            refuse_existing(into)  # at once, and not after the noise is calibrated
        planned = plan(load(recipe), resume=into if resume else None)
        trained = train(planned, into=into, resume=resume, observe=watch)
        audit_run(trained, observe=watch)
        write_report(into, None)
    show(summary_json(into), summary(into), as_json)
