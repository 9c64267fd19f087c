"""`nacre hello`."""

from __future__ import annotations

import click

from nacre.cli.output import common_options, show


@click.command(short_help="Say hello.")
@common_options
def command(as_json: bool) -> None:
    """Say hello."""
    show({"said": "hello"}, "hello", as_json)
