"""`nacre tune`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.failures import resumable
from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="Search privately over a recipe's alternatives; keep the best.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--resume", is_flag=True, help="Continue the search that is open in that folder.")
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
    """Search over the values under `tune` in RECIPE: a random number of trials, each with values
    drawn from those listed. The best alone is kept, in a run folder as of `nacre train`; the others
    leave nothing. `differential_privacy.epsilon` is the price of the whole search.

    How many trials there are is secret, so nothing tells how far the search has come.

    An interrupted search continues with --resume, to the same winner."""
    from nacre.cli.progress import watcher
    from nacre.core.files import read_json
    from nacre.core.run_folder import refuse_existing
    from nacre.planning.alternatives import settings_in_words
    from nacre.planning.plan import plan
    from nacre.recipe.load import load_recipe
    from nacre.runs.tune import tune

    with resumable("tune", recipe, into):
        if not resume:
            refuse_existing(into)  # at once, and not after the noise is calibrated
        planned = plan(
            load_recipe(recipe, code=code_of(packages, trust_code)), resume=into if resume else None
        )
        run = tune(planned, into, resume=resume, observe=watcher())
    outcome = read_json(run.folder.outcome)
    found = outcome["search"]
    show(
        {"run": str(into), "outcome": outcome},
        f"the best trial had {settings_in_words(found['chosen'])} "
        f"({found['figure']}: {found['value']:.4g}) and is in {into}; next: nacre audit {into}",
        as_json,
    )
