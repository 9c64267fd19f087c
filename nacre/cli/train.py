"""`nacre train`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from nacre.cli.failures import resumable, unfinished
from nacre.cli.launch import trained
from nacre.cli.leading import Reach, led, reach_options
from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="Train a recipe's model into a run folder, charged to its ledger.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), required=True, help="The run folder.")
@click.option("--resume", is_flag=True, help="Continue the run that is open in that folder.")
@click.option(
    "--over", type=click.Choice(["flower"]), help="Train with parties that are elsewhere."
)
@reach_options
@click.option(
    "--bundle", "bundles", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="With --over: a party's signature of the bundle, for its stock SuperNode.",
)  # fmt: skip
@click.option(
    "--hub", metavar="HOST:PORT", help="With --bundle: where the SuperLink asks for signatures."
)
@code_options
@common_options
def command(
    recipe: Path, into: Path, resume: bool, over: str | None, reach: Reach,
    bundles: tuple[Path, ...], hub: str | None, packages: tuple[str, ...], trust_code: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Train the model of RECIPE. The rows are checked, the whole cost is reserved in the ledger,
    and only then the first step is released.

    An interrupted run continues with --resume, to the same weights as one that was never
    interrupted. Several processes share the work where they are started by
    `torchrun --nproc_per_node N -m nacre train RECIPE --into RUN`.

    With --over flower the parties of RECIPE are processes of other organisations (`nacre party`) at
    a SuperLink, and this one is their server: it needs no rows."""
    from nacre.cli.progress import watcher
    from nacre.core.files import read_json

    again = "continue with the same command and `--resume`"
    with resumable("train", recipe, into) if over is None else unfinished(again):
        code = code_of(packages, trust_code)
        reach = replace(reach, bundles=bundles, hub=hub)
        if over is None:
            reach.refuse_without_over()
            run = trained(recipe, into, resume, watcher(), code)
        else:
            run = led(recipe, into, resume, watcher(), code, reach)
    if run is None:
        return
    outcome = read_json(run.folder.outcome)
    parts = "steps" if run.recipe.federated_learning is None else "rounds"
    show(
        {"run": str(into), "outcome": outcome},
        f"trained {outcome['done']} of {outcome['planned']} {parts} ({outcome['stopped']}) into "
        f"{into}; next: nacre {'audit' if over is None else 'report'} {into}",
        as_json,
    )
