"""`nacre train`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.failures import resumable
from nacre.cli.launch import trained
from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="Train a recipe's model into a run folder, charged to its ledger.")
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
    """Train the model of RECIPE. The rows are checked, the whole cost is reserved in the ledger,
    and only then the first step is released.

    An interrupted run continues with --resume, to the same weights as one that was never
    interrupted. Several processes share the work where they are started by
    `torchrun --nproc_per_node N -m nacre train RECIPE --into RUN`."""
    from nacre.cli.progress import watcher
    from nacre.core.files import read_json

    with resumable("train", recipe, into):
        run = trained(recipe, into, resume, watcher(), code_of(packages, trust_code))
    if run is None:
        return
    outcome = read_json(run.folder.outcome)
    show(
        {"run": str(into), "outcome": outcome},
        f"trained {outcome['done']} of {outcome['planned']} steps ({outcome['stopped']}) into "
        f"{into}; next: nacre audit {into}",
        as_json,
    )
