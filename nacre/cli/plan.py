"""`nacre plan`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.output import common_options, show


@click.command(short_help="Say what a recipe will run and what it costs; no row is read.")
@click.argument("recipe", type=click.Path(path_type=Path))
@common_options
def command(recipe: Path, as_json: bool) -> None:
    """Say what RECIPE will run: who is protected how well, the noise, the cost in time and memory,
    and what it takes from its grant. No row is read and nothing is written.

    Whatever is unsound is refused here, with file, line and remedy (exit code 2)."""
    from nacre.recipe.load import load
    from nacre.training.plan import plan

    planned = plan(load(recipe))
    show(planned.to_json(), planned.table(), as_json)
