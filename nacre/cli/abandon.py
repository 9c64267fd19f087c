"""`nacre abandon`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="End an open run without a model; its key is destroyed.")
@click.argument("run", type=click.Path(path_type=Path))
@code_options
@common_options
def command(run: Path, packages: tuple[str, ...], trust_code: bool, as_json: bool) -> None:
    """End the open RUN without a model. What it released stays charged, its key is destroyed, and
    it can no longer be resumed."""
    from nacre.runs.run import abandon

    abandon(run, code=code_of(packages, trust_code))
    show({"run": str(run), "ended": "abandoned"}, f"{run} is abandoned; its key is gone", as_json)
