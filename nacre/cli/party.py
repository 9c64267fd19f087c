"""`nacre party`."""

from __future__ import annotations

import math
from pathlib import Path

import click

from nacre.cli.failures import unfinished
from nacre.cli.output import code_of, code_options, common_options, note, show


@click.command(short_help="Take part in a federation, with rows that stay here.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="This party, as the recipe names it.")
@click.option("--into", type=click.Path(path_type=Path), required=True, help="A folder of its own.")
@click.option(
    "--policy", type=click.Path(path_type=Path), required=True, help="What this party agrees to."
)
@click.option(
    "--keys", type=click.Path(path_type=Path), required=True,
    help="The folder that `nacre federate keys` made.",
)  # fmt: skip
@click.option(
    "--roster", type=click.Path(path_type=Path), required=True, help="The roster of all sides."
)
@click.option("--superlink", required=True, metavar="HOST:PORT", help="Where it listens.")
@click.option("--ca", type=click.Path(path_type=Path), help="The authority of its certificate.")
@click.option("--insecure", is_flag=True, help="Speak without TLS and without a key of the node.")
@click.option(
    "--wait", type=float, default=600.0, show_default=True,
    help="Seconds for the SuperLink to be there; once reached it is waited for without end.",
)  # fmt: skip
@code_options
@common_options
def command(
    recipe: Path, name: str, into: Path, policy: Path, keys: Path, roster: Path, superlink: str,
    ca: Path | None, insecure: bool, wait: float, packages: tuple[str, ...], trust_code: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Wait at a SuperLink for the server of a federation, and take part in one run of RECIPE.

    The process stays warm and answers in place. Recipe, rows, policy and ledger are this party's
    own: the server says which weights, which round and which recipe, and no more. A party that was
    stopped goes on by the same command."""
    from nacre.cli.progress import watcher
    from nacre.core.errors import Refusal
    from nacre.recipe.load import load_recipe
    from nacre.runs.federation.attending import Attending
    from nacre.runs.federation.over_flower import Whereabouts, attend
    from nacre.runs.federation.policy import NotAgreed, read_policy

    if not 0 < wait < math.inf:
        raise click.UsageError(f"--wait {wait:g} must be a finite number above 0")
    place = Whereabouts(address=superlink, ca=authority(ca, insecure), keys=keys, roster=roster)
    said = read_policy(policy)
    own = load_recipe(recipe, code=code_of(packages, trust_code))
    with unfinished("continue with the same command"):
        try:
            attending = Attending(own, name, into, said, observe=watcher())
        except NotAgreed as error:
            raise Refusal(f"{policy}: {error}") from error
        try:
            note(f"party {name!r} waits at {superlink} for the server")
            attend(place, name, attending, note, wait)
        finally:
            attending.close()
    show({"party": name, "run": str(into)}, f"the run is over; {into} has its record", as_json)


def authority(ca: Path | None, insecure: bool) -> Path | None:
    """The authority's certificate; None without TLS, which has to be asked for."""
    if (ca is None) != insecure:
        raise click.UsageError(
            "name the certificate of the SuperLink's authority with `--ca ca.pem`, or say "
            "`--insecure`, which shows all that is sent to everybody on the way"
        )
    return ca
