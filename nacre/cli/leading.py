"""The options of `--over`: the way to the parties, of a training and of a release."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nacre.cli.failures import unfinished
from nacre.cli.output import Verb, note
from nacre.cli.queries import agreed_queries, authority

if TYPE_CHECKING:
    from nacre.models import Code
    from nacre.runs.federation.lead import Connect
    from nacre.runs.progress import Progress
    from nacre.runs.run import Run


@dataclass(frozen=True)
class Reach:
    """The options of `--over`."""

    superlink: str | None
    ca: Path | None
    insecure: bool
    keys: Path | None
    roster: Path | None
    wait: float
    deadline: float
    bundles: tuple[Path, ...] = ()
    hub: str | None = None

    def refuse_without_over(self) -> None:
        """Raises `click.UsageError` where one is given to a run that has no use for it."""
        given = (self.superlink, self.ca, self.keys, self.roster)
        extra = self.insecure or self.bundles or self.hub is not None
        if extra or any(each is not None for each in given):
            raise click.UsageError("options of the SuperLink go with `--over flower`; add it")

    def require(self) -> tuple[str, Path, Path]:
        """(SuperLink, keys, roster). Raises `click.UsageError` for what is missing."""
        for name, number in (("--wait", self.wait), ("--deadline", self.deadline)):
            if not 0 < number < math.inf:
                raise click.UsageError(f"{name} {number:g} must be a finite number above 0")
        if bool(self.bundles) != (self.hub is not None):
            raise click.UsageError(
                "`--bundle` and `--hub` go together: signatures of the bundle, and where the "
                "SuperLink asks for them"
            )
        if self.superlink is None or self.keys is None or self.roster is None:
            raise click.UsageError("`--over flower` needs `--superlink`, `--keys` and `--roster`")
        return self.superlink, self.keys, self.roster


def reach_options(verb: Verb) -> Verb:
    """The options of a server on its way to the parties; they arrive together as `reach`."""

    @wraps(verb)
    def reached(
        superlink: str | None, ca: Path | None, insecure: bool, keys: Path | None,
        roster: Path | None, wait: float, deadline: float, **others: Any,
    ) -> None:  # fmt: skip
        verb(reach=Reach(superlink, ca, insecure, keys, roster, wait, deadline), **others)

    path, seconds = click.Path(path_type=Path), "With --over: seconds "
    found: Any = reached
    for option in (
        click.option("--deadline", type=float, default=600.0, show_default=True,
                     help=f"{seconds}of a round."),
        click.option("--wait", type=float, default=600.0, show_default=True,
                     help=f"{seconds}for all parties to come."),
        click.option("--roster", type=path, help="With --over: the roster of all sides."),
        click.option("--keys", type=path, help="With --over: the server's folder of keys."),
        click.option("--insecure", is_flag=True, help="With --over: speak without TLS."),
        click.option("--ca", type=path, help="With --over: the authority's ca.pem."),
        click.option("--superlink", metavar="HOST:PORT", help="With --over: where it listens."),
    ):  # fmt: skip
        found = option(found)
    return found


def led_release(queries: Path, into: Path, resume: bool, reach: Reach) -> Mapping[str, Any]:
    """Leads a release over Flower; the answers as JSON has them."""
    from nacre.runs.federation.gathering import lead_release

    asked, text = agreed_queries(queries)
    with unfinished("continue with the same command and `--resume`"):
        return lead_release(asked, text, into, _connect(reach), resume=resume)


def _connect(reach: Reach) -> Connect:
    """The server's way to the parties. Raises `click.UsageError` for what is missing."""
    from nacre.federated_learning.across.keys import SECRET
    from nacre.runs.federation.over_flower import Whereabouts, over_flower

    superlink, keys, roster = reach.require()
    place = Whereabouts(
        address=superlink, ca=authority(reach.ca, reach.insecure), keys=keys, roster=roster
    )
    secret = keys / SECRET if (keys / SECRET).exists() else None
    return over_flower(
        place, secret, wait=reach.wait, deadline=reach.deadline, tell=note, pins=reach.bundles,
        hub=reach.hub,
    )  # fmt: skip


def led(recipe: Path, into: Path, resume: bool, watch: Progress, code: Code, reach: Reach) -> Run:
    """Leads RECIPE's run over Flower; the finished run."""
    from nacre.core.run_folder import refuse_existing, reopen
    from nacre.planning.plan import covered, plan
    from nacre.recipe.load import load_recipe
    from nacre.runs.federation.lead import lead

    connect = _connect(reach)
    if not resume:
        refuse_existing(into)
    found = load_recipe(recipe, code=code)
    again = (reopen(into).name(), into) if resume else None
    planned = covered(plan(found, ledger=False), again, unit="client")
    return lead(planned, into, connect, resume=resume, observe=watch)
