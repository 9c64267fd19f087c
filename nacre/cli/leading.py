"""The options of `nacre train --over`: the way to the parties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nacre.cli.output import note
from nacre.cli.party import authority

if TYPE_CHECKING:
    from nacre.models import Code
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


def led(recipe: Path, into: Path, resume: bool, watch: Progress, code: Code, reach: Reach) -> Run:
    """Leads RECIPE's run over Flower; the finished run."""
    from nacre.core.run_folder import refuse_existing
    from nacre.federated_learning.across.keys import SECRET
    from nacre.planning.plan import plan
    from nacre.recipe.load import load_recipe
    from nacre.runs.federation.lead import lead
    from nacre.runs.federation.over_flower import Whereabouts, over_flower

    superlink, keys, roster = reach.require()
    place = Whereabouts(
        address=superlink, ca=authority(reach.ca, reach.insecure), keys=keys, roster=roster
    )
    secret = keys / SECRET if (keys / SECRET).exists() else None
    connect = over_flower(
        place, secret, wait=reach.wait, deadline=reach.deadline, tell=note, pins=reach.bundles,
        hub=reach.hub,
    )  # fmt: skip
    if not resume:
        refuse_existing(into)
    found = load_recipe(recipe, code=code)
    privacy = found.differential_privacy
    whole = privacy is not None and privacy.unit == "client"
    planned = plan(found, ledger=whole, resume=into if resume and whole else None)
    return lead(planned, into, connect, resume=resume, observe=watch)
