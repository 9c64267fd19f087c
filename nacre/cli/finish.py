"""`nacre finish`."""

from __future__ import annotations

from pathlib import Path

import click

from nacre.cli.output import code_of, code_options, common_options, show


@click.command(short_help="End an open run; its key is destroyed.")
@click.argument("run", type=click.Path(path_type=Path))
@code_options
@common_options
def command(run: Path, packages: tuple[str, ...], trust_code: bool, as_json: bool) -> None:
    """End the open RUN with the model of its last checkpoint. Its key, which could strip the noise
    off its releases, is destroyed, and it can no longer be resumed."""
    from nacre.cli.progress import watcher
    from nacre.core.files import read_json
    from nacre.runs.run import finish

    found = finish(run, observe=watcher(), code=code_of(packages, trust_code))
    outcome = read_json(found.folder.outcome)
    done, released = outcome["done"], outcome.get("released", outcome["done"])
    model = f"{released:,} released, the model is that of step {done:,}"
    people = f"{run} is finished: {model}; its key is gone"
    show({"run": str(run), "ended": "finished", "outcome": outcome}, people, as_json)
