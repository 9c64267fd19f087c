"""`nacre plan`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.launch import seldom_collected
from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="Say what a recipe will run and what it costs; no row is read.")
@click.argument("recipe", type=click.Path(path_type=Path))
@code_options
@common_options
def command(recipe: Path, packages: tuple[str, ...], trust_code: bool, as_json: bool) -> None:
    """Say what RECIPE will run: who is protected how well, the noise and whether it leaves room to
    learn, the cost in time and memory, what it takes from its grant, and epsilon with one more
    epoch or with other noise, batches and steps. No row is read and nothing is written; where the
    file is there, its header alone is read, so that a mistyped column is found.

    Whatever is unsound is refused here, with file, line and remedy (exit code 2)."""
    with seldom_collected():
        from rich.console import Group

        from nacre.planning.outlook import outlook
        from nacre.planning.plan import plan
        from nacre.planning.robustness import robustness
        from nacre.planning.show import plan_tables as shown
        from nacre.planning.usefulness import usefulness
        from nacre.recipe.load import load_recipe

        planned = plan(load_recipe(recipe, code=code_of(packages, trust_code)))
    ahead = outlook(planned)
    facts, table = planned.to_json(), shown(planned)
    use = usefulness(planned)
    if use is not None:
        facts, table = facts | {"usefulness": use.to_json()}, Group(table, use.lines())
    rule = robustness(planned.recipe)
    if rule is not None:
        facts, table = facts | {"robustness": rule.to_json()}, Group(table, rule.lines())
    if ahead is not None:
        facts, table = facts | {"outlook": ahead.to_json()}, Group(table, ahead.table())
    show(facts, table, as_json)
