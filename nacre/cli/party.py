"""`nacre party`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nacre.cli.failures import unfinished
from nacre.cli.output import code_of, code_options, common_options, note, show
from nacre.cli.queries import agreed_queries, asks_queries, authority

if TYPE_CHECKING:
    from nacre.models import Code
    from nacre.runs.federation.attending import Attending
    from nacre.runs.federation.policy import Policy
    from nacre.runs.federation.releasing import Releasing


@click.command(short_help="Take part in a federation, with rows that stay here.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="This party, as the recipe names it.")
@click.option("--table", type=click.Path(path_type=Path), help="With queries: its rows.")
@click.option("--ledger", help="With queries: its ledger, a file or a URL of PostgreSQL.")
@click.option("--account", help="With queries: the account that is charged.")
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
    ca: Path | None, insecure: bool, wait: float, table: Path | None, ledger: str | None,
    account: str | None, packages: tuple[str, ...], trust_code: bool, as_json: bool,
) -> None:  # fmt: skip
    """Wait at a SuperLink for the server of a federation, and take part in one run of RECIPE.

    The process stays warm and answers in place. Recipe, rows, policy and ledger are this party's
    own: the server says which weights, which round and which recipe, and no more. A party that was
    stopped goes on by the same command.

    RECIPE may also be a file of queries, for a release of statistics (`nacre release --over`): then
    --table, --ledger and --account are this party's own."""
    from nacre.core.errors import Refusal
    from nacre.runs.federation.over_flower import Whereabouts, attend
    from nacre.runs.federation.policy import NotAgreed, read_policy

    if not 0 < wait < math.inf:
        raise click.UsageError(f"--wait {wait:g} must be a finite number above 0")
    place = Whereabouts(address=superlink, ca=authority(ca, insecure), keys=keys, roster=roster)
    said = read_policy(policy)
    with unfinished("continue with the same command"):
        try:
            if asks_queries(recipe):
                waiting = _releasing(recipe, name, into, said, table, ledger, account)
            else:
                if table is not None or ledger is not None or account is not None:
                    raise click.UsageError(
                        "`--table`, `--ledger` and `--account` go with a file of queries; a recipe "
                        "has its own"
                    )
                waiting = _attending(recipe, name, into, said, code_of(packages, trust_code))
        except NotAgreed as error:
            raise Refusal(f"{policy}: {error}") from error
        try:
            note(f"party {name!r} waits at {superlink} for the server")
            attend(place, name, waiting, note, wait)
        finally:
            waiting.close()
    show({"party": name, "run": str(into)}, f"the run is over; {into} has its record", as_json)


def _attending(recipe: Path, name: str, into: Path, policy: Policy, code: Code) -> Attending:
    from nacre.cli.progress import watcher
    from nacre.recipe.load import load_recipe
    from nacre.runs.federation.attending import Attending

    return Attending(load_recipe(recipe, code=code), name, into, policy, observe=watcher())


def _releasing(
    queries: Path, name: str, into: Path, policy: Policy, table: Path | None, ledger: str | None,
    account: str | None,
) -> Releasing:  # fmt: skip
    from nacre.runs.federation.releasing import Releasing

    if table is None or ledger is None or account is None:
        raise click.UsageError(
            "a release needs the party's own `--table`, `--ledger` and `--account`"
        )
    asked, text = agreed_queries(queries)
    return Releasing(
        asked, text, name, into, policy, table=table, ledger=ledger, account=account, tell=note
    )
